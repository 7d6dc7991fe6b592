//! What this worker has done of late, for the register of workers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::domain::Priority;
use tokio::time::Instant;

/// Rates are measured over the last half minute, as `chat.queues` has it.
const WINDOW: Duration = Duration::from_secs(30);
/// How much the newest job counts in the mean.
const NEWEST: f64 = 0.1;

/// Counts the jobs of a worker.
#[derive(Debug)]
pub struct Tally {
    started: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    running: u32,
    /// Generations that ended here since the start, by queue.
    ended: HashMap<Priority, i64>,
    /// The mean time of a job in seconds, once one has ended.
    mean: Option<f64>,
    /// What had ended at earlier moments of the window, oldest first.
    earlier: VecDeque<(Instant, HashMap<Priority, i64>)>,
    draining: bool,
}

/// What the register is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// How long the worker has been running.
    pub up: Duration,
    /// Jobs that run.
    pub running: u32,
    /// Generations that ended in a second, by queue.
    pub rates: HashMap<Priority, f64>,
    /// The mean time of a job in seconds, once one has ended.
    pub mean: Option<f64>,
    /// Whether the worker was told to stop.
    pub draining: bool,
}

/// A job that runs; it counts until this is dropped.
#[derive(Debug)]
pub struct Counted<'a> {
    tally: &'a Tally,
    queue: Priority,
    began: Instant,
}

impl Default for Tally {
    fn default() -> Self {
        let started = Instant::now();
        Self {
            started,
            counts: Mutex::new(Counts::new(started)),
        }
    }
}

impl Tally {
    /// A job begins.
    #[must_use]
    pub fn begin(&self, queue: Priority) -> Counted<'_> {
        self.lock().running += 1;
        Counted {
            tally: self,
            queue,
            began: Instant::now(),
        }
    }

    /// A job goes back to its queue, which its end does not shorten.
    pub fn put_back(&self, queue: Priority) {
        self.lock().put_back(queue);
    }

    /// The worker was told to stop.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// The score of now. To be asked every few seconds.
    pub fn score(&self) -> Score {
        let now = Instant::now();
        let mut counts = self.lock();
        Score {
            up: now - self.started,
            running: counts.running,
            rates: counts.rates(now),
            mean: counts.mean,
            draining: counts.draining,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.tally.lock().end(self.queue, self.began.elapsed());
    }
}

impl Counts {
    fn new(now: Instant) -> Self {
        Self {
            running: 0,
            ended: HashMap::new(),
            mean: None,
            earlier: VecDeque::from([(now, HashMap::new())]),
            draining: false,
        }
    }

    fn end(&mut self, queue: Priority, took: Duration) {
        self.running -= 1;
        *self.ended.entry(queue).or_default() += 1;
        let took = took.as_secs_f64();
        self.mean = Some(match self.mean {
            Some(mean) => mean + (took - mean) * NEWEST,
            None => took,
        });
    }

    /// The job itself is counted when it ends, and this may come first.
    fn put_back(&mut self, queue: Priority) {
        *self.ended.entry(queue).or_default() -= 1;
    }

    fn rates(&mut self, now: Instant) -> HashMap<Priority, f64> {
        // One moment before the window stays, so that all of it is covered.
        let is_past = |moment: &(Instant, _)| now - moment.0 >= WINDOW;
        while self.earlier.get(1).is_some_and(is_past) {
            self.earlier.pop_front();
        }
        let mut rates = HashMap::new();
        if let Some((at, before)) = self.earlier.front() {
            let seconds = (now - *at).as_secs_f64();
            for (queue, ended) in &self.ended {
                let new = ended - before.get(queue).unwrap_or(&0);
                if new > 0 && seconds > 0.0 {
                    rates.insert(*queue, new as f64 / seconds);
                }
            }
        }
        self.earlier.push_back((now, self.ended.clone()));
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn rates_are_those_of_the_window_by_queue() {
        let start = Instant::now();
        let mut counts = Counts::new(start);
        assert_eq!(counts.rates(start), HashMap::new());
        counts.running = 6;
        for _ in 0..5 {
            counts.end(Priority::Standard, SECOND * 2);
        }
        assert_eq!(counts.mean, Some(2.0));
        assert_eq!(
            counts.rates(start + SECOND * 10),
            HashMap::from([(Priority::Standard, 0.5)])
        );
        counts.end(Priority::Premium, SECOND * 12);
        assert_eq!((counts.running, counts.mean), (0, Some(3.0)));
        assert_eq!(
            counts.rates(start + SECOND * 20),
            HashMap::from([(Priority::Standard, 0.25), (Priority::Premium, 0.05)])
        );
        // What was before the window is forgotten.
        assert_eq!(
            counts.rates(start + SECOND * 40),
            HashMap::from([(Priority::Premium, 1.0 / 30.0)])
        );
        assert_eq!(counts.rates(start + SECOND * 50), HashMap::new());
        assert!(counts.earlier.len() < 5, "{counts:?}");
    }

    #[test]
    fn a_job_that_goes_back_has_not_left_its_queue() {
        let start = Instant::now();
        let mut counts = Counts::new(start);
        counts.running = 1;
        counts.put_back(Priority::Standard);
        assert_eq!(counts.rates(start + SECOND), HashMap::new());
        counts.end(Priority::Standard, SECOND);
        assert_eq!(counts.rates(start + SECOND * 2), HashMap::new());
    }
}
