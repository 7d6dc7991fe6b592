//! The fetcher: waits for ids, claims them, and hands on what it got.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared::domain::Priority;
use shared::queue::{self, Waited, Waiter, push_front};
use shared::store::generations::{self, Claim, Claimer, Room};
use shared::store::{StoreError, StoreResult};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Job, Shares};
use crate::context::Context;
use crate::trace;

/// Jobs that may wait to be handed on to apalis; each has its place already.
const HANDED_ON: usize = 128;
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
    shares: Arc<Shares>,
    jobs: mpsc::Sender<Job>,
}

impl Fetcher {
    /// A fetcher and the receiving end for the backend.
    #[must_use]
    pub fn new(context: Arc<Context>) -> (Self, mpsc::Receiver<Job>) {
        let settings = &context.config.queue;
        let shares = Shares::new(
            settings.concurrency,
            settings.standard_share,
            settings.background_share,
        );
        let (jobs, receiver) = mpsc::channel(HANDED_ON);
        (
            Self {
                context,
                shares,
                jobs,
            },
            receiver,
        )
    }

    /// Fetches until `stopping`. Ids that were popped but not claimed when something failed are
    /// found again in the table; those that come after the stop go back, unless `hurry`.
    pub async fn run(self, stopping: &CancellationToken, hurry: &CancellationToken) {
        let context = &self.context;
        let mut waiter = Waiter::new(
            context.redis.clone(),
            context.boot,
            context.config.queue.block,
        );
        let mut failures = 0_u32;
        let progress = &context.progress;
        while let Some((room, open)) = stopping.run_until_cancelled(self.room()).await {
            let wait = pin!(progress.fetching(self.wait(&mut waiter, &room, &open)));
            let Some(fetched) = until_stopped(wait, stopping, hurry).await else {
                break;
            };
            if stopping.is_cancelled() {
                if let Fetched::Ids(queue, ids) = fetched {
                    Box::pin(self.put_back(queue, ids)).await;
                }
                break;
            }
            // A claim is never interrupted: what it took must be handed on or its lease must run out.
            let claims = match fetched {
                Fetched::LookAgain => continue,
                Fetched::Ids(_, ids) => self.claim_in_time(Take::Ids(&ids)).await,
                Fetched::Nothing => self.claim_in_time(Take::Ready(&room)).await,
            };
            match claims {
                Ok(claims) => {
                    failures = 0;
                    if self.hand_on(claims).await.is_err() {
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

    /// Waits until there is a place for what the open queues may have. Nobody else takes one, so there
    /// will be as many when the claims are made.
    async fn room(&self) -> (Room, Vec<Priority>) {
        let progress = &self.context.progress;
        loop {
            let open = progress.fetching(self.context.gates.open()).await;
            if let Some(room) = self.shares.room(&open) {
                return (room, open);
            }
            // A queue that opens meanwhile may have a place.
            let look_again = self.context.config.queue.block;
            let freed = tokio::time::timeout(look_again, self.shares.freed());
            let _ = progress.fetching(freed).await;
        }
    }

    /// Ids for another worker, or for later: they wait where they were.
    async fn put_back(&self, queue: Priority, ids: Vec<Uuid>) {
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

    async fn wait(&self, waiter: &mut Waiter, room: &Room, open: &[Priority]) -> Fetched {
        let queues = room.queues();
        let waited = tokio::select! {
            waited = waiter.wait(room.count() as usize, &queues) => waited,
            never = self.nudge(&queues, open) => match never {},
        };
        match waited {
            Ok(Waited::Nothing) => Fetched::Nothing,
            Ok(Waited::Nudged) => Fetched::LookAgain,
            // Paused while the wait went on.
            Ok(Waited::Ids(queue, ids)) if !self.context.gates.is_open(queue) => {
                Box::pin(self.put_back(queue, ids)).await;
                Fetched::LookAgain
            }
            Ok(Waited::Ids(queue, ids)) => {
                let empty = queues.into_iter().take_while(|asked| *asked != queue);
                self.shares.had_none(empty);
                Fetched::Ids(queue, ids)
            }
            Err(failure) => {
                tracing::debug!(%failure, "no hints; asking the table");
                tokio::time::sleep(WITHOUT_REDIS).await;
                Fetched::Nothing
            }
        }
    }

    /// Ends a wait that does not ask for all the open queues as soon as there is a place for one of the
    /// others. To drop the wait instead could lose ids that Redis has sent.
    async fn nudge(&self, asked: &[Priority], open: &[Priority]) -> Infallible {
        let asks_less = |queues: &[Priority]| queues.iter().any(|queue| !asked.contains(queue));
        if asks_less(open) {
            loop {
                let room = self.shares.room(open);
                if room.is_some_and(|room| asks_less(&room.queues()))
                    && Box::pin(queue::nudge(&self.context.redis, self.context.boot))
                        .await
                        .is_ok()
                {
                    break;
                }
                self.shares.freed().await;
            }
        }
        std::future::pending().await
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
        let began = trace::claiming(&self.context);
        let mut tx = db.sweep_statement().await?;
        let claims = match what {
            Take::Ids(ids) => generations::claim(&mut tx, ids, &claimer).await?,
            Take::Ready(room) => {
                let claims = generations::claim_ready(&mut tx, room, &claimer).await?;
                self.shares.had_none(without_more(room, &claims));
                claims
            }
        };
        tx.commit().await?;
        trace::claimed(&self.context, began, &claims);
        Ok(claims)
    }

    /// Each claim takes one of the places.
    async fn hand_on(&self, claims: Vec<Claim>) -> Result<(), ()> {
        let jobs: Vec<Job> = claims
            .into_iter()
            .map(|claim| Job {
                place: self.shares.take(claim.priority),
                claim,
            })
            .collect();
        for job in jobs {
            self.jobs.send(job).await.map_err(drop)?;
            self.context.progress.handed_on();
        }
        Ok(())
    }
}

/// The queues that had less than there was room for.
fn without_more(room: &Room, claims: &[Claim]) -> Vec<Priority> {
    let of = |queue| {
        claims
            .iter()
            .filter(|claim| claim.priority == queue)
            .count()
    };
    let all = claims.len();
    let lower = all - of(Priority::Premium);
    if all >= room.all as usize || lower >= room.lower as usize {
        return Vec::new();
    }
    let had_less = room
        .order
        .iter()
        .filter(|(queue, most)| of(*queue) < *most as usize);
    had_less.map(|(queue, _)| *queue).collect()
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
    Ids(Priority, Vec<Uuid>),
    LookAgain,
    Nothing,
}

enum Take<'a> {
    Ids(&'a [Uuid]),
    Ready(&'a Room),
}

/// Full jitter between 50 ms and 2 s, so that a fleet does not return all at once.
fn back_off(failures: u32) -> Duration {
    let most = 100_u64.saturating_mul(1 << failures.min(5)).min(2_000);
    Duration::from_millis(rand::rng().random_range(50..=most))
}
