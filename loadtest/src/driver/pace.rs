//! The schedule of an open-loop run, and the thread that keeps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Semaphore;

use super::options::{Arrivals, Load};

/// When each message is meant to leave, from the start of the run.
pub(crate) fn schedule(load: &Load, seed: u64) -> Vec<Duration> {
    let end = f64::from(load.seconds + load.warm_up);
    let most = usize::try_from(load.most).unwrap_or(usize::MAX);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut at = 0.0;
    let mut schedule = Vec::new();
    while schedule.len() < most {
        at = match load.arrivals {
            Arrivals::Even => schedule.len() as f64 / load.rate,
            // The gaps of independent arrivals are exponential; 1 - x keeps the logarithm finite.
            Arrivals::Poisson => at - (1.0 - random.random::<f64>()).ln() / load.rate,
        };
        if at >= end {
            break;
        }
        schedule.push(Duration::from_secs_f64(at));
    }
    schedule
}

/// Hands out the places of a schedule, each no sooner than it is due.
///
/// A thread of its own keeps the time, because the runtime's timers round up to a whole
/// millisecond and that is the size of what is measured.
#[derive(Debug)]
pub(crate) struct Pacer {
    schedule: Arc<Vec<Duration>>,
    start: Instant,
    due: Arc<Semaphore>,
    next: AtomicUsize,
    stop: Arc<AtomicBool>,
}

impl Pacer {
    /// Starts the clock.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(schedule: Vec<Duration>) -> std::io::Result<Self> {
        let schedule = Arc::new(schedule);
        let due = Arc::new(Semaphore::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        // A little ahead, so that the senders are there when the first place falls due.
        let start = Instant::now() + Duration::from_millis(20);
        let clock = (Arc::clone(&schedule), Arc::clone(&due), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || {
                let (schedule, due, stop) = clock;
                for at in schedule.iter() {
                    let wait = (start + *at).saturating_duration_since(Instant::now());
                    if !wait.is_zero() {
                        std::thread::sleep(wait);
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    due.add_permits(1);
                }
            })?;
        Ok(Self {
            schedule,
            start,
            due,
            next: AtomicUsize::new(0),
            stop,
        })
    }

    /// The next place: its number, and when it was due. `None` at the end of the schedule.
    pub(crate) async fn next(&self) -> Option<(usize, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let at = *self.schedule.get(number)?;
        // The semaphore is never closed, so this fails never; it waits its turn in order.
        self.due.acquire().await.ok()?.forget();
        Some((number, self.start + at))
    }

    /// Whether a place belongs to the part that is measured.
    pub(crate) fn is_measured(&self, due: Instant, warm_up: u32) -> bool {
        due >= self.start + Duration::from_secs(u64::from(warm_up))
    }

    /// When the schedule began.
    pub(crate) fn started(&self) -> Instant {
        self.start
    }

    /// How many places there are.
    pub(crate) fn len(&self) -> usize {
        self.schedule.len()
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arrivals: Arrivals) -> Load {
        Load {
            rate: 500.0,
            seconds: 9,
            arrivals,
            closed: None,
            most: 100_000,
            warm_up: 1,
        }
    }

    #[test]
    fn schedules_have_the_rate_asked_for() {
        let even = schedule(&load(Arrivals::Even), 1);
        assert_eq!((even.len(), even[500]), (5_000, Duration::from_secs(1)));
        let poisson = schedule(&load(Arrivals::Poisson), 1);
        // Five standard deviations of a Poisson count of 5,000 are 354.
        assert!(
            (4_646..=5_354).contains(&poisson.len()),
            "{}",
            poisson.len()
        );
        assert!(poisson.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(poisson, schedule(&load(Arrivals::Poisson), 1));
        assert_eq!(
            schedule(
                &Load {
                    most: 7,
                    ..load(Arrivals::Even)
                },
                1
            )
            .len(),
            7
        );
    }

    #[tokio::test]
    async fn places_come_in_order_and_never_early() {
        let pacer = Pacer::start((0..50).map(Duration::from_millis).collect()).unwrap();
        for number in 0..50 {
            let (place, due) = pacer.next().await.unwrap();
            assert!(place == number && Instant::now() >= due);
        }
        assert!(pacer.next().await.is_none());
    }
}
