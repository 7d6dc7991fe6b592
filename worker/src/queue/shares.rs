//! How a worker's places are shared out between the queues.
//!
//! Premium may take all of them. Standard and background together may take `STANDARD_SHARE` of
//! them, so that premium always finds one at once, and background `BACKGROUND_SHARE`, so that it does
//! not shut standard out; each at least one.
//!
//! Better queues are asked first, and a lower one is owed a start for every eight of those above it:
//! it is asked before them until it had it. A queue that had no work when it was asked, or that has
//! its share, is owed nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::domain::Priority;
use shared::store::generations::Room;
use tokio::sync::Notify;

/// Starts of better queues for which a lower one is owed a start.
const OWED_PER: u32 = 8;
/// Ids claimed at a time; more would make one statement long without making it cheaper per row.
const BATCH: u32 = 128;

/// A worker's places, and who has them.
#[derive(Debug)]
pub struct Shares {
    places: u32,
    /// At most so many for standard and background together.
    standard: u32,
    background: u32,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    premium: u32,
    standard: u32,
    background: u32,
    /// Starts above each of the lower queues that it was given nothing for.
    above_standard: u32,
    above_background: u32,
}

/// A place on this worker; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    shares: Arc<Shares>,
    queue: Priority,
}

impl Shares {
    /// So many places, and the shares in percent.
    #[must_use]
    pub fn new(places: u32, standard_percent: u32, background_percent: u32) -> Arc<Self> {
        let share = |percent: u32| {
            let share = u64::from(places) * u64::from(percent.min(100)) / 100;
            u32::try_from(share).unwrap_or(places).max(1)
        };
        let standard = share(standard_percent);
        Arc::new(Self {
            places,
            standard,
            background: share(background_percent).min(standard),
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// What may be taken of the open queues, those first that are to be asked first; none while all
    /// their places are taken.
    #[must_use]
    pub fn room(&self, open: &[Priority]) -> Option<Room> {
        let taken = *self.lock();
        let all = self.places.saturating_sub(taken.all());
        let lower = all.min(self.standard.saturating_sub(taken.lower()));
        let of = |queue| match queue {
            Priority::Premium => all,
            Priority::Standard => lower,
            Priority::Background => lower.min(self.background.saturating_sub(taken.background)),
        };
        let owed = [
            (Priority::Standard, taken.above_standard / OWED_PER),
            (Priority::Background, taken.above_background / OWED_PER),
        ];
        let owed = owed.into_iter().filter(|(_, starts)| *starts > 0);
        let mut order: Vec<(Priority, u32)> = Vec::with_capacity(3);
        let whatever = Priority::ALL.iter().map(|queue| (*queue, u32::MAX));
        for (queue, most) in owed.chain(whatever) {
            let most = most.min(of(queue)).min(BATCH);
            let is_new = order.iter().all(|(known, _)| *known != queue);
            if most > 0 && is_new && open.contains(&queue) {
                order.push((queue, most));
            }
        }
        let room = Room {
            order,
            lower: lower.min(BATCH),
            all: all.min(BATCH),
        };
        (!room.order.is_empty()).then_some(room)
    }

    /// A generation of this queue starts.
    #[must_use]
    pub fn take(self: &Arc<Self>, queue: Priority) -> Place {
        let mut taken = self.lock();
        let most = self.places.saturating_mul(OWED_PER);
        // What background has of a small share is not held against standard.
        let standard = self.standard.saturating_sub(taken.background).max(1);
        if queue == Priority::Premium && taken.standard < standard {
            taken.above_standard = (taken.above_standard + 1).min(most);
        }
        if queue != Priority::Background && taken.background < self.background {
            taken.above_background = (taken.above_background + 1).min(most);
        }
        match queue {
            Priority::Premium => taken.premium += 1,
            Priority::Standard => {
                taken.standard += 1;
                taken.above_standard = taken.above_standard.saturating_sub(OWED_PER);
            }
            Priority::Background => {
                taken.background += 1;
                taken.above_background = taken.above_background.saturating_sub(OWED_PER);
            }
        }
        Place {
            shares: Arc::clone(self),
            queue,
        }
    }

    /// These queues were asked and had no work.
    pub fn had_none(&self, queues: impl IntoIterator<Item = Priority>) {
        let mut taken = self.lock();
        for queue in queues {
            match queue {
                Priority::Premium => {}
                Priority::Standard => taken.above_standard = 0,
                Priority::Background => taken.above_background = 0,
            }
        }
    }

    /// Waits until a place was freed, since this was called last.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    const fn lower(&self) -> u32 {
        self.standard + self.background
    }

    const fn all(&self) -> u32 {
        self.premium + self.lower()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shares.lock();
        match self.queue {
            Priority::Premium => taken.premium -= 1,
            Priority::Standard => taken.standard -= 1,
            Priority::Background => taken.background -= 1,
        }
        drop(taken);
        self.shares.freed.notify_one();
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
