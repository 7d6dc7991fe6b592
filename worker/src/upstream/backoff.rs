//! How long to wait before the same model is asked again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// The longest wait inside a claim. Longer ones free the worker.
pub(super) const MAX_IN_CLAIM: Duration = Duration::from_secs(2);

/// The longest wait that is worth keeping the generation for.
pub(super) const MAX_PUT_BACK: Duration = Duration::from_mins(10);

/// How long a generation is put back for when the upstream is busy and does not say until when.
pub(super) const UNTOLD_WAIT: Duration = Duration::from_secs(10);

/// Full jitter: anything up to a ceiling that doubles with each try, so that a crowd that failed
/// together does not come back together.
pub(super) fn full_jitter(tries: usize) -> Duration {
    let ceilings = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(MAX_IN_CLAIM)
        .without_max_times();
    let ceiling = ceilings
        .build()
        .nth(tries.saturating_sub(1))
        .unwrap_or(MAX_IN_CLAIM);
    ceiling.mul_f64(rand::random())
}

/// A wait the upstream asked for, and up to a tenth more: never early, and not all at once.
pub(super) fn at_least(told: Duration) -> Duration {
    told + told.mul_f64(rand::random::<f64>() * 0.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_fills_the_range_and_never_leaves_it() {
        for (tries, ceiling_ms) in [(1, 500), (2, 1000), (3, 2000), (9, 2000)] {
            let ceiling = Duration::from_millis(ceiling_ms);
            let delays: Vec<_> = (0..2000).map(|_| full_jitter(tries)).collect();
            assert!(delays.iter().all(|delay| *delay <= ceiling));
            assert!(delays.iter().any(|delay| *delay < ceiling / 10));
            assert!(delays.iter().any(|delay| *delay > ceiling * 9 / 10));
        }
    }

    #[test]
    fn a_told_wait_is_kept_within_a_tenth_and_never_cut_short() {
        let told = Duration::from_secs(60);
        for _ in 0..2000 {
            let wait = at_least(told);
            assert!(wait >= told && wait <= told.mul_f64(1.1));
        }
    }
}
