//! Asking the servers that the service depends on how they are.

mod broker;

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use shared::store::queues::Load;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::backlog;

/// How long a dependency may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The upstream counts every question, so it is asked once in this time, however many want to know.
const UPSTREAM_EVERY: time::Duration = time::Duration::minutes(1);

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is.
    Healthy,
    /// A dependency does not answer, or work waits for too long.
    Degraded,
}

/// How one dependency is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Dependency {
    /// Whether all is well with it.
    pub status: Status,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Of the queue: generations that are ready to run or wait for a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<i64>,
    /// Of the queue: how long the one that is due for longest has been, paused queues aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_wait_seconds: Option<f64>,
    /// Of the upstream: when it was asked, which is once a minute at most.
    #[serde(
        with = "shared::domain::timestamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    checked_at: Option<OffsetDateTime>,
}

/// What is remembered between two questions.
#[derive(Debug, Default)]
pub struct Probes {
    /// A schema does not grow old again.
    schema_is_current: AtomicBool,
    /// Held while the upstream is asked, so that whoever comes meanwhile shares the answer.
    upstream: Mutex<Option<(OffsetDateTime, Dependency)>>,
}

/// Whether Postgres answers.
pub async fn database(app: &AppState) -> Dependency {
    probe(app.db.ping()).await.0
}

/// Whether Redis answers.
pub async fn redis(app: &AppState) -> Dependency {
    probe(app.redis.ping()).await.0
}

/// Whether RabbitMQ speaks AMQP, where one is configured.
pub async fn rabbitmq(app: &AppState) -> Option<Dependency> {
    let address = app.gate.config.broker.as_ref()?;
    Some(probe(broker::greet(address)).await.0)
}

/// How long work waits.
pub async fn queue(app: &AppState) -> Dependency {
    let (mut queue, loads) = probe(backlog::look(&app.operator)).await;
    let Some(loads) = loads else { return queue };
    let waited = loads
        .iter()
        .filter(|load| !load.paused)
        .filter_map(|load| load.oldest_wait_seconds)
        .fold(0.0, f64::max);
    let most = app.gate.config.health_queue_wait;
    if !most.is_zero() && waited > most.as_secs_f64() {
        queue.status = Status::Degraded;
        queue.error = Some(slow(&loads));
    }
    queue.depth = Some(loads.iter().map(|load| load.depth).sum());
    queue.oldest_wait_seconds = Some((waited * 10.0).round() / 10.0);
    queue
}

fn slow(loads: &[Load]) -> String {
    let workers = loads.first().map_or(0, |load| load.workers);
    format!("work has waited for too long; {workers} workers live")
}

/// Whether the upstream answers, as it was found in the last minute.
pub async fn upstream(app: &AppState) -> Option<Dependency> {
    let url = app.gate.config.upstream_base_url.as_ref()?;
    let mut last = app.probes.upstream.lock().await;
    let now = app.gate.clock.now();
    if let Some((asked, known)) = &*last
        && now - *asked < UPSTREAM_EVERY
    {
        return Some(known.clone());
    }
    let asking = async {
        let sent = app.upstream.get(format!("{url}/models")).send().await;
        let checked = sent.and_then(reqwest::Response::error_for_status);
        checked.map(drop).map_err(reqwest::Error::without_url)
    };
    let (mut found, _) = probe(asking).await;
    found.checked_at = Some(now);
    *last = Some((now, found.clone()));
    Some(found)
}

/// Whether the process takes requests: nobody has asked it to stop.
pub fn process(app: &AppState) -> Dependency {
    let stopping = app.lifecycle.stopping().is_cancelled();
    Dependency::of(Duration::ZERO, stopping.then(|| "stopping".to_owned()))
}

/// Whether every migration that this version needs has run.
pub async fn schema(app: &AppState) -> Dependency {
    let known = &app.probes.schema_is_current;
    if known.load(Ordering::Relaxed) {
        return Dependency::of(Duration::ZERO, None);
    }
    let (mut schema, current) = probe(app.db.schema_is_current()).await;
    match current {
        Some(true) => known.store(true, Ordering::Relaxed),
        Some(false) => {
            schema.status = Status::Degraded;
            schema.error = Some("older than this version; run balas-api migrate".to_owned());
        }
        None => {}
    }
    schema
}

impl Dependency {
    fn of(took: Duration, error: Option<String>) -> Self {
        Self {
            status: if error.is_none() {
                Status::Healthy
            } else {
                Status::Degraded
            },
            latency_ms: (took.as_secs_f64() * 1_000_000.0).round() / 1000.0,
            error,
            depth: None,
            oldest_wait_seconds: None,
            checked_at: None,
        }
    }
}

async fn probe<T, E: Display>(
    asking: impl Future<Output = Result<T, E>>,
) -> (Dependency, Option<T>) {
    let started = Instant::now();
    let (found, error) = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(found)) => (Some(found), None),
        Ok(Err(error)) => (None, Some(error.to_string())),
        Err(_) => (None, Some("no answer in time".to_owned())),
    };
    (Dependency::of(started.elapsed(), error), found)
}
