//! A service that fails again and again is left alone for a while, and then asked by one request.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it.
const OPENS_AT: u32 = 5;
/// How long it stays open the first time; each failed probe doubles it.
const REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    rest: Duration,
    probed: bool,
}

/// How it is with a service, as the last who wanted to ask it has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Closed,
    /// It is left alone.
    Open,
    /// Its rest is over and one request asks how it is.
    Probed,
}

impl Condition {
    /// As metrics show it.
    pub(crate) fn number(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::Open => 1.0,
            Self::Probed => 2.0,
        }
    }
}

impl Breaker {
    /// Whether the service may be asked now. Once its rest is over one may, and the others wait for
    /// what comes of it, or for another rest.
    pub(crate) fn admits(&self) -> bool {
        let mut state = self.lock();
        match state.open_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                state.open_until = Some(Instant::now() + state.rest);
                state.probed = true;
                true
            }
        }
    }

    pub(crate) fn condition(&self) -> Condition {
        let state = self.lock();
        match (state.open_until, state.probed) {
            (None, _) => Condition::Closed,
            (Some(_), false) => Condition::Open,
            (Some(_), true) => Condition::Probed,
        }
    }

    pub(crate) fn succeeded(&self) {
        *self.lock() = State::default();
    }

    pub(crate) fn failed(&self) {
        let mut state = self.lock();
        state.failures += 1;
        state.probed = false;
        if state.failures >= OPENS_AT {
            state.rest = (state.rest * 2).clamp(REST, LONGEST_REST);
            state.open_until = Some(Instant::now() + state.rest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn five_failures_open_it_and_one_probe_closes_it() {
        let breaker = Breaker::default();
        for _ in 0..OPENS_AT {
            assert!(breaker.admits());
            breaker.failed();
        }
        assert!(!breaker.admits());
        assert_eq!(breaker.condition(), Condition::Open);
        tokio::time::advance(REST).await;
        assert!(breaker.admits(), "the probe");
        assert_eq!(breaker.condition(), Condition::Probed);
        assert!(!breaker.admits(), "nobody beside it");
        breaker.failed();
        assert_eq!(breaker.condition(), Condition::Open);
        tokio::time::advance(REST).await;
        assert!(!breaker.admits(), "the rest is twice as long");
        tokio::time::advance(REST).await;
        assert!(breaker.admits());
        breaker.succeeded();
        assert!(breaker.admits() && breaker.admits());
        assert_eq!(breaker.condition(), Condition::Closed);
    }
}
