//! The register of workers.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{OperatorTx, StoreResult, SweepTx};
use crate::domain::{FleetWorker, Priority, WorkerStatus};

/// A worker's sign of life.
#[derive(Clone, Debug)]
pub struct Beat<'a> {
    /// Names this start of it.
    pub boot: Uuid,
    /// Stays the same over restarts.
    pub name: &'a str,
    /// The version of Balas.
    pub version: &'a str,
    /// How long it has been running.
    pub up: Duration,
    /// Whether it was told to stop.
    pub draining: bool,
    /// Generations it runs at most.
    pub concurrency: i32,
    /// How long its leases hold.
    pub lease: Duration,
    /// Generations it runs.
    pub in_flight: i32,
    /// Generations it ends in a second, by queue.
    pub rates: HashMap<Priority, f64>,
    /// Generations it could end in a second, once it knows how long they take.
    pub capacity: Option<f64>,
}

/// Notes that a worker lives.
///
/// # Errors
/// When the database fails.
pub async fn beat(tx: &mut SweepTx, beat: &Beat<'_>) -> StoreResult<()> {
    let rates: HashMap<&str, f64> = beat
        .rates
        .iter()
        .map(|(queue, rate)| (queue.as_str(), *rate))
        .collect();
    sqlx::query!(
        "INSERT INTO chat.workers (boot, name, version, started_at, last_seen_at, draining, concurrency, lease,
                                   in_flight, rates, capacity)
         VALUES ($1, $2, $3, now() - $4 * interval '1 second', now(), $5, $6, $7 * interval '1 second', $8, $9, $10)
         ON CONFLICT (boot) DO UPDATE
         SET last_seen_at = now(), draining = EXCLUDED.draining, stopped_at = NULL, in_flight = EXCLUDED.in_flight,
             rates = EXCLUDED.rates, capacity = EXCLUDED.capacity",
        beat.boot,
        beat.name,
        beat.version,
        beat.up.as_secs_f64(),
        beat.draining,
        beat.concurrency,
        beat.lease.as_secs_f64(),
        beat.in_flight,
        Json(rates) as _,
        beat.capacity,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that a worker has ended in order.
///
/// # Errors
/// When the database fails.
pub async fn stopped(tx: &mut SweepTx, boot: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.workers SET stopped_at = now(), last_seen_at = now(), in_flight = 0, rates = '{}'
         WHERE boot = $1",
        boot
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Calls the roll of a name: asks whoever has it to sign the register. Returns when, by the database's
/// clock. The caller has signed already.
///
/// # Errors
/// When the database fails.
pub async fn call(tx: &mut SweepTx, boot: Uuid) -> StoreResult<OffsetDateTime> {
    let called_at = sqlx::query_scalar!(
        r#"UPDATE chat.workers SET called_at = now() WHERE boot = $1 RETURNING called_at AS "called_at!""#,
        boot
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(called_at)
}

/// Whether a namesake has called since this worker last signed.
///
/// # Errors
/// When the database fails.
pub async fn is_called(tx: &mut SweepTx, boot: Uuid) -> StoreResult<bool> {
    let called = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM chat.workers me JOIN chat.workers o ON o.name = me.name AND o.boot <> me.boot
               WHERE me.boot = $1 AND o.stopped_at IS NULL AND o.called_at >= me.last_seen_at) AS "called!""#,
        boot
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(called)
}

/// Who has the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namesakes {
    /// Those that have signed since the call.
    pub living: i64,
    /// Those that have not, and have not ended in order either.
    pub silent: i64,
}

/// What has become of a call.
///
/// # Errors
/// When the database fails.
pub async fn namesakes(
    tx: &mut SweepTx,
    name: &str,
    boot: Uuid,
    called_at: OffsetDateTime,
) -> StoreResult<Namesakes> {
    let namesakes = sqlx::query_as!(
        Namesakes,
        r#"SELECT count(*) FILTER (WHERE last_seen_at > $3) AS "living!",
                  count(*) FILTER (WHERE last_seen_at <= $3) AS "silent!"
           FROM chat.workers WHERE name = $1 AND boot <> $2 AND stopped_at IS NULL"#,
        name,
        boot,
        called_at,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(namesakes)
}

/// How many workers live: they signed lately, and have not ended.
///
/// # Errors
/// When the database fails.
pub async fn living(tx: &mut SweepTx) -> StoreResult<i64> {
    let living = sqlx::query_scalar!(
        r#"SELECT count(*) AS "living!" FROM chat.workers WHERE stopped_at IS NULL AND last_seen_at >= now() - lease"#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(living)
}

/// Notes that those of this name are over who have not signed within `wait` after the call.
///
/// # Errors
/// When the database fails.
pub async fn succeed(
    tx: &mut SweepTx,
    name: &str,
    boot: Uuid,
    called_at: OffsetDateTime,
    wait: Duration,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.workers SET stopped_at = now(), in_flight = 0, rates = '{}'
         WHERE name = $1 AND boot <> $2 AND stopped_at IS NULL AND last_seen_at <= $3
           AND now() >= $3 + $4 * interval '1 second'",
        name,
        boot,
        called_at,
        wait.as_secs_f64(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets workers that nobody has heard of for a day. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut SweepTx) -> StoreResult<u64> {
    let gone =
        sqlx::query!("DELETE FROM chat.workers WHERE last_seen_at < now() - interval '1 day'")
            .execute(tx.conn())
            .await?;
    Ok(gone.rows_affected())
}

/// The workers of the last day, those that live first.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut OperatorTx) -> StoreResult<Vec<FleetWorker>> {
    let rows = sqlx::query_as!(
        FleetWorker,
        r#"WITH held AS MATERIALIZED (
               SELECT g.worker_id, count(*) AS leases, count(*) FILTER (WHERE g.lease_until < now()) AS overdue,
                      min(g.lease_until) AS first
               FROM chat.generations g WHERE g.status = 'in_progress' GROUP BY g.worker_id
           )
           SELECT w.name, w.boot, w.version,
                  CASE WHEN w.stopped_at IS NOT NULL THEN 'stopped'
                       WHEN w.last_seen_at < now() - w.lease THEN 'lost'
                       WHEN w.draining THEN 'draining' ELSE 'running' END AS "status!: WorkerStatus",
                  w.started_at, floor(extract(epoch FROM now() - w.started_at))::bigint AS "age_seconds!",
                  w.last_seen_at, extract(epoch FROM now() - w.last_seen_at)::float8 AS "last_seen_seconds!",
                  w.concurrency, w.in_flight, COALESCE(h.leases, 0) AS "leases!", COALESCE(h.overdue, 0) AS "leases_overdue!",
                  extract(epoch FROM h.first - now())::float8 AS lease_expires_in_seconds,
                  COALESCE((SELECT sum(r.value::text::float8) FROM jsonb_each(w.rates) r), 0) AS "rate_per_second!"
           FROM chat.workers w LEFT JOIN held h ON h.worker_id = w.name || '/' || w.boot
           ORDER BY w.stopped_at IS NOT NULL, w.name, w.started_at DESC LIMIT 1000"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}
