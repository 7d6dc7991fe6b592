//! The watchdog: a thread of its own that ends a worker which has become deaf, because nobody else
//! would: its leases are renewed, so nobody takes its work.
//!
//! It counts its own ticks and not the clock's seconds. A process that was frozen, or a machine that
//! stood still, stops the watchdog as well, and wakes it to a single tick.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::progress::{Part, Progress};

/// The exit code of a deaf worker: EX_SOFTWARE of sysexits.h.
pub const DEAF: u8 = 70;

/// Ticks without progress that make a part dead; half of them make it doubtful.
const PATIENCE: u32 = 10;

/// Compares the marks of one tick with those of the ticks before.
#[derive(Debug, Default)]
struct Judge {
    still: HashMap<Part, (u64, u32)>,
}

/// What a tick showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Well,
    /// Something stands still.
    Slow,
    /// It has for too long.
    Dead(Part),
}

impl Judge {
    /// Looks at the marks that have to move on. A part that is not among them owes nothing.
    fn tick(&mut self, due: Vec<(Part, u64)>) -> Sight {
        let mut still = HashMap::with_capacity(due.len());
        let mut worst = (0, None);
        for (part, mark) in due {
            let ticks = match self.still.get(&part) {
                Some((before, ticks)) if *before == mark => ticks + 1,
                _ => 0,
            };
            if ticks > worst.0 {
                worst = (ticks, Some(part));
            }
            still.insert(part, (mark, ticks));
        }
        self.still = still;
        match worst {
            (PATIENCE.., Some(part)) => Sight::Dead(part),
            (ticks, _) if ticks >= PATIENCE / 2 => Sight::Slow,
            _ => Sight::Well,
        }
    }
}

/// The watchdog of a worker; it lets go when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    _stop: Sender<()>,
}

impl Watchdog {
    /// Watches from now on. A part that makes no progress for `timeout` is told to `bark`, once.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        progress: Arc<Progress>,
        timeout: Duration,
        bark: impl FnOnce(Part) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let watch = move || {
            let mut judge = Judge::default();
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(timeout / PATIENCE) {
                let sight = judge.tick(progress.due());
                progress.set_slow(sight != Sight::Well);
                if let Sight::Dead(part) = sight {
                    return bark(part);
                }
            }
        };
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(watch)?;
        Ok(Self { _stop: stop })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// The sight after each of some ticks.
    fn sights(judge: &mut Judge, ticks: u32, due: impl Fn(u32) -> Vec<(Part, u64)>) -> Vec<Sight> {
        (0..ticks).map(|tick| judge.tick(due(tick))).collect()
    }

    #[test]
    fn a_part_that_stands_still_is_doubted_first_and_dead_in_the_end() {
        for part in [Part::Runtime, Part::Fetch, Part::Handlers, Part::Renew] {
            let others = |tick: u32| vec![(Part::Job(Uuid::nil()), u64::from(tick)), (part, 7)];
            let seen = sights(&mut Judge::default(), 11, others);
            let expected = [vec![Sight::Well; 5], vec![Sight::Slow; 5]].concat();
            assert_eq!(seen[..10], expected);
            assert_eq!(seen[10], Sight::Dead(part));
        }
    }

    #[test]
    fn what_moves_now_and_then_lives() {
        let due = |tick: u32| vec![(Part::Fetch, u64::from(tick / 9))];
        let seen = sights(&mut Judge::default(), 1_000, due);
        assert!(!seen.iter().any(|sight| matches!(sight, Sight::Dead(_))));
    }

    #[test]
    fn what_is_not_due_any_more_is_forgotten() {
        let judge = &mut Judge::default();
        let job = |mark| vec![(Part::Job(Uuid::nil()), mark)];
        sights(judge, 10, |_| job(1));
        assert_eq!(judge.tick(vec![]), Sight::Well);
        assert_eq!(judge.tick(job(1)), Sight::Well);
        let seen = sights(judge, 10, |_| job(1));
        assert_eq!(seen[9], Sight::Dead(Part::Job(Uuid::nil())));
    }

    #[test]
    fn it_barks_once_at_a_deaf_worker_and_not_after_it_was_let_go() {
        let bark = |tell: Sender<Part>| move |part| tell.send(part).unwrap();
        let (tell, told) = channel();
        let progress = Arc::new(Progress::default());
        let short = Duration::from_millis(50);
        let watchdog = Watchdog::start(Arc::clone(&progress), short, bark(tell)).unwrap();
        let part = told.recv().unwrap();
        assert!(matches!(part, Part::Runtime | Part::Fetch | Part::Renew));
        assert_eq!(progress.trouble(), Some("no progress"));
        // The thread has ended, and its end of the channel with it.
        assert!(told.recv().is_err());
        drop(watchdog);
        let (tell, told) = channel();
        drop(Watchdog::start(progress, Duration::from_hours(1), bark(tell)).unwrap());
        assert!(told.recv().is_err());
    }
}
