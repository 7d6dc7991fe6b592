//! The fetcher: waits for ids, claims them, and hands on what it got.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared::domain::Priority;
use shared::queue::{Waiter, push_front};
use shared::store::generations::{self, Claim, Claimer};
use shared::store::{StoreError, StoreResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::Job;
use crate::context::Context;

/// Ids claimed at a time; more would make one statement long without making it cheaper per row.
const BATCH: usize = 128;
/// How often the table is asked while Redis is away.
const WITHOUT_REDIS: Duration = Duration::from_millis(250);

/// A claim that takes longer has met a connection that is dead.
const CLAIMED_WITHIN: Duration = Duration::from_secs(10);
/// How long after a stop the wait for ids may go on.
const STOPPED_WITHIN: Duration = Duration::from_secs(2);

/// Claims work for as long as the worker takes any.
#[derive(Debug)]
pub struct Fetcher {
    context: Arc<Context>,
    places: Arc<Semaphore>,
    jobs: mpsc::Sender<Job>,
}

impl Fetcher {
    /// A fetcher and the receiving end for the backend.
    #[must_use]
    pub fn new(context: Arc<Context>) -> (Self, mpsc::Receiver<Job>) {
        let places = Arc::new(Semaphore::new(context.config.queue.concurrency as usize));
        // A claim takes a place before it is made, so the channel never holds more than a batch.
        let (jobs, receiver) = mpsc::channel(BATCH);
        (
            Self {
                context,
                places,
                jobs,
            },
            receiver,
        )
    }

    /// Fetches until `stopping`. Ids that were popped but not claimed when something failed are
    /// found again in the table; those that come after the stop go back, unless `hurry`.
    pub async fn run(self, stopping: &CancellationToken, hurry: &CancellationToken) {
        let mut waiter = Waiter::new(self.context.redis.clone(), self.context.config.queue.block);
        let mut failures = 0_u32;
        let progress = &self.context.progress;
        while let Some((places, open)) = stopping.run_until_cancelled(self.room()).await {
            let wait = progress.fetching(self.wait(&mut waiter, places.num_permits(), &open));
            let Some(fetched) = until_stopped(wait, stopping, hurry).await else {
                break;
            };
            if stopping.is_cancelled() {
                self.put_back(fetched).await;
                break;
            }
            // A claim is never interrupted: what it took must be handed on or its lease must run out.
            let claims = match fetched {
                Fetched::Ids(_, ids) => self.claim_in_time(Take::Ids(&ids)).await,
                Fetched::Nothing => self.claim_in_time(Take::Ready(places.num_permits())).await,
            };
            match claims {
                Ok(claims) => {
                    failures = 0;
                    if self.hand_on(claims, places).await.is_err() {
                        break;
                    }
                    continue;
                }
                Err(error) if failures == 0 => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "claiming nothing: the database is away"
                ),
                Err(_) => {}
            }
            failures = failures.saturating_add(1);
            let pause = tokio::time::sleep(back_off(failures));
            let pause = progress.fetching(pause);
            if stopping.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        progress.fetch_ended();
    }

    /// Places, and the queues to fill them from.
    async fn room(&self) -> (OwnedSemaphorePermit, Vec<Priority>) {
        let progress = &self.context.progress;
        let places = progress.fetching(self.free_places()).await;
        let open = progress.fetching(self.context.gates.open()).await;
        (places, open)
    }

    /// Ids that came too late, for another worker.
    async fn put_back(&self, fetched: Fetched) {
        let Fetched::Ids(queue, ids) = fetched else {
            return;
        };
        let back = ids.into_iter().rev().map(|id| (id, queue));
        if let Err(failure) = push_front(&self.context.redis, back).await {
            tracing::debug!(%failure, "hints not put back");
        }
    }

    /// What a claim that got no answer may have taken is freed when the lease runs out.
    async fn claim_in_time(&self, what: Take<'_>) -> Result<Vec<Claim>, NotClaimed> {
        match tokio::time::timeout(CLAIMED_WITHIN, self.claim(what)).await {
            Ok(claims) => Ok(claims?),
            Err(_) => Err(NotClaimed::NoAnswer),
        }
    }

    /// Waits for a free place, then takes as many as there are, up to a batch.
    async fn free_places(&self) -> OwnedSemaphorePermit {
        loop {
            let Ok(mut places) = Arc::clone(&self.places).acquire_owned().await else {
                // The semaphore is never closed.
                tokio::task::yield_now().await;
                continue;
            };
            let more = self.places.available_permits().min(BATCH - 1);
            if let Ok(more) =
                Arc::clone(&self.places).try_acquire_many_owned(u32::try_from(more).unwrap_or(0))
            {
                places.merge(more);
            }
            return places;
        }
    }

    async fn wait(&self, waiter: &mut Waiter, count: usize, open: &[Priority]) -> Fetched {
        match waiter.wait(count, open).await {
            Ok(None) => Fetched::Nothing,
            // Paused while the wait went on: they wait where they were.
            Ok(Some((queue, ids))) if !self.context.gates.is_open(queue) => {
                self.put_back(Fetched::Ids(queue, ids)).await;
                Fetched::Ids(queue, Vec::new())
            }
            Ok(Some((queue, ids))) => Fetched::Ids(queue, ids),
            Err(failure) => {
                tracing::debug!(%failure, "no hints; asking the table");
                tokio::time::sleep(WITHOUT_REDIS).await;
                Fetched::Nothing
            }
        }
    }

    async fn claim(&self, what: Take<'_>) -> StoreResult<Vec<Claim>> {
        let Context {
            db,
            worker_id,
            config,
            ..
        } = &*self.context;
        let claimer = Claimer {
            worker_id,
            lease: config.queue.lease,
            history_tokens: config.history_tokens,
        };
        let mut tx = db.sweep_statement().await?;
        let claims = match what {
            Take::Ids(ids) => generations::claim(&mut tx, ids, &claimer).await?,
            Take::Ready(count) => {
                let limit = i64::try_from(count).unwrap_or(1);
                generations::claim_ready(&mut tx, limit, &claimer).await?
            }
        };
        tx.commit().await?;
        Ok(claims)
    }

    /// Each claim gets one of the places; the rest are free again.
    async fn hand_on(
        &self,
        claims: Vec<Claim>,
        mut places: OwnedSemaphorePermit,
    ) -> Result<(), ()> {
        for claim in claims {
            let Some(permit) = places.split(1) else {
                return Ok(());
            };
            let job = Job { claim, permit };
            self.jobs.send(job).await.map_err(drop)?;
            self.context.progress.handed_on();
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum NotClaimed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("failed to claim: the database does not answer")]
    NoAnswer,
}

/// Waits to the end also after a stop, because what Redis hands out meanwhile would be lost with its
/// answer. None when there is no time for that.
async fn until_stopped<T>(
    wait: impl Future<Output = T>,
    stopping: &CancellationToken,
    hurry: &CancellationToken,
) -> Option<T> {
    let too_long = async {
        stopping.cancelled().await;
        let _ = tokio::time::timeout(STOPPED_WITHIN, hurry.cancelled()).await;
    };
    tokio::select! {
        done = wait => Some(done),
        () = too_long => None,
    }
}

enum Fetched {
    Ids(Priority, Vec<uuid::Uuid>),
    Nothing,
}

enum Take<'a> {
    Ids(&'a [uuid::Uuid]),
    Ready(usize),
}

/// Full jitter between 50 ms and 2 s, so that a fleet does not return all at once.
fn back_off(failures: u32) -> Duration {
    let most = 100_u64.saturating_mul(1 << failures.min(5)).min(2_000);
    Duration::from_millis(rand::rng().random_range(50..=most))
}
