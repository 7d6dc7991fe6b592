//! The limits of free models, enforced on demand.

use std::collections::VecDeque;

use super::answer;
use super::behaviour::Failure;
use super::settings::Settings;

const MINUTE_US: u64 = 60_000_000;

/// The calls to free models that were let through. All keys belong to one account.
#[derive(Debug, Default)]
pub(crate) struct FreeLimits {
    last_minute: VecDeque<u64>,
    used: u32,
}

impl FreeLimits {
    /// Lets a call at `now_us` through, or says why not.
    pub(crate) fn take(&mut self, now_us: u64, settings: &Settings) -> Option<Failure> {
        while self
            .last_minute
            .front()
            .is_some_and(|first| first + MINUTE_US <= now_us)
        {
            self.last_minute.pop_front();
        }
        if settings.free_per_day > 0 && self.used >= settings.free_per_day {
            return Some(refused("free-models-per-day", until_midnight(now_us)));
        }
        let limit = usize::try_from(settings.free_per_minute).unwrap_or(usize::MAX);
        if limit > 0 && self.last_minute.len() >= limit {
            // The place that frees first is the oldest call's that still fills the window.
            let oldest = self.last_minute[self.last_minute.len() - limit];
            let wait = (oldest + MINUTE_US).saturating_sub(now_us);
            return Some(refused("free-models-per-min", wait as f64 / 1e6));
        }
        self.last_minute.push_back(now_us);
        self.used += 1;
        None
    }

    /// Calls let through since the start.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }
}

fn refused(limit: &str, seconds: f64) -> Failure {
    Failure {
        status: 429,
        error_type: "rate_limit_exceeded".to_owned(),
        limit_source: Some(format!("openrouter_{}", limit.replace('-', "_"))),
        retryable: Some(true),
        // The header counts in whole milliseconds; one more keeps it behind the real edge.
        reset: Some(seconds + 0.001),
        ..answer::invalid(format!("Rate limit exceeded: {limit}. "))
    }
}

fn until_midnight(now_us: u64) -> f64 {
    let day = 86_400_000_000;
    (day - now_us % day) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_of_a_minute_holds_more_than_the_limit() {
        let settings = Settings {
            free_per_minute: 20,
            ..Settings::default()
        };
        let mut limits = FreeLimits::default();
        let mut passed = Vec::new();
        for step in 0..2_000_u64 {
            let now = step * 137_000;
            match limits.take(now, &settings) {
                None => passed.push(now),
                Some(failure) => {
                    let reset = failure.reset.unwrap();
                    assert!(reset > 0.0 && reset <= 60.001, "{reset}");
                }
            }
        }
        let most = passed
            .iter()
            .map(|from| {
                passed
                    .iter()
                    .filter(|at| (*from..from + MINUTE_US).contains(at))
                    .count()
            })
            .max();
        assert_eq!(most, Some(20));
    }

    #[test]
    fn the_day_has_an_end() {
        let settings = Settings {
            free_per_day: 2,
            ..Settings::default()
        };
        let mut limits = FreeLimits::default();
        assert!(limits.take(0, &settings).is_none() && limits.take(1, &settings).is_none());
        let refused = limits.take(86_399_000_000, &settings).unwrap();
        assert!((refused.reset.unwrap() - 1.001).abs() < 1e-9);
        assert_eq!(limits.used(), 2);
    }
}
