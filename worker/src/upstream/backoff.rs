//! How long to wait before the same model, or the whole chain, is asked again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

/// The longest wait inside a claim. Longer ones free the worker.
pub(super) const MAX_IN_CLAIM: Duration = Duration::from_secs(2);

/// The longest wait that is worth keeping the generation for.
pub(super) const MAX_PUT_BACK: Duration = Duration::from_mins(10);

/// How long a generation is put back for when the upstream is busy and does not say until when.
pub(super) const UNTOLD_WAIT: Duration = Duration::from_secs(10);

/// The ceiling of the wait after the first round over the chain, and that of the last ones: an outage
/// is noticed to be over about this late.
const FIRST_ROUND: Duration = Duration::from_secs(2);
const LAST_ROUND: Duration = Duration::from_secs(30);

/// Full jitter: anything up to a ceiling that doubles with each try, so that a crowd that failed
/// together does not come back together.
pub(super) fn full_jitter(tries: usize) -> Duration {
    jittered(Duration::from_millis(500), MAX_IN_CLAIM, tries)
}

/// The same for a chain whose models have all failed so many times.
pub(super) fn later(rounds: u32) -> Duration {
    let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
    jittered(FIRST_ROUND, LAST_ROUND, rounds)
}

fn jittered(first: Duration, last: Duration, tries: usize) -> Duration {
    let ceilings = ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(last)
        .without_max_times();
    // Long before that many, the ceiling is the last one.
    let place = tries.saturating_sub(1).min(32);
    let ceiling = ceilings.build().nth(place).unwrap_or(last);
    ceiling.mul_f64(rand::random())
}

/// A wait the upstream asked for, and up to a twentieth more: never early, not all at once, and with what happens on the
/// way still within a tenth.
pub(super) fn at_least(told: Duration) -> Duration {
    told + told.mul_f64(rand::random::<f64>() * 0.05)
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
    fn rounds_get_further_apart_and_never_too_far() {
        for (rounds, ceiling_s) in [(1, 2), (2, 4), (4, 16), (5, 30), (u32::MAX, 30)] {
            let ceiling = Duration::from_secs(ceiling_s);
            let delays: Vec<_> = (0..2000).map(|_| later(rounds)).collect();
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
