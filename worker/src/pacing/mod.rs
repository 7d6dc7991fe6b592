//! What the fleet keeps to as one: the limits of the upstream's account, and which models are left alone.
//!
//! Free models share one bucket and all others another. A bucket without a limit costs a call nothing:
//! nobody asks Redis, and only what the upstream itself refused closes it. While Redis is away each
//! worker keeps to its share of the limit.

mod account;
mod breaker;
mod bucket;
mod config;
mod limit;
mod notes;
mod report;
mod share;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shared::domain::Priority;
use shared::queue::Line;
use shared::redis::{Redis, RedisFailure};
use shared::upstreams::Credits;
use tokio::time::Instant;
use uuid::Uuid;

use crate::upstream::{Admission, ErrorClass, Model, ProviderConfig, Referee};

pub use account::watch_account;
pub use breaker::State;
use breaker::{Breakers, Key, PROBE, PROBED, Say};
pub use bucket::{Bucket, BucketState, Request, Verdict};
pub use config::PacingConfig;
pub use limit::Limit;
pub use notes::{OpenBreaker, open_breakers};
use share::Share;

/// Background work stands in line as if it had come so much later.
const BACKGROUND_YIELDS: Duration = Duration::from_mins(1);

/// What comes back when a bucket opens that has no limit comes back within so large a part of the wait, and not at once.
const SPREAD: f64 = 0.05;

/// Both buckets of an account.
#[derive(Debug)]
pub struct Pacing {
    redis: Redis,
    account: String,
    /// What this worker was told when it asked last.
    credits: Mutex<Option<Credits>>,
    free: Side,
    paid: Side,
    /// Those of providers that are asked for single models.
    others: Vec<(Vec<String>, Side)>,
    max_wait: Duration,
    breakers: Breakers,
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
            account: account.to_owned(),
            credits: Mutex::default(),
            free: Side::new(account, "free", config.free),
            paid: Side::new(account, "paid", config.paid),
            others: Vec::new(),
            max_wait: config.max_wait,
            breakers: Breakers::new(config.breaker_rest),
            workers: AtomicU32::new(1),
        }
    }

    /// With a bucket for each provider that has models of its own.
    #[must_use]
    pub fn beside(mut self, providers: &[ProviderConfig]) -> Self {
        let others = providers.iter().map(|provider| {
            let limit = Limit::per_minute(provider.per_minute);
            let account = format!("{}:{}", provider.name, provider.base_url);
            let account = shared::crypto::hex(&shared::crypto::sha256(&[account.as_bytes()]));
            let side = Side::new(account.get(..8).unwrap_or_default(), "provider", limit);
            (provider.models.clone(), side)
        });
        self.others = others.collect();
        self
    }

    /// So many workers live.
    pub fn fleet(&self, workers: u32) {
        self.workers.store(workers.max(1), Ordering::Relaxed);
    }

    fn side(&self, free: bool) -> &Side {
        if free { &self.free } else { &self.paid }
    }

    fn side_of(&self, model: &Model) -> &Side {
        let mut others = self.others.iter();
        let other = others.find(|(models, _)| models.contains(&model.name));
        other.map_or_else(|| self.side(model.free), |(_, side)| side)
    }

    /// The lines in which calls of these models wait; none for those that have no limit.
    pub(crate) fn lines(&self, models: &[Model]) -> Vec<(String, Option<Line>)> {
        // Only a chain with both kinds has another limit to go to.
        let has_both =
            models.iter().any(|model| model.free) && models.iter().any(|model| !model.free);
        let line = |model: &Model| {
            let side = self.side_of(model);
            let (bucket, line) = side.bucket.keys(&self.redis);
            Some(Line {
                bucket,
                line,
                gap: side.limit?.gap(),
                slack: side.limit?.slack(),
                longest: has_both.then_some(self.max_wait),
            })
        };
        let lines = models.iter().map(|model| (model.name.clone(), line(model)));
        lines.collect()
    }

    /// Asks for one call of a model.
    async fn admit(&self, asker: Asker, model: &Model, has_other: bool) -> Admission {
        let side = self.side_of(model);
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
    async fn close(&self, model: &Model, time: Duration) {
        let side = self.side_of(model);
        side.share.close(Instant::now(), time);
        tracing::warn!(
            upstream.model = model.name,
            closed_ms = time.as_millis(),
            "the account's limit is met"
        );
        if let Err(failure) = side.bucket.close(&self.redis, time).await {
            tracing::debug!(%failure, "the fleet was not told");
        }
    }

    /// Asks the breakers of a model: whether it may be called, and whether that is a probe.
    async fn try_model(&self, model: &str) -> Result<Option<Key>, Duration> {
        let now = Instant::now();
        let key = match self.breakers.ask(model, now) {
            Say::Go => return Ok(None),
            Say::Rest(rest) => return Err(rest),
            Say::Probe(key) => key,
        };
        // Without Redis each worker probes for itself.
        let mine = notes::probe(&self.redis, &key).await.unwrap_or(true);
        let time = if mine { PROBE } else { PROBED };
        self.breakers.probing(&key, mine, now + time);
        if mine { Ok(Some(key)) } else { Err(time) }
    }

    /// The probes of a model were not made, or said nothing.
    pub(crate) async fn release(&self, model: &str) {
        let keys = self.breakers.released(model);
        if !keys.is_empty() {
            self.noted(notes::release(&self.redis, &keys).await);
        }
    }

    /// The first text of a call has come.
    pub(crate) async fn answers(&self, model: &str) {
        self.closed(model, self.breakers.answers(model)).await;
    }

    async fn worked(&self, model: &str) {
        self.closed(model, self.breakers.worked(model)).await;
    }

    async fn closed(&self, model: &str, keys: Vec<Key>) {
        if !keys.is_empty() {
            tracing::info!(upstream.model = model, "the model works again");
            self.noted(notes::close(&self.redis, &keys).await);
        }
    }

    async fn failed(&self, model: &str, class: ErrorClass) {
        if !breaker::counts(class) {
            return self.release(model).await;
        }
        for (key, rest) in self.breakers.failed(model, class, Instant::now()) {
            tracing::warn!(
                upstream.model = model,
                error.class = %key.1,
                rest_ms = rest.as_millis(),
                "the model is left alone"
            );
            self.noted(notes::trip(&self.redis, &key, rest).await);
        }
    }

    fn noted(&self, noted: Result<(), RedisFailure>) {
        if let Err(failure) = noted {
            tracing::debug!(%failure, "the fleet was not told about a breaker");
        }
    }

    /// Learns what others were refused, and which models they leave alone. `shown` are the breakers
    /// whose gauge is not at rest.
    async fn look(&self, shown: &mut Vec<Key>) {
        let now = Instant::now();
        match notes::look(&self.redis).await {
            Ok(known) => self.breakers.heard(&known, now),
            Err(failure) => tracing::debug!(%failure, "not known which models rest"),
        }
        let states = self.breakers.states(now);
        for (model, class) in shown.drain(..) {
            if !states
                .iter()
                .any(|(key, _)| key.0 == model && key.1 == class)
            {
                gauge(&(model, class), State::Closed);
            }
        }
        for (key, state) in states {
            gauge(&key, state);
            shown.push(key);
        }
        // A bucket with a limit says so itself when it is asked.
        let others = self.others.iter().map(|(_, side)| side);
        let unlimited = [&self.free, &self.paid].into_iter().chain(others);
        for side in unlimited.filter(|side| side.limit.is_none()) {
            match side.bucket.closed(&self.redis).await {
                Ok(time) => side.share.close(Instant::now(), time),
                Err(failure) => tracing::debug!(%failure, "not known whether others were refused"),
            }
        }
    }
}

fn gauge(key: &Key, state: State) {
    metrics::gauge!(shared::metrics::BREAKER_STATE, "model" => key.0.clone(), "error" => key.1.as_str())
        .set(f64::from(state.number()));
}

/// A wait that many are told at once, and up to a little more.
fn spread(wait: Duration) -> Duration {
    if wait.is_zero() {
        return wait;
    }
    wait + wait.mul_f64(SPREAD * rand::random::<f64>())
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
        let probe = match self.pacing.try_model(&model.name).await {
            Ok(probe) => probe,
            Err(rest) => return Admission::Resting(rest),
        };
        let admission = self.pacing.admit(self.asker, model, has_other).await;
        if probe.is_some() && admission != Admission::Go {
            self.pacing.release(&model.name).await;
        }
        let wait = match admission {
            Admission::Go | Admission::Resting(_) => return admission,
            Admission::Wait { wait, .. } | Admission::TooLong(wait) => wait,
        };
        let kind = if model.free { "free" } else { "paid" };
        metrics::histogram!(shared::metrics::PACING_WAIT, "kind" => kind)
            .record(wait.as_secs_f64());
        admission
    }

    async fn worked(&self, model: &Model) {
        self.pacing.worked(&model.name).await;
    }

    async fn failed(&self, model: &Model, class: ErrorClass, wait: Option<Duration>) {
        self.pacing.failed(&model.name, class).await;
        if class == ErrorClass::PlatformLimit
            && let Some(wait) = wait
        {
            self.pacing.close(model, wait).await;
        }
    }
}
