//! How the servers and the queues are, shown as metrics by every process that uses them.

use std::time::Duration;

use crate::metrics::{
    DB_CONNECTIONS, DEPENDENCY_LATENCY, DEPENDENCY_UP, OLDEST_WAIT, PARKED, QUEUE_DEPTH,
    QUEUE_MEASURED_AGE, QUEUE_PAUSED, WORKERS,
};
use crate::redis::Redis;
use crate::store::Db;
use crate::store::queues::Load;

/// How often the servers are asked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks Postgres and Redis for ever whether they are there.
pub async fn watch(db: Db, redis: Redis) {
    loop {
        tokio::join!(ask("database", db.ping()), ask("redis", redis.probe()),);
        let (open, idle) = db.connections();
        for (state, count) in [("idle", idle), ("busy", open.saturating_sub(idle))] {
            metrics::gauge!(DB_CONNECTIONS, "state" => state).set(f64::from(count));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ask<E>(dependency: &'static str, asking: impl Future<Output = Result<(), E>>) {
    let began = tokio::time::Instant::now();
    let answered = matches!(tokio::time::timeout(PATIENCE, asking).await, Ok(Ok(())));
    metrics::gauge!(DEPENDENCY_UP, "dependency" => dependency).set(f64::from(u8::from(answered)));
    if answered {
        metrics::gauge!(DEPENDENCY_LATENCY, "dependency" => dependency)
            .set(began.elapsed().as_secs_f64());
    }
}

/// Shows the queues as they were measured last. Every process does, so that somebody does when no worker
/// lives, and none shows what it measured long ago: the same number many times, to be read with `max`.
pub fn show_queues(loads: &[Load]) {
    for load in loads {
        let name = load.queue.as_str();
        // What has waited goes on waiting, measured or not.
        let waited = load.oldest_wait_seconds.unwrap_or(0.0);
        for (metric, value) in [
            (QUEUE_DEPTH, load.depth as f64),
            (PARKED, load.parked as f64),
            (OLDEST_WAIT, waited.max(0.0)),
            (QUEUE_PAUSED, f64::from(u8::from(load.paused))),
        ] {
            metrics::gauge!(metric, "priority" => name).set(value);
        }
    }
    if let Some(load) = loads.first() {
        metrics::gauge!(WORKERS).set(f64::from(load.workers));
        metrics::gauge!(QUEUE_MEASURED_AGE).set(load.age.as_secs_f64());
    }
}
