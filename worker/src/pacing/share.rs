//! What one worker keeps to by itself: the last it heard of the bucket, and its share of the limit
//! while Redis is away.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Limit;

/// One worker's view of a bucket.
#[derive(Debug)]
pub(super) struct Share(Mutex<View>);

#[derive(Debug)]
struct View {
    /// The theoretical arrival time of the next call.
    arrival: Instant,
    closed_until: Instant,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(View {
            arrival: now,
            closed_until: now,
        }))
    }

    /// How far ahead of now the bucket was when it was last heard of.
    pub(super) fn known(&self, now: Instant) -> Duration {
        self.view().arrival.saturating_duration_since(now)
    }

    /// The fleet's bucket is so far ahead of now.
    pub(super) fn heard(&self, now: Instant, arrival: Duration) {
        self.view().arrival = now + arrival;
    }

    /// Nothing is let through for so long.
    pub(super) fn close(&self, now: Instant, time: Duration) {
        let mut view = self.view();
        view.closed_until = view.closed_until.max(now + time);
    }

    /// How long nothing is let through.
    pub(super) fn closed(&self, now: Instant) -> Duration {
        self.view().closed_until.saturating_duration_since(now)
    }

    /// Lets a call through by this worker's share alone, or says how long to wait.
    pub(super) fn admit(&self, now: Instant, limit: Limit, workers: u32) -> Duration {
        let mut view = self.view();
        let at = view.arrival.max(view.closed_until).max(now);
        if at <= now {
            view.arrival = now + limit.gap_of_one(workers);
        }
        at.saturating_duration_since(now)
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 20;

    #[test]
    fn the_shares_of_all_workers_together_keep_the_limit() {
        let limit = Limit::per_minute(LIMIT).unwrap();
        let start = Instant::now();
        let workers: Vec<Share> = (0..3).map(|_| Share::new(start)).collect();
        let mut calls = Vec::new();
        for step in 0..3_000_u32 {
            let at = Duration::from_millis(100) * step;
            let calling = workers.iter().filter(|share| {
                let wait = share.admit(start + at, limit, 3);
                wait.is_zero()
            });
            calls.extend(calling.map(|_| at));
        }
        let minute = Duration::from_mins(1);
        let most = calls.iter().map(|from| {
            let window = *from..*from + minute;
            calls.iter().filter(|at| window.contains(*at)).count()
        });
        let most = most.max().unwrap();
        assert!((18..=20).contains(&most), "{most}");
    }

    #[test]
    fn what_was_heard_of_the_fleet_counts_and_so_does_a_closed_bucket() {
        let limit = Limit::per_minute(LIMIT).unwrap();
        let now = Instant::now();
        let share = Share::new(now);
        let (ahead, closed) = (Duration::from_secs(9), Duration::from_secs(30));
        share.heard(now, ahead);
        assert_eq!(share.known(now), ahead);
        assert_eq!(share.admit(now, limit, 1), ahead);
        share.close(now, closed);
        share.close(now, ahead);
        assert_eq!(share.closed(now), closed);
        assert_eq!(share.admit(now, limit, 1), closed);
        assert!(share.admit(now + closed, limit, 1).is_zero());
    }
}
