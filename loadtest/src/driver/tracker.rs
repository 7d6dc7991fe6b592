//! Which generations are under way, and when each ended.
//!
//! The terminal event of a fast reply may overtake the 202 of its message, so either may come
//! first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// How a generation ended, by its terminal event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Completed,
    Failed,
    Cancelled,
}

impl Ending {
    /// The ending that events of this type tell; `None` for the others.
    pub(crate) fn of(event_type: &str) -> Option<Self> {
        match event_type {
            "generation.completed" => Some(Self::Completed),
            "generation.failed" => Some(Self::Failed),
            "generation.cancelled" => Some(Self::Cancelled),
            _ => None,
        }
    }
}

/// A message whose reply is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Posted {
    pub(crate) number: usize,
    /// When it was meant to leave.
    pub(crate) due: Instant,
    pub(crate) measured: bool,
    pub(crate) estimated_ms: Option<u64>,
    pub(crate) queued_us: i64,
    pub(crate) received_us: i64,
}

/// A message and the end of its generation.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) posted: Posted,
    pub(crate) ending: Ending,
    pub(crate) at: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: HashMap<String, Posted>,
    early: HashMap<String, (Ending, Instant)>,
    finished: Vec<Finished>,
}

/// The generations of a run.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Tracker {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a 202; returns the end if that came before it.
    pub(crate) fn posted(&self, generation: String, posted: Posted) -> Option<Finished> {
        let mut inner = self.lock();
        let Some((ending, at)) = inner.early.remove(&generation) else {
            inner.waiting.insert(generation, posted);
            return None;
        };
        Some(finish(inner, Finished { posted, ending, at }))
    }

    /// Notes a terminal event; returns the message when its 202 has come.
    pub(crate) fn ended(&self, generation: &str, ending: Ending, at: Instant) -> Option<Finished> {
        let mut inner = self.lock();
        let Some(posted) = inner.waiting.remove(generation) else {
            inner.early.insert(generation.to_owned(), (ending, at));
            return None;
        };
        let finished = finish(inner, Finished { posted, ending, at });
        self.changed.notify_waiters();
        Some(finished)
    }

    /// Waits until this generation has ended (a closed-loop client's next turn).
    pub(crate) async fn wait(&self, generation: &str) {
        self.wait_until(|inner| !inner.waiting.contains_key(generation))
            .await;
    }

    /// Waits until nothing is under way.
    pub(crate) async fn wait_for_all(&self) {
        self.wait_until(|inner| inner.waiting.is_empty()).await;
    }

    async fn wait_until(&self, condition: impl Fn(&Inner) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Interest first, then the look: an end between the two is not missed.
            changed.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// How many are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The generations of the messages that are under way, the oldest messages first.
    pub(crate) fn missing(&self) -> Vec<String> {
        let inner = self.lock();
        let mut missing: Vec<_> = inner.waiting.iter().collect();
        missing.sort_by_key(|(_, posted)| posted.number);
        missing.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Everything that finished, in the order it did.
    pub(crate) fn take_finished(&self) -> Vec<Finished> {
        std::mem::take(&mut self.lock().finished)
    }
}

fn finish(mut inner: MutexGuard<'_, Inner>, finished: Finished) -> Finished {
    inner.finished.push(finished.clone());
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(number: usize) -> Posted {
        Posted {
            number,
            due: Instant::now(),
            measured: true,
            estimated_ms: None,
            queued_us: 0,
            received_us: 0,
        }
    }

    #[tokio::test]
    async fn either_side_may_come_first() {
        let tracker = Tracker::default();
        assert!(tracker.posted("a".into(), posted(1)).is_none());
        assert!(tracker.ended("b", Ending::Failed, Instant::now()).is_none());
        assert_eq!(tracker.under_way(), 1);
        assert_eq!(
            tracker.posted("b".into(), posted(2)).unwrap().ending,
            Ending::Failed
        );
        assert_eq!(
            tracker
                .ended("a", Ending::Completed, Instant::now())
                .unwrap()
                .posted
                .number,
            1
        );
        tracker.wait_for_all().await;
        tracker.wait("a").await;
        assert_eq!(tracker.take_finished().len(), 2);
    }
}
