//! Marks of progress: what the watchdog and the health port know of a worker.
//!
//! A mark is a counter that its part moves on; nobody waits for anybody. A loop moves its mark whenever
//! it turns, also while it waits for work. A job's mark is odd while its task is being polled, so that
//! one that waits for the model, however long, stands still with an even mark and is left alone.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

/// How often what waits says that it does.
const BEAT: Duration = Duration::from_secs(1);

/// A part that has to move on for as long as the worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Some thread of the runtime runs tasks.
    Runtime,
    /// Work is looked for.
    Fetch,
    /// What was claimed is begun.
    Handlers,
    /// Leases are renewed, or it was tried.
    Renew,
    /// The task of one job, by its claim's token: it stands still in the middle of a step.
    Job(Uuid),
}

/// The marks of a worker.
#[derive(Debug, Default)]
pub struct Progress {
    runtime: AtomicU64,
    fetch: AtomicU64,
    fetch_ended: AtomicBool,
    renew: AtomicU64,
    renewed: AtomicBool,
    schema_current: AtomicBool,
    handed_on: AtomicU64,
    begun: AtomicU64,
    jobs: Mutex<HashMap<Uuid, Arc<AtomicU64>>>,
    slow: AtomicBool,
}

/// Forgets a job, however it ends.
struct Watched<'a> {
    progress: &'a Progress,
    token: Uuid,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.progress.jobs().remove(&self.token);
    }
}

impl Progress {
    /// Says for ever that tasks are run.
    pub async fn beat(&self) {
        loop {
            self.runtime.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    }

    /// The fetcher turns, and waits as long as it takes: for a place, an open queue, or work.
    pub async fn fetching<T>(&self, wait: impl Future<Output = T>) -> T {
        waiting(&self.fetch, wait).await
    }

    /// The fetcher has ended, as it should.
    pub fn fetch_ended(&self) {
        self.fetch_ended.store(true, Ordering::Relaxed);
    }

    /// The renewals wait for their next turn.
    pub async fn renewing<T>(&self, wait: impl Future<Output = T>) -> T {
        waiting(&self.renew, wait).await
    }

    /// Whether the last renewal reached the database.
    pub fn renewed(&self, in_order: bool) {
        self.renewed.store(in_order, Ordering::Relaxed);
    }

    /// Every migration that this version needs has run.
    pub fn schema_is_current(&self) {
        self.schema_current.store(true, Ordering::Relaxed);
    }

    /// A claim was handed on to the handlers.
    pub fn handed_on(&self) {
        self.handed_on.fetch_add(1, Ordering::Relaxed);
    }

    /// A handler has begun with one.
    pub fn begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs a job under watch.
    pub async fn watched<T>(&self, token: Uuid, job: impl Future<Output = T>) -> T {
        let mark = Arc::new(AtomicU64::new(0));
        self.jobs().insert(token, Arc::clone(&mark));
        let _watched = Watched {
            progress: self,
            token,
        };
        let mut job = Box::pin(job);
        poll_fn(|cx| {
            mark.fetch_add(1, Ordering::Relaxed);
            let polled = job.as_mut().poll(cx);
            mark.fetch_add(1, Ordering::Relaxed);
            polled
        })
        .await
    }

    /// The marks that have to move on now.
    #[must_use]
    pub fn due(&self) -> Vec<(Part, u64)> {
        let read = |mark: &AtomicU64| mark.load(Ordering::Relaxed);
        let mut due = vec![
            (Part::Runtime, read(&self.runtime)),
            (Part::Renew, read(&self.renew)),
        ];
        if !self.fetch_ended.load(Ordering::Relaxed) {
            due.push((Part::Fetch, read(&self.fetch)));
        }
        let begun = read(&self.begun);
        if begun != read(&self.handed_on) {
            due.push((Part::Handlers, begun));
        }
        let jobs = self.jobs();
        let polled = jobs.iter().map(|(token, mark)| (*token, read(mark)));
        due.extend(
            polled
                .filter(|(_, mark)| mark % 2 == 1)
                .map(|(token, mark)| (Part::Job(token), mark)),
        );
        due
    }

    /// Whether something has stood still for long enough to doubt it.
    pub fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// Why the worker is not ready to work, if it is not.
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        if self.slow.load(Ordering::Relaxed) {
            return Some("no progress");
        }
        if !self.renewed.load(Ordering::Relaxed) {
            return Some("no database");
        }
        (!self.schema_current.load(Ordering::Relaxed)).then_some("old schema")
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Arc<AtomicU64>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits, and moves the mark meanwhile.
async fn waiting<T>(mark: &AtomicU64, wait: impl Future<Output = T>) -> T {
    let mut wait = std::pin::pin!(wait);
    loop {
        mark.fetch_add(1, Ordering::Relaxed);
        if let Ok(done) = tokio::time::timeout(BEAT, wait.as_mut()).await {
            return done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(progress: &Progress) -> Vec<Part> {
        progress.due().into_iter().map(|(part, _)| part).collect()
    }

    #[tokio::test]
    async fn a_loop_that_waits_moves_on_and_one_that_has_ended_is_not_looked_at() {
        let progress = Progress::default();
        let mark = |wanted| {
            let marks = progress.due().into_iter();
            let mut found = marks.filter(|(part, _)| *part == wanted);
            found.next().map_or(0, |(_, mark)| mark)
        };
        let moved = async |part| {
            while mark(part) < 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        progress.fetching(moved(Part::Fetch)).await;
        progress.renewing(moved(Part::Renew)).await;
        assert_eq!(mark(Part::Runtime), 0, "nobody beats");
        progress.fetch_ended();
        assert_eq!(parts(&progress), [Part::Runtime, Part::Renew]);
    }

    #[tokio::test]
    async fn handlers_are_due_while_a_claim_waits_for_one() {
        let progress = Progress::default();
        progress.fetch_ended();
        progress.handed_on();
        assert!(parts(&progress).contains(&Part::Handlers));
        progress.begun();
        assert!(!parts(&progress).contains(&Part::Handlers));
    }

    #[tokio::test]
    async fn a_job_is_due_in_the_middle_of_a_step_and_not_while_it_waits() {
        let progress = Progress::default();
        let token = Uuid::from_u128(1);
        let is_due = || parts(&progress).contains(&Part::Job(token));
        let (open, opened) = tokio::sync::oneshot::channel();
        let job = progress.watched(token, async {
            assert!(is_due());
            let _ = opened.await;
            assert!(is_due());
        });
        let mut job = Box::pin(job);
        tokio::select! {
            biased;
            () = &mut job => panic!("it waits"),
            () = std::future::ready(()) => {}
        }
        assert!(!is_due());
        open.send(()).unwrap();
        job.await;
        assert!(progress.jobs().is_empty());
        drop(progress.watched(token, std::future::pending::<()>()));
        assert!(progress.jobs().is_empty());
    }
}
