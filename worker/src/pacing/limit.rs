//! A limit of calls per minute as the generic cell rate algorithm keeps it.

use std::time::Duration;

/// No window of the upstream's minute holds more calls than allowed, nor of one that is stretched by
/// as much as calls may differ in how long they travel.
const WINDOW: Duration = Duration::from_secs(61);

/// So many calls in any minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    calls: u32,
}

impl Limit {
    /// A limit; none for 0.
    #[must_use]
    pub fn per_minute(calls: u32) -> Option<Self> {
        (calls > 0).then_some(Self { calls })
    }

    /// How many.
    #[must_use]
    pub fn calls(self) -> u32 {
        self.calls
    }

    /// Calls that may come at once: a reply and its title. Each one more would take the room of a
    /// steady one, because a burst may end one window and begin the next.
    fn burst(self) -> u32 {
        (self.calls / 10).max(1)
    }

    /// Between two calls, in the long run.
    #[must_use]
    pub fn gap(self) -> Duration {
        WINDOW / (self.calls - self.burst() + 1)
    }

    /// How far ahead of its time a call may come.
    #[must_use]
    pub fn slack(self) -> Duration {
        self.gap() * (self.burst() - 1)
    }

    /// The share of one of so many workers that cannot talk to each other: no bursts, and whole calls
    /// only. More workers than calls keep the limit on average.
    #[must_use]
    pub fn gap_of_one(self, workers: u32) -> Duration {
        let workers = workers.max(1);
        match self.calls / workers {
            0 => (WINDOW / self.calls).saturating_mul(workers),
            calls => WINDOW / calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_what_follows_it_fit_into_one_window() {
        for calls in [1, 2, 5, 19, 20, 50, 1_000] {
            let limit = Limit::per_minute(calls).unwrap();
            // The most that GCRA lets through in a window that is closed at one end.
            let most =
                (Duration::from_mins(1) + limit.slack()).as_secs_f64() / limit.gap().as_secs_f64();
            assert!((most.floor() as u32) < calls, "{calls}: {most}");
            let steady = 60.0 / limit.gap().as_secs_f64();
            assert!(
                steady > f64::from(calls) * 0.88,
                "{calls}: only {steady} a minute"
            );
            let shared = 60.0 / limit.gap_of_one(3).as_secs_f64() * 3.0;
            assert!(shared <= f64::from(calls), "{calls}: {shared}");
        }
        assert_eq!(Limit::per_minute(0), None);
    }
}
