//! When a generation whose models all failed is tried again, so that an outage is not followed by a
//! storm: in any second no more generations come back than a share of those that begin.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Come back in a second, for one that begins in it. Together they stay below one and a half.
const SHARE: f64 = 0.4;

/// So many may always come back in a second, or a fleet with little to do would make people wait.
const AT_LEAST: u32 = 2;

/// The time over which beginnings are averaged.
const MEMORY: Duration = Duration::from_mins(1);

/// The seconds that are given out ahead; no generation has longer.
const HORIZON: usize = 3_600;

/// What one worker process knows; each worker gives out a share of its own work, so that of the fleet
/// is the same.
#[derive(Debug)]
pub(super) struct Retries(Mutex<Agenda>);

#[derive(Debug)]
struct Agenda {
    epoch: Instant,
    /// Beginnings, each counted less the longer ago it is.
    begun: f64,
    counted_at: Instant,
    /// How many come back in each second from `first` on.
    seconds: VecDeque<u32>,
    first: u64,
}

impl Retries {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Agenda {
            epoch: now,
            begun: 0.0,
            counted_at: now,
            seconds: VecDeque::new(),
            first: 0,
        }))
    }

    /// A generation begins that has not failed before.
    pub(super) fn begin(&self, now: Instant) {
        let mut agenda = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        agenda.fade(now);
        agenda.begun += 1.0;
    }

    /// Gives out the first moment that is at least `after` from now and within `patience`.
    pub(super) fn reserve(
        &self,
        now: Instant,
        after: Duration,
        patience: Duration,
    ) -> Option<Duration> {
        let mut agenda = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        agenda.fade(now);
        agenda.reserve(now, after, patience)
    }
}

impl Agenda {
    fn fade(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.begun *= (-passed / MEMORY.as_secs_f64()).exp();
        self.counted_at = self.counted_at.max(now);
    }

    /// How many may come back in a second. A young average is put right by how young it is.
    fn allowed(&self, now: Instant) -> u32 {
        let age = now.saturating_duration_since(self.epoch).as_secs_f64();
        let known = 1.0 - (-age.max(1.0) / MEMORY.as_secs_f64()).exp();
        let per_second = self.begun / MEMORY.as_secs_f64() / known;
        ((per_second * SHARE) as u32).max(AT_LEAST)
    }

    fn reserve(&mut self, now: Instant, after: Duration, patience: Duration) -> Option<Duration> {
        let since_epoch = now.saturating_duration_since(self.epoch);
        while self.first < since_epoch.as_secs() && self.seconds.pop_front().is_some() {
            self.first += 1;
        }
        if self.seconds.is_empty() {
            self.first = since_epoch.as_secs();
        }
        let allowed = self.allowed(now);
        let wanted = since_epoch + after;
        let mut place = usize::try_from(wanted.as_secs().saturating_sub(self.first)).ok()?;
        while self
            .seconds
            .get(place)
            .is_some_and(|count| *count >= allowed)
        {
            place += 1;
        }
        let second = Duration::from_secs(self.first + place as u64);
        // Somewhere within a second that is not the wanted one, so that not all come at its beginning.
        let moment = wanted.max(second + Duration::from_secs_f64(rand::random()));
        let wait = if wanted >= second {
            after
        } else {
            moment - since_epoch
        };
        if wait >= patience || place >= HORIZON {
            return None;
        }
        if place >= self.seconds.len() {
            self.seconds.resize(place + 1, 0);
        }
        self.seconds[place] += 1;
        Some(wait)
    }
}

#[cfg(test)]
#[path = "retries_tests.rs"]
mod tests;
