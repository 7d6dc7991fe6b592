//! Histograms, counters, and the line of progress.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The longest latency that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// Durations, to three digits.
#[derive(Debug)]
pub(crate) struct Latencies(Mutex<Histogram<u64>>);

impl Latencies {
    pub(crate) fn new() -> Self {
        // The bounds are constants that the constructor accepts; were they not, the smallest
        // histogram still counts.
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3);
        Self(Mutex::new(histogram.unwrap_or_else(|_| smallest())))
    }

    pub(crate) fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US);
        self.lock().saturating_record(micros.clamp(1, LONGEST_US));
    }

    pub(crate) fn summary(&self) -> Summary {
        let histogram = self.lock();
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        Summary {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(
    clippy::expect_used,
    reason = "a constant that hdrhistogram documents as valid"
)]
fn smallest() -> Histogram<u64> {
    Histogram::new(1).expect("one digit is valid")
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many were recorded.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// Differences of two processes' stamps, in microseconds; they may be negative.
#[derive(Debug, Default)]
pub(crate) struct Differences(Vec<i64>);

impl Differences {
    pub(crate) fn record(&mut self, micros: i64) {
        self.0.push(micros);
    }

    pub(crate) fn summary(mut self) -> Summary {
        self.0.sort_unstable();
        let at = |quantile: f64| {
            let rank = (quantile * self.0.len() as f64).ceil() as usize;
            self.0
                .get(rank.saturating_sub(1))
                .map_or(0.0, |micros| *micros as f64 / 1_000.0)
        };
        Summary {
            count: self.0.len() as u64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        }
    }
}

/// What is counted while a run goes on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) completed: AtomicU64,
    pub(crate) failed: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// Counts something that went wrong, by a short name of it.
    pub(crate) fn fail(&self, what: impl Into<String>) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.note(what);
    }

    /// Counts something that is to be known and is no failure.
    pub(crate) fn note(&self, what: impl Into<String>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(what.into()).or_default() += 1;
    }

    /// What went wrong, and how often.
    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

pub(crate) fn bump(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Writes a line to standard error each second, until dropped.
pub(crate) fn progress(quiet: bool, line: impl Fn() -> String + Send + 'static) -> DropGuard {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    if !quiet {
        let start = Instant::now();
        drop(crate::task::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            ticks.tick().await;
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                // Standard error may be closed; the run goes on without its progress.
                let _ = writeln!(
                    std::io::stderr(),
                    "{:>4} s  {}",
                    start.elapsed().as_secs(),
                    line()
                );
            }
        }));
    }
    guard
}

/// The usual line: counts and the latency so far.
pub(crate) fn counts(
    counters: &Arc<Counters>,
    latencies: &Arc<Latencies>,
) -> impl Fn() -> String + Send + 'static {
    let (counters, latencies) = (Arc::clone(counters), Arc::clone(latencies));
    move || {
        let Summary { p50, p99, .. } = latencies.summary();
        format!(
            "sent {}  accepted {}  completed {}  failed {}  p50 {p50:.1} ms  p99 {p99:.1} ms",
            read(&counters.sent),
            read(&counters.accepted),
            read(&counters.completed),
            read(&counters.failed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_data() {
        let latencies = Latencies::new();
        for millis in 1..=1_000 {
            latencies.record(Duration::from_millis(millis));
        }
        let summary = latencies.summary();
        for (value, expected) in [
            (summary.p50, 500.0),
            (summary.p99, 990.0),
            (summary.max, 1_000.0),
        ] {
            assert!(
                (value - expected).abs() <= expected / 500.0,
                "{value} {expected}"
            );
        }
        let mut differences = Differences::default();
        (-500..=500).for_each(|millis| differences.record(millis * 1_000));
        let summary = differences.summary();
        assert_eq!(
            (summary.p50, summary.max, summary.count),
            (0.0, 500.0, 1_001)
        );
    }
}
