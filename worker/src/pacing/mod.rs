//! The limits of the upstream's account, kept by the fleet as one.
//!
//! Free models share one bucket and all others another. A bucket without a limit costs a call nothing:
//! nobody asks Redis, and only what the upstream itself refused closes it. While Redis is away each
//! worker keeps to its share of the limit.

mod account;
mod bucket;
mod config;
mod limit;
mod share;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shared::domain::Priority;
use shared::redis::Redis;
use tokio::time::Instant;
use uuid::Uuid;

use crate::upstream::{Admission, ErrorClass, Model, Referee};

pub use account::watch_account;
pub use bucket::{Bucket, Request, Verdict};
pub use config::PacingConfig;
pub use limit::Limit;
use share::Share;

/// Background work stands in line as if it had come so much later.
const BACKGROUND_YIELDS: Duration = Duration::from_mins(1);

/// What comes back when a bucket opens that has no limit comes back within this time and not at once.
const SPREAD: Duration = Duration::from_secs(5);

/// Both buckets of an account.
#[derive(Debug)]
pub struct Pacing {
    redis: Redis,
    free: Side,
    paid: Side,
    max_wait: Duration,
    /// Workers that live, for the share of each.
    workers: AtomicU32,
}

#[derive(Debug)]
struct Side {
    bucket: Bucket,
    limit: Option<Limit>,
    share: Share,
}

impl Side {
    fn new(account: &str, kind: &str, limit: Option<Limit>) -> Self {
        Self {
            bucket: Bucket::new(format!("{account}:{kind}")),
            limit,
            share: Share::new(Instant::now()),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The generation.
    pub id: Uuid,
    /// Its queue.
    pub priority: Priority,
}

impl Asker {
    /// Its place in a line: the moment it was accepted, which its id tells, in milliseconds.
    fn order(self) -> u64 {
        let accepted = (self.id.as_u128() >> 80) as u64;
        let yields = u64::try_from(BACKGROUND_YIELDS.as_millis()).unwrap_or(0);
        match self.priority {
            Priority::Background => accepted + yields,
            Priority::Premium | Priority::Standard => accepted,
        }
    }
}

impl Pacing {
    /// The buckets of the account behind `account`, any name that stays the same.
    #[must_use]
    pub fn new(redis: Redis, config: &PacingConfig, account: &str) -> Self {
        Self {
            redis,
            free: Side::new(account, "free", config.free),
            paid: Side::new(account, "paid", config.paid),
            max_wait: config.max_wait,
            workers: AtomicU32::new(1),
        }
    }

    /// So many workers live.
    pub fn fleet(&self, workers: u32) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    fn side(&self, free: bool) -> &Side {
        if free { &self.free } else { &self.paid }
    }

    /// Asks for one call of a model.
    async fn admit(&self, asker: Asker, free: bool, has_other: bool) -> Admission {
        let side = self.side(free);
        let now = Instant::now();
        let Some(limit) = side.limit else {
            let closed = side.share.closed(now);
            return self.verdict(has_other, 0, spread(closed));
        };
        let request = Request {
            id: asker.id,
            order: asker.order(),
            known: side.share.known(now),
            longest: has_other.then_some(self.max_wait),
        };
        match side.bucket.admit(&self.redis, limit, &request).await {
            Ok(verdict) => {
                side.share.heard(now, verdict.arrival);
                self.verdict(has_other, verdict.ahead, verdict.wait)
            }
            Err(failure) => {
                tracing::debug!(%failure, "paced without the fleet");
                let workers = self.workers.load(Ordering::Relaxed);
                let wait = side.share.admit(now, limit, workers);
                self.verdict(has_other, 0, spread(wait))
            }
        }
    }

    fn verdict(&self, has_other: bool, ahead: u64, wait: Duration) -> Admission {
        if wait.is_zero() {
            Admission::Go
        } else if has_other && wait > self.max_wait {
            Admission::TooLong(wait)
        } else {
            Admission::Wait { wait, ahead }
        }
    }

    /// The upstream refused a call until then.
    async fn close(&self, free: bool, time: Duration) {
        let side = self.side(free);
        side.share.close(Instant::now(), time);
        tracing::warn!(
            free,
            closed_ms = time.as_millis(),
            "the account's limit is met"
        );
        if let Err(failure) = side.bucket.close(&self.redis, time).await {
            tracing::debug!(%failure, "the fleet was not told");
        }
    }

    /// Learns what others were refused.
    async fn look(&self) {
        // A bucket with a limit says so itself when it is asked.
        let unlimited = [&self.free, &self.paid].into_iter();
        for side in unlimited.filter(|side| side.limit.is_none()) {
            match side.bucket.closed(&self.redis).await {
                Ok(time) => side.share.close(Instant::now(), time),
                Err(failure) => tracing::debug!(%failure, "not known whether others were refused"),
            }
        }
    }
}

/// A wait that many are told at once, and up to a little more.
fn spread(wait: Duration) -> Duration {
    if wait.is_zero() {
        return wait;
    }
    wait + SPREAD.min(wait).mul_f64(rand::random())
}

/// What one generation asks the fleet.
#[derive(Debug)]
pub struct Paced<'a> {
    /// The limits.
    pub pacing: &'a Pacing,
    /// The generation.
    pub asker: Asker,
}

impl Referee for Paced<'_> {
    async fn admit(&self, model: &Model, has_other: bool) -> Admission {
        let admission = self.pacing.admit(self.asker, model.free, has_other).await;
        let wait = match admission {
            Admission::Go => return admission,
            Admission::Wait { wait, .. } | Admission::TooLong(wait) => wait,
        };
        let kind = if model.free { "free" } else { "paid" };
        metrics::histogram!(shared::metrics::PACING_WAIT, "kind" => kind)
            .record(wait.as_secs_f64());
        admission
    }

    async fn refused(&self, model: &Model, class: ErrorClass, wait: Option<Duration>) {
        if class == ErrorClass::PlatformLimit
            && let Some(wait) = wait
        {
            self.pacing.close(model.free, wait).await;
        }
    }
}
