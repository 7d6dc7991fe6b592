//! What runs on this worker right now, and how it is told to stop.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Why a running job must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// The row is no longer ours: cancelled by its user, or taken over after the lease ran out.
    Lost,
    /// The worker drains and has put the row back already.
    Drained,
}

/// The jobs of this worker by generation.
#[derive(Debug, Default)]
pub struct Running {
    jobs: Mutex<HashMap<Uuid, Entry>>,
    /// The worker gives everything back; written under the lock of the jobs.
    closed: AtomicBool,
    not_given_back: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    token: Uuid,
    /// The upstream is done with it.
    ending: bool,
    abort: Arc<Abort>,
}

#[derive(Debug, Default)]
struct Abort {
    signal: CancellationToken,
    reason: OnceLock<AbortReason>,
}

/// One running job; it is forgotten when this is dropped.
#[derive(Debug)]
pub struct RunningJob<'a> {
    running: &'a Running,
    id: Uuid,
    token: Uuid,
    abort: Arc<Abort>,
}

impl Running {
    /// Registers a job. None when it comes too late: everything has been given back already, and so
    /// has this claim to be.
    #[must_use]
    pub fn start(&self, id: Uuid, token: Uuid) -> Option<RunningJob<'_>> {
        let abort = Arc::new(Abort::default());
        let mut jobs = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        jobs.insert(
            id,
            Entry {
                token,
                ending: false,
                abort: Arc::clone(&abort),
            },
        );
        drop(jobs);
        Some(RunningJob {
            running: self,
            id,
            token,
            abort,
        })
    }

    /// Lets no more jobs begin. Returns those to give back: all but the ones that are being stored.
    pub fn close(&self) -> Vec<(Uuid, Uuid)> {
        let jobs = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        let open = jobs.iter().filter(|(_, entry)| !entry.ending);
        open.map(|(id, entry)| (*id, entry.token)).collect()
    }

    /// Something could not be given back.
    pub fn not_given_back(&self) {
        self.not_given_back.store(true, Ordering::Relaxed);
    }

    /// Whether everything is stored or was given back.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_empty() && !self.not_given_back.load(Ordering::Relaxed)
    }

    /// The ids and tokens of all jobs.
    #[must_use]
    pub fn claims(&self) -> Vec<(Uuid, Uuid)> {
        self.lock()
            .iter()
            .map(|(id, entry)| (*id, entry.token))
            .collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Stops one job, if it runs here.
    pub fn abort(&self, id: Uuid, reason: AbortReason) {
        if let Some(entry) = self.lock().get(&id) {
            entry.abort.set(reason);
        }
    }

    /// Stops those of `asked` that were not renewed and still run under the same token.
    pub fn abort_lost(&self, asked: &[(Uuid, Uuid)], renewed: &[Uuid]) {
        let renewed: HashSet<&Uuid> = renewed.iter().collect();
        let jobs = self.lock();
        for (id, token) in asked.iter().filter(|(id, _)| !renewed.contains(id)) {
            if let Some(entry) = jobs.get(id).filter(|entry| entry.token == *token) {
                entry.abort.set(AbortReason::Lost);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Abort {
    fn set(&self, reason: AbortReason) {
        let _ = self.reason.set(reason);
        self.signal.cancel();
    }
}

impl RunningJob<'_> {
    /// The upstream is done: what remains is to store what came of it, which a drain lets happen.
    pub fn ending(&self) {
        let mut jobs = self.running.lock();
        if let Some(entry) = jobs.get_mut(&self.id)
            && entry.token == self.token
        {
            entry.ending = true;
        }
    }

    /// Waits until the job must stop.
    pub async fn aborted(&self) -> AbortReason {
        self.abort.signal.cancelled().await;
        self.abort
            .reason
            .get()
            .copied()
            .unwrap_or(AbortReason::Lost)
    }
}

impl Drop for RunningJob<'_> {
    fn drop(&mut self) {
        let mut jobs = self.running.lock();
        // A newer claim of the same generation may have replaced ours.
        if jobs
            .get(&self.id)
            .is_some_and(|entry| entry.token == self.token)
        {
            jobs.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_was_not_renewed_is_aborted_and_its_successor_is_not() {
        let running = Running::default();
        let id = Uuid::new_v4();
        let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
        let first = running.start(id, old).unwrap();
        let asked = running.claims();
        let second = running.start(id, new).unwrap();
        running.abort_lost(&asked, &[]);
        assert!(!second.abort.signal.is_cancelled());
        drop(first);
        assert_eq!(running.claims(), [(id, new)]);
        running.abort_lost(&[(id, new)], &[]);
        assert_eq!(second.aborted().await, AbortReason::Lost);
        drop(second);
        assert!(running.is_empty());
    }

    #[test]
    fn what_is_being_stored_is_not_given_back_and_nothing_begins_after_the_end() {
        let running = Running::default();
        let [asking, storing, late] = [1, 2, 3].map(Uuid::from_u128);
        let first = running.start(asking, asking).unwrap();
        let second = running.start(storing, storing).unwrap();
        second.ending();
        assert_eq!(running.close(), [(asking, asking)]);
        assert!(running.start(late, late).is_none());
        drop(first);
        assert!(!running.is_settled());
        drop(second);
        assert!(running.is_settled());
        running.not_given_back();
        assert!(!running.is_settled());
    }
}
