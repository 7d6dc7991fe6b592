//! What is counted where it happens, for the whole fleet: each process adds its sums to the database's every
//! few seconds ([`crate::store::figures`]), so a report reads a few rows however much was done. A process that
//! is killed takes what it has not added yet with it; these are figures, and no accounts.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

/// How often a process adds what it has counted.
pub const EVERY: Duration = Duration::from_secs(5);

/// Buckets of a figure. The first holds what took less than a millisecond; each of the others begins where the
/// one before it ends and is wider by the eighth root of two, up to four minutes; the last is open.
pub const BUCKETS: usize = 144;
/// Buckets in which the time doubles.
const PER_DOUBLING: f64 = 8.0;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Replies in conversations that are none of the help desk, from acceptance to their end.
    Reply,
    /// The same in conversations of the help desk.
    SupportReply,
    /// Calls of the embedding provider.
    Embedding,
    /// Vectors of questions that were wanted; those that were not remembered count as failed.
    EmbeddingCache,
    /// Searches of the knowledge base; those by words only count as failed.
    Search,
}

impl Figure {
    /// Every figure.
    pub const ALL: [Self; 5] = [
        Self::Reply,
        Self::SupportReply,
        Self::Embedding,
        Self::EmbeddingCache,
        Self::Search,
    ];

    /// The stable name, as in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reply => "reply",
            Self::SupportReply => "support_reply",
            Self::Embedding => "embedding",
            Self::EmbeddingCache => "embedding_cache",
            Self::Search => "search",
        }
    }

    /// The figure of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|figure| figure.as_str() == name)
    }
}

/// What was counted of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum {
    /// How many.
    pub calls: i64,
    /// How many of them failed.
    pub failed: i64,
    /// How long all of them took, in milliseconds.
    pub sum_ms: f64,
    /// Calls by how long they took.
    pub buckets: Vec<i64>,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            calls: 0,
            failed: 0,
            sum_ms: 0.0,
            buckets: vec![0; BUCKETS],
        }
    }
}

/// How long something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Times {
    /// The mean, in milliseconds; null where there is nothing to take it of.
    pub average_ms: Option<f64>,
    /// What 95 % do not exceed, in milliseconds, to within a tenth; null likewise.
    pub p95_ms: Option<f64>,
}

impl Sum {
    fn note(&mut self, took: Duration, failed: bool) {
        let ms = took.as_secs_f64() * 1000.0;
        self.calls += 1;
        self.failed += i64::from(failed);
        self.sum_ms += ms;
        self.buckets[bucket(ms)] += 1;
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.sum_ms += other.sum_ms;
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// The share that failed, 0 to 1; none of nothing.
    #[must_use]
    pub fn failure_rate(&self) -> Option<f64> {
        (self.calls > 0).then(|| round(self.failed as f64 / self.calls as f64, 10_000.0))
    }

    /// How long they took.
    #[must_use]
    pub fn times(&self) -> Times {
        if self.calls == 0 {
            return Times::default();
        }
        Times {
            average_ms: Some(round(self.sum_ms / self.calls as f64, 10.0)),
            p95_ms: Some(round(self.percentile(0.95), 10.0)),
        }
    }

    /// What that share of the calls did not exceed, in milliseconds.
    fn percentile(&self, share: f64) -> f64 {
        let wanted = share * self.calls as f64;
        let mut below = 0.0;
        for (place, count) in self.buckets.iter().enumerate() {
            let within = *count as f64;
            if within > 0.0 && below + within >= wanted {
                let (low, high) = (begins(place), begins(place + 1));
                return low + (high - low) * ((wanted - below) / within);
            }
            below += within;
        }
        begins(BUCKETS)
    }
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

fn bucket(ms: f64) -> usize {
    if ms < 1.0 {
        return 0;
    }
    // Not negative, and the last bucket takes whatever is longer.
    ((ms.log2() * PER_DOUBLING).floor() as usize + 1).min(BUCKETS - 1)
}

/// Where a bucket begins, in milliseconds.
fn begins(place: usize) -> f64 {
    match place {
        0 => 0.0,
        _ => ((place - 1) as f64 / PER_DOUBLING).exp2(),
    }
}

/// What a process has counted and not added yet.
#[derive(Debug, Default)]
pub struct Figures(Mutex<BTreeMap<Figure, Sum>>);

impl Figures {
    /// Notes one call, and whether it failed.
    pub fn note(&self, figure: Figure, took: Duration, failed: bool) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.entry(figure).or_default().note(took, failed);
    }

    /// What was counted since it was last taken.
    #[must_use]
    pub fn take(&self) -> BTreeMap<Figure, Sum> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives back what was taken and could not be added.
    pub fn give_back(&self, taken: &BTreeMap<Figure, Sum>) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (figure, sum) in taken {
            sums.entry(*figure).or_default().add(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: impl IntoIterator<Item = u64>) -> Sum {
        let mut sum = Sum::default();
        for ms in times {
            sum.note(Duration::from_millis(ms), false);
        }
        sum
    }

    #[test]
    fn percentiles_are_right_to_within_a_tenth() {
        for scale in [1, 7, 110, 1900] {
            let times = of((1..=1000).map(|place| place * scale));
            let exact = 950.0 * scale as f64;
            let told = times.times().p95_ms.unwrap();
            let last = begins(BUCKETS - 1);
            if exact < last {
                assert!((told / exact - 1.0).abs() < 0.1, "{told} for {exact}");
            } else {
                assert!(told >= last, "{told}");
            }
        }
        assert_eq!(of([12]).times().average_ms, Some(12.0));
        assert_eq!(Sum::default().times(), Times::default());
    }

    #[test]
    fn buckets_meet_without_a_hole() {
        for place in 1..BUCKETS {
            let edge = begins(place);
            assert_eq!(bucket(edge * 1.0001), place, "{edge}");
            assert_eq!(bucket(edge * 0.9999), place - 1, "{edge}");
        }
        assert_eq!(bucket(0.0), 0);
        assert_eq!(bucket(1e12), BUCKETS - 1);
    }

    #[test]
    fn what_could_not_be_added_is_added_later() {
        let figures = Figures::default();
        figures.note(Figure::Search, Duration::from_millis(4), true);
        let taken = figures.take();
        figures.note(Figure::Search, Duration::from_millis(8), false);
        figures.give_back(&taken);
        let again = figures.take();
        let search = &again[&Figure::Search];
        assert_eq!((search.calls, search.failed, search.sum_ms), (2, 1, 12.0));
        assert_eq!(search.failure_rate(), Some(0.5));
        assert!(figures.take().is_empty());
        for figure in Figure::ALL {
            assert_eq!(Figure::from_name(figure.as_str()), Some(figure));
        }
    }
}
