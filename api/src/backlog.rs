//! How long the queues are, so that a message that would wait too long is refused before it is
//! accepted.
//!
//! Each process learns it once a second, from Postgres; a request only compares two numbers. What was
//! accepted here since the last measurement is added, less what the fleet took meanwhile; what is
//! accepted while the measurement is made may count twice, so that it counts at all. Where nothing is
//! known, because the database is away, everything passes: accepting will say why it fails.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::domain::Priority;
use shared::operator::Operator;
use shared::store::StoreResult;
use shared::store::queues::{self, Load};
use shared::vitals;
use tokio::time::Instant;

use crate::error::{Code, Problem, Result};

/// How often the queues are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The workers measure every second. Older than this, nobody has, and this process does it.
const FRESH: Duration = Duration::from_millis(2_500);
/// More than one process can accept between two measurements.
const MOST_ACCEPTED: usize = 100_000;
/// A client that is refused is asked to come back after at least and at most so many seconds.
const RETRY_AFTER: (f64, f64) = (1.0, 60.0);
/// And after so many when nobody knows how quickly the queue empties.
const RETRY_UNKNOWN: u64 = 10;

/// What this process knows of the queues.
#[derive(Debug)]
pub struct Backlog {
    max: u64,
    queues: Mutex<HashMap<Priority, Seen>>,
}

/// One queue when it was measured, and what was accepted of late.
#[derive(Debug)]
struct Seen {
    load: Load,
    at: Instant,
    /// At most [`MOST_ACCEPTED`]; the oldest go first.
    accepted: VecDeque<Instant>,
}

impl Backlog {
    /// Nothing is known yet; a queue may hold `max`.
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self {
            max,
            queues: Mutex::default(),
        }
    }

    /// Counts one more message for a queue.
    ///
    /// # Errors
    /// `overloaded` when the queue is full.
    pub fn admit(&self, queue: Priority) -> Result<()> {
        let now = Instant::now();
        let mut queues = self.lock();
        let Some(seen) = queues.get_mut(&queue) else {
            return Ok(());
        };
        let depth = seen.depth(now);
        if depth < self.max {
            seen.accepted.push_back(now);
            if seen.accepted.len() > MOST_ACCEPTED {
                seen.accepted.pop_front();
            }
            return Ok(());
        }
        metrics::counter!(shared::metrics::OVERLOADED, "priority" => queue.as_str()).increment(1);
        let retry_after = seen.retry_after(depth - self.max + 1);
        Err(Problem::of(Code::Overloaded).with_header(http::header::RETRY_AFTER, retry_after))
    }

    /// Takes over what was measured, as it was when this process asked for it.
    fn learn(&self, loads: Vec<Load>, asked: Instant) {
        let now = Instant::now();
        let mut queues = self.lock();
        for load in loads {
            let at = asked.checked_sub(load.age).unwrap_or(asked);
            let known = queues.remove(&load.queue);
            let is_full = u64::try_from(load.depth).unwrap_or(0) >= self.max;
            let was_full = known
                .as_ref()
                .is_some_and(|seen| seen.depth(now) >= self.max);
            if is_full && !was_full {
                tracing::warn!(queue = %load.queue, depth = load.depth, "the queue is full");
            }
            let mut accepted = known.map(|seen| seen.accepted).unwrap_or_default();
            accepted.retain(|accepted| *accepted >= at);
            queues.insert(load.queue, Seen { load, at, accepted });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Priority, Seen>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn depth(&self, now: Instant) -> u64 {
        let measured = u64::try_from(self.load.depth).unwrap_or(0);
        let accepted = self.accepted.len() as u64;
        let taken = match self.load {
            Load { workers: 0, .. } | Load { paused: true, .. } => 0.0,
            Load {
                drain: Some(drain), ..
            } => drain * (now - self.at).as_secs_f64(),
            // A fleet that has just started may take anything.
            Load { drain: None, .. } => return measured,
        };
        measured + accepted.saturating_sub(taken as u64)
    }

    /// Seconds until so many have left the queue.
    fn retry_after(&self, excess: u64) -> u64 {
        match self.load.drain.filter(|drain| *drain > 0.0) {
            Some(drain) if !self.load.paused => (excess as f64 / drain)
                .clamp(RETRY_AFTER.0, RETRY_AFTER.1)
                .ceil() as u64,
            _ => RETRY_UNKNOWN,
        }
    }
}

/// Learns for ever.
pub async fn watch(operator: Operator, backlog: std::sync::Arc<Backlog>) {
    let mut known = true;
    loop {
        let asked = Instant::now();
        match look(&operator).await {
            Ok(loads) => {
                known = true;
                vitals::show_queues(&loads);
                backlog.learn(loads, asked);
            }
            Err(error) => {
                if known {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "not known how long the queues are");
                }
                known = false;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How the queues are, as somebody measured them lately.
///
/// # Errors
/// When the database is away.
pub(crate) async fn look(operator: &Operator) -> StoreResult<Vec<Load>> {
    let mut tx = operator.view.operator().await?;
    let loads = queues::loads(&mut tx, FRESH).await?;
    tx.commit().await?;
    Ok(loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(depth: i64) -> Load {
        Load {
            queue: Priority::Standard,
            depth,
            parked: 0,
            oldest_wait_seconds: None,
            drain: Some(2.0),
            paused: false,
            workers: 0,
            age: Duration::ZERO,
        }
    }

    /// How many of `tries` messages are admitted.
    fn admitted(backlog: &Backlog, tries: usize) -> usize {
        (0..tries)
            .filter(|_| backlog.admit(Priority::Standard).is_ok())
            .count()
    }

    fn retry_after(backlog: &Backlog) -> String {
        use axum::response::IntoResponse as _;
        let problem = backlog.admit(Priority::Standard).unwrap_err();
        assert_eq!(problem.code(), Code::Overloaded);
        let response = problem.into_response();
        response.headers()["retry-after"]
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn everything_passes_until_something_is_known() {
        assert_eq!(admitted(&Backlog::new(1), 5), 5);
    }

    #[test]
    fn a_queue_that_nobody_empties_takes_what_there_is_room_for() {
        let backlog = Backlog::new(10);
        backlog.learn(vec![load(7)], Instant::now());
        assert_eq!(admitted(&backlog, 9), 3);
        // Another queue has room of its own.
        let premium = Load {
            queue: Priority::Premium,
            ..load(9)
        };
        backlog.learn(vec![premium], Instant::now());
        assert!(backlog.admit(Priority::Premium).is_ok());
        assert!(backlog.admit(Priority::Premium).is_err());
        assert_eq!(admitted(&backlog, 1), 0);
        backlog.learn(vec![load(9)], Instant::now());
        assert_eq!(
            admitted(&backlog, 5),
            1,
            "what was accepted is measured now"
        );
    }

    #[test]
    fn what_was_accepted_after_the_measurement_counts_and_what_was_before_does_not() {
        let backlog = Backlog::new(10);
        backlog.learn(vec![load(0)], Instant::now());
        assert_eq!(admitted(&backlog, 4), 4);
        let old = Load {
            age: Duration::from_secs(60),
            ..load(0)
        };
        backlog.learn(vec![old], Instant::now());
        assert_eq!(admitted(&backlog, 20), 6, "it does not hold the four");
    }

    #[test]
    fn a_fleet_at_work_is_believed_to_take_what_it_takes() {
        let backlog = Backlog::new(10);
        let at_work = |drain, paused, seconds| Load {
            workers: 1,
            drain,
            paused,
            age: Duration::from_secs(seconds),
            ..load(5)
        };
        backlog.learn(vec![at_work(None, false, 0)], Instant::now());
        assert_eq!(admitted(&backlog, 50), 50, "nobody knows what it can take");
        let backlog = Backlog::new(10);
        backlog.learn(vec![at_work(Some(2.0), false, 10)], Instant::now());
        assert_eq!(admitted(&backlog, 50), 25, "twenty were taken meanwhile");
        let backlog = Backlog::new(10);
        backlog.learn(vec![at_work(Some(2.0), true, 10)], Instant::now());
        assert_eq!(
            admitted(&backlog, 50),
            5,
            "nothing is taken from a paused queue"
        );
    }

    #[test]
    fn a_client_is_told_when_there_will_be_room() {
        let backlog = Backlog::new(10);
        for (depth, drain, paused, expected) in [
            (10, Some(2.0), false, "1"),
            (28, Some(2.0), false, "10"),
            (100_000, Some(2.0), false, "60"),
            (28, Some(2.0), true, "10"),
            (28, None, false, "10"),
            (28, Some(0.0), false, "10"),
        ] {
            let workers = i32::from(drain.is_some());
            let full = Load {
                drain,
                paused,
                workers,
                ..load(depth)
            };
            backlog.learn(vec![full], Instant::now());
            assert_eq!(retry_after(&backlog), expected, "{full:?}");
        }
    }
}
