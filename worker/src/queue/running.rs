//! What runs on this worker right now, and how it is told to stop.

use std::collections::{HashMap, HashSet};
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
}

#[derive(Debug)]
struct Entry {
    token: Uuid,
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
    /// Registers a job.
    #[must_use]
    pub fn start(&self, id: Uuid, token: Uuid) -> RunningJob<'_> {
        let abort = Arc::new(Abort::default());
        self.lock().insert(
            id,
            Entry {
                token,
                abort: Arc::clone(&abort),
            },
        );
        RunningJob {
            running: self,
            id,
            token,
            abort,
        }
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
        let first = running.start(id, old);
        let asked = running.claims();
        let second = running.start(id, new);
        running.abort_lost(&asked, &[]);
        assert!(!second.abort.signal.is_cancelled());
        drop(first);
        assert_eq!(running.claims(), [(id, new)]);
        running.abort_lost(&[(id, new)], &[]);
        assert_eq!(second.aborted().await, AbortReason::Lost);
        drop(second);
        assert!(running.is_empty());
    }
}
