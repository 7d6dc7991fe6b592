//! What every job of a worker shares.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use platform::Platform;
use shared::clock::Clock;
use shared::figures::Figures;
use shared::knowledge::Vocabularies;
use shared::redis::Redis;
use shared::store::Db;
use shared::traces::Traces;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::WorkerConfig;
use crate::jobs::{Calls, Replies, Summaries};
use crate::knowledge::Embedder;
use crate::outbound::Wake;
use crate::pacing::Pacing;
use crate::progress::Progress;
use crate::queue::{Gates, Running, Tally};
use crate::tokens::Counts;
use crate::upstream::Client;

/// The tools of a job.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub config: WorkerConfig,
    /// Stable name and boot: `name/uuid`.
    pub worker_id: String,
    /// Names this start of the worker.
    pub boot: Uuid,
    /// The wall clock.
    pub clock: Clock,
    /// The database as `balas_worker`.
    pub db: Db,
    /// Redis.
    pub redis: Redis,
    /// Where spans go.
    pub traces: Traces,
    /// The upstream.
    pub upstream: Client,
    /// The platform's other services.
    pub platform: Platform,
    /// The limits of the upstream's account.
    pub pacing: Pacing,
    /// Texts to vectors.
    pub embedder: Arc<Embedder>,
    /// The words of the knowledge base.
    pub vocabularies: Vocabularies,
    /// What runs here right now.
    pub running: Running,
    /// Which queues may be taken from.
    pub gates: Gates,
    /// What was done of late.
    pub tally: Tally,
    /// What is counted for the whole fleet.
    pub figures: Arc<Figures>,
    /// How long replies take, by model.
    pub pace: Pace,
    /// Upstream calls that the ledger does not know yet.
    pub calls: Calls,
    /// Messages whose exact size is not stored yet.
    pub counts: Counts,
    /// Where finished replies are stored.
    pub replies: Replies,
    /// Where summaries are wished for.
    pub summaries: Summaries,
    /// Wakes those who tell the notification service.
    pub wake: Wake,
    /// What the watchdog looks at.
    pub progress: Arc<Progress>,
    /// Somebody of this worker's name asks whether it lives.
    pub called: Notify,
}

/// Replies of a model that are remembered; older ones say nothing about how it is now.
const REMEMBERED: usize = 64;

/// How long models took of late, each of them by what it answered itself.
#[derive(Debug, Default)]
pub struct Pace(Mutex<HashMap<String, VecDeque<Duration>>>);

impl Pace {
    /// Notes one reply of the model that gave it.
    pub fn note(&self, model: &str, took: Duration) {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replies = models.entry(model.to_owned()).or_default();
        if replies.len() == REMEMBERED {
            replies.pop_front();
        }
        replies.push_back(took);
    }

    /// The time within which so many percent of a model's replies came, once it has given any.
    #[must_use]
    pub fn percentile(&self, model: &str, percent: usize) -> Option<Duration> {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        percentile(models.get(model)?, percent)
    }

    /// The medians, in milliseconds.
    #[must_use]
    pub fn medians(&self) -> Vec<(String, f64)> {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let median = |(model, replies): (&String, &VecDeque<Duration>)| {
            let took = percentile(replies, 50)?;
            Some((model.clone(), took.as_secs_f64() * 1000.0))
        };
        models.iter().filter_map(median).collect()
    }
}

fn percentile(replies: &VecDeque<Duration>, percent: usize) -> Option<Duration> {
    let mut sorted: Vec<Duration> = replies.iter().copied().collect();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get(last * percent.min(100) / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_reply_does_not_move_the_median() {
        let pace = Pace::default();
        assert_eq!(pace.percentile("a", 50), None);
        for ms in [100, 110, 120, 90_000] {
            pace.note("a", Duration::from_millis(ms));
        }
        assert_eq!(pace.percentile("a", 50), Some(Duration::from_millis(110)));
        assert_eq!(pace.percentile("a", 100), Some(Duration::from_secs(90)));
        assert_eq!(pace.medians(), [("a".to_owned(), 110.0)]);
        // What was long ago is forgotten.
        for _ in 0..REMEMBERED {
            pace.note("a", Duration::from_secs(1));
        }
        assert_eq!(pace.percentile("a", 0), Some(Duration::from_secs(1)));
    }
}
