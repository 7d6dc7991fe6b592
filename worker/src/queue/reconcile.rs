//! The sweep that finds lost work: every worker tries every second, one at a time succeeds.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared::domain::{GenerationError, GenerationKind};
use shared::push::{Ended, write_terminal};
use shared::queue;
use shared::store::generations::{self, Expired, Ready};
use shared::store::{StoreResult, maintenance};
use tokio::time::Instant;

use crate::context::Context;

/// Rows repaired in one pass.
const BATCH: i64 = 500;
/// A ready row is pushed again when its last push is this old.
const PUSH_AGAIN_SECONDS: f64 = 15.0;
/// After the database was away, leases are left alone for this long: their holders could not renew
/// either, and may be about to store a finished reply.
const GRACE_AFTER_OUTAGE: Duration = Duration::from_secs(5);

/// What one pass did.
#[derive(Debug, Default)]
struct Pass {
    leases: Vec<Expired>,
    deadlines: Vec<Expired>,
    ready: Vec<Ready>,
}

/// Sweeps for ever.
pub async fn reconcile(context: Arc<Context>) {
    let mut leases_from = Instant::now();
    let mut pace = FleetPace::default();
    loop {
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::time::sleep(context.config.queue.reconcile_every.mul_f64(jitter)).await;
        match sweep(&context, Instant::now() >= leases_from).await {
            Ok(Some(pass)) => {
                follow_up(&context, pass).await;
                pace.report(&context).await;
            }
            Ok(None) => pace = FleetPace::default(),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "nothing reconciled"
                );
                leases_from = Instant::now() + GRACE_AFTER_OUTAGE;
            }
        }
    }
}

/// One pass over the table; none when another worker is at it.
async fn sweep(context: &Context, with_leases: bool) -> StoreResult<Option<Pass>> {
    let mut tx = context.db.sweep().await?;
    if !maintenance::try_lock(&mut tx, "reconcile").await? {
        return Ok(None);
    }
    let mut pass = Pass::default();
    if with_leases {
        pass.leases = generations::expired_leases(&mut tx, BATCH).await?;
    }
    pass.deadlines = generations::expired_deadlines(&mut tx, BATCH).await?;
    pass.ready = generations::ready_unpushed(&mut tx, PUSH_AGAIN_SECONDS, BATCH).await?;
    tx.commit().await?;
    Ok(Some(pass))
}

/// Tells Redis and the clients what the pass decided, after its commit.
async fn follow_up(context: &Context, pass: Pass) {
    count("lease_expired", pass.leases.len());
    count("deadline_expired", pass.deadlines.len());
    count("pushed", pass.ready.len());
    metrics::counter!(shared::metrics::LEASE_EXPIRED).increment(pass.leases.len() as u64);
    let freed = pass
        .leases
        .iter()
        .filter(|expired| expired.failed.is_none());
    let pushes = freed.map(|expired| (expired.id, expired.priority));
    if let Err(failure) = queue::push_front(&context.redis, pushes).await {
        tracing::debug!(%failure, "freed work not pushed");
    }
    let ready = pass.ready.iter().map(|ready| (ready.id, ready.priority));
    if let Err(failure) = queue::push_back(&context.redis, ready).await {
        tracing::debug!(%failure, "ready work not pushed");
    }
    for expired in pass.leases.iter().chain(&pass.deadlines) {
        tracing::warn!(
            generation.id = %expired.id,
            attempt = expired.attempt,
            failed = expired.failed.map(|code| code.as_str()),
            "a lease or a deadline ran out"
        );
        let Some(code) = expired.failed else { continue };
        metrics::counter!(shared::metrics::DEAD_LETTERS, "kind" => expired.kind.as_str())
            .increment(1);
        if expired.kind == GenerationKind::Title {
            continue;
        }
        let error = GenerationError::from(code);
        let event = Ended::Failed {
            error: Some(&error),
        }
        .event(
            expired.id,
            expired.conversation_id,
            u32::try_from(expired.attempt).unwrap_or(0),
            context.clock.now(),
        );
        if let Err(failure) = write_terminal(&context.redis, expired.user_id, &event).await {
            tracing::debug!(%failure, "end not pushed");
        }
    }
}

fn count(action: &'static str, rows: usize) {
    metrics::counter!(shared::metrics::RECONCILE_ACTIONS, "action" => action)
        .increment(rows as u64);
}

/// How quickly the fleet ends generations, from the counter that all workers share.
#[derive(Debug, Default)]
struct FleetPace {
    last: Option<(u64, Instant)>,
    gap_ms: Option<f64>,
}

impl FleetPace {
    async fn report(&mut self, context: &Context) {
        let now = Instant::now();
        let Ok(ended) = queue::ended(&context.redis).await else {
            return;
        };
        if let Some((before, at)) = self.last
            && ended > before
        {
            let gap = (now - at).as_secs_f64() * 1000.0 / (ended - before) as f64;
            self.gap_ms = Some(
                self.gap_ms
                    .map_or(gap, |average| average + (gap - average) * 0.3),
            );
        }
        if self.last.is_none_or(|(before, _)| ended != before) {
            self.last = Some((ended, now));
            let averages = context.pace.averages();
            if let Err(failure) = queue::report_pace(&context.redis, &averages, self.gap_ms).await {
                tracing::debug!(%failure, "pace not reported");
            }
        }
        if let Ok(depths) = queue::depths(&context.redis).await {
            for (priority, depth) in depths {
                metrics::gauge!(shared::metrics::QUEUE_DEPTH, "priority" => priority.as_str())
                    .set(depth as f64);
            }
        }
    }
}
