//! The sweep that finds lost work: every worker tries every second, one at a time succeeds.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared::domain::{GenerationError, GenerationKind, Priority};
use shared::push::{Ended, write_terminal};
use shared::queue;
use shared::store::generations::{self, Expired, Look, Next, Ready};
use shared::store::{StoreResult, maintenance};
use tokio::time::Instant;

use super::measure::measure;
use crate::context::Context;
use crate::figures;

/// Rows repaired in one pass.
const BATCH: i64 = 500;
/// Conversations and people looked at in one pass, for parked work that nobody else will wake.
const LOOKED_AT: i64 = 2_000;
/// A ready row is pushed again when its last push is this old.
const PUSH_AGAIN_SECONDS: f64 = 15.0;
/// A list with so many ids needs no more of them: the fleet takes longer than a pass to empty it.
const ENOUGH: u64 = 500;
/// After the database was away, leases are left alone for this long: their holders could not renew
/// either, and may be about to store a finished reply.
const GRACE_AFTER_OUTAGE: Duration = Duration::from_secs(5);
/// To find deadlines that have passed, everything that is queued is read. That may take a twentieth of the
/// time: a second's interval while the backlog is short, and ten seconds' at a million.
const REST_AFTER_DEADLINES: u32 = 20;

/// What one pass did.
#[derive(Debug, Default)]
struct Pass {
    leases: Vec<Expired>,
    deadlines: Vec<Expired>,
    ready: Vec<Ready>,
    woken: Vec<Next>,
}

/// What this worker knows between two passes.
#[derive(Debug)]
struct Rhythm {
    /// Leases are left alone until then.
    leases_from: Instant,
    /// Deadlines need not be looked at until then.
    deadlines_from: Instant,
    look: Look,
}

/// Sweeps for ever.
pub async fn reconcile(context: Arc<Context>) {
    let now = Instant::now();
    let mut rhythm = Rhythm {
        leases_from: now,
        deadlines_from: now,
        look: Look::default(),
    };
    loop {
        let jitter = rand::rng().random_range(0.8..1.2);
        tokio::time::sleep(context.config.queue.reconcile_every.mul_f64(jitter)).await;
        let queues = with_room(&context).await;
        match sweep(&context, &queues, &mut rhythm).await {
            Ok(Some(pass)) => {
                follow_up(&context, pass).await;
                measure(&context).await;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "nothing reconciled"
                );
                rhythm.leases_from = Instant::now() + GRACE_AFTER_OUTAGE;
            }
        }
    }
}

/// The queues whose lists are short. A long one has lost nothing that anybody waits for: what is in
/// it would be pushed a second time, and every fifteen seconds once more.
async fn with_room(context: &Context) -> Vec<Priority> {
    match queue::depths(&context.redis).await {
        Ok(depths) => depths
            .into_iter()
            .filter(|(_, depth)| *depth < ENOUGH)
            .map(|(queue, _)| queue)
            .collect(),
        Err(_) => Priority::ALL.to_vec(),
    }
}

/// One pass over the table; none when another worker is at it.
async fn sweep(
    context: &Context,
    queues: &[Priority],
    rhythm: &mut Rhythm,
) -> StoreResult<Option<Pass>> {
    let mut tx = context.db.sweep().await?;
    if !maintenance::try_lock(&mut tx, "reconcile").await? {
        return Ok(None);
    }
    let mut pass = Pass::default();
    if Instant::now() >= rhythm.leases_from {
        pass.leases =
            generations::expired_leases(&mut tx, BATCH, context.config.queue.stagger()).await?;
    }
    let began = Instant::now();
    if began >= rhythm.deadlines_from {
        pass.deadlines = generations::expired_deadlines(&mut tx, BATCH).await?;
        rhythm.deadlines_from = began + began.elapsed() * REST_AFTER_DEADLINES;
    }
    for ended in [&pass.leases, &pass.deadlines] {
        let woken = generations::wake_after(&mut tx, ended).await?;
        pass.woken.extend(woken);
    }
    let lost = generations::wake_lost(&mut tx, &mut rhythm.look, LOOKED_AT).await?;
    count("woken", lost.len());
    pass.woken.extend(lost);
    pass.ready = generations::ready_unpushed(&mut tx, queues, PUSH_AGAIN_SECONDS, BATCH).await?;
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
    let woken = pass.woken.iter().map(|next| (next.id, next.priority));
    if let Err(failure) = queue::push_back(&context.redis, woken).await {
        tracing::debug!(%failure, "woken work not pushed");
    }
    let ready = pass.ready.iter().map(|ready| (ready.id, ready.priority));
    if let Err(failure) = queue::push_back(&context.redis, ready).await {
        tracing::debug!(%failure, "ready work not pushed");
    }
    let mut expired = pass.leases.iter().chain(&pass.deadlines);
    if expired.any(|expired| expired.failed.is_some()) {
        context.wake.wake();
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
        let accepted_at = figures::accepted_at(expired.id, context.clock.now());
        let is_support = expired.kind == GenerationKind::Support;
        figures::reply_ended(context, expired.kind, is_support, accepted_at, true);
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
