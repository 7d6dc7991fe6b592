//! The three queues: how long they are, and whether workers may take from them.

use std::time::Duration;

use uuid::Uuid;

use super::audit::{self, Actor, Entry};
use super::conn::Conn;
use super::{OperatorTx, StoreResult, SweepTx};
use crate::domain::{Priority, Queue};

/// A queue is counted up to here; a longer one is too long in any case.
pub const MOST_COUNTED: i64 = 1_000_000;

/// What was measured of a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Which.
    pub queue: Priority,
    /// Queued generations that are not parked, at most [`MOST_COUNTED`].
    pub depth: i64,
    /// Parked ones, at most [`MOST_COUNTED`].
    pub parked: i64,
    /// How long the generation that is due for longest has been, in seconds.
    pub oldest_wait_seconds: Option<f64>,
    /// Generations that leave it in a second while it has any: where it was never empty of late, those
    /// that did; otherwise those that the fleet has places for at the time they take. None when
    /// nothing was measured yet.
    pub drain: Option<f64>,
    /// Whether workers leave it alone.
    pub paused: bool,
    /// Workers that live.
    pub workers: i32,
    /// How long ago this was measured.
    pub age: Duration,
}

struct LoadRow {
    queue: Priority,
    depth: i64,
    parked: i64,
    oldest_wait_seconds: Option<f64>,
    drain: Option<f64>,
    paused: bool,
    workers: i32,
    age_seconds: f64,
}

impl From<LoadRow> for Load {
    fn from(row: LoadRow) -> Self {
        Self {
            queue: row.queue,
            depth: row.depth,
            parked: row.parked,
            oldest_wait_seconds: row.oldest_wait_seconds,
            drain: row.drain,
            paused: row.paused,
            workers: row.workers,
            age: Duration::try_from_secs_f64(row.age_seconds).unwrap_or(Duration::MAX),
        }
    }
}

/// Measures all queues and keeps the result for every process.
///
/// # Errors
/// When the database fails.
pub async fn measure(tx: &mut SweepTx) -> StoreResult<Vec<Load>> {
    measured(tx.conn()).await
}

/// What was measured last; measured now where that is older than `at_most`, because no worker lives
/// that would have done it.
///
/// # Errors
/// When the database fails.
pub async fn loads(tx: &mut OperatorTx, at_most: Duration) -> StoreResult<Vec<Load>> {
    let loads = last(tx.conn()).await?;
    if loads.iter().all(|load| load.age <= at_most) {
        return Ok(loads);
    }
    let fresh = measured(tx.conn()).await?;
    Ok(if fresh.is_empty() { loads } else { fresh })
}

/// What was measured last, however long ago.
///
/// # Errors
/// When the database fails.
pub async fn seen(tx: &mut SweepTx) -> StoreResult<Vec<Load>> {
    last(tx.conn()).await
}

async fn last(connection: Conn<'_>) -> StoreResult<Vec<Load>> {
    let rows = sqlx::query_as!(
        LoadRow,
        r#"SELECT q.name AS "queue!: Priority", q.depth, q.parked,
                  extract(epoch FROM now() - q.oldest_due_at)::float8 AS oldest_wait_seconds, q.drain,
                  q.paused_at IS NOT NULL AS "paused!", q.workers,
                  CASE WHEN isfinite(q.measured_at) THEN extract(epoch FROM clock_timestamp() - q.measured_at)::float8
                       ELSE 1e9 END AS "age_seconds!"
           FROM chat.queues q"#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Load::from).collect())
}

/// A queue whose oldest has waited for longer than rates are measured over was never empty
/// meanwhile, so what it lost is what the fleet can do for it. Otherwise the fleet had places to
/// spare, and what it ended says how much was asked of it, not how much it could have done.
///
/// The depths are counted from the index of ready rows; no row of a finished generation is read.
/// Queues that somebody else measures at this moment are left to them.
async fn measured(connection: Conn<'_>) -> StoreResult<Vec<Load>> {
    let rows = sqlx::query_as!(
        LoadRow,
        r#"WITH open AS MATERIALIZED (
               SELECT q.name FROM chat.queues q FOR UPDATE SKIP LOCKED
           ), fleet AS MATERIALIZED (
               SELECT count(*)::integer AS workers,
                      -- Those that have not ended anything yet are taken to be as quick as the others.
                      sum(w.capacity) * sum(w.concurrency)
                          / NULLIF(sum(w.concurrency) FILTER (WHERE w.capacity IS NOT NULL), 0) AS capacity
               FROM chat.workers w
               WHERE w.stopped_at IS NULL AND NOT w.draining AND w.last_seen_at > now() - w.lease
           ), load AS MATERIALIZED (
               SELECT p.name,
                      (SELECT count(*) FROM (SELECT FROM chat.generations g
                                             WHERE g.priority = p.name AND g.status = 'queued' AND g.run_at < 'infinity'
                                             LIMIT $1) waiting) AS depth,
                      (SELECT count(*) FROM (SELECT FROM chat.generations g
                                             WHERE g.priority = p.name AND g.status = 'queued' AND g.run_at = 'infinity'
                                             LIMIT $1) waiting) AS parked,
                      (SELECT g.run_at FROM chat.generations g
                       WHERE g.priority = p.name AND g.status = 'queued' AND g.run_at <= now()
                       ORDER BY g.run_at, g.id LIMIT 1) AS oldest_due_at,
                      COALESCE((SELECT sum((w.rates ->> p.name)::float8) FROM chat.workers w
                                WHERE w.stopped_at IS NULL AND w.last_seen_at > now() - w.lease), 0) AS rate
               FROM open p
           )
           UPDATE chat.queues q
           SET depth = l.depth, parked = l.parked, oldest_due_at = l.oldest_due_at, rate = l.rate, workers = f.workers,
               measured_at = clock_timestamp(),
               drain = CASE WHEN l.rate > 0 AND l.oldest_due_at < now() - interval '30 seconds' THEN l.rate
                            ELSE f.capacity END
           FROM load l, fleet f WHERE q.name = l.name
           RETURNING q.name AS "queue!: Priority", q.depth, q.parked,
                     extract(epoch FROM now() - q.oldest_due_at)::float8 AS oldest_wait_seconds, q.drain,
                     q.paused_at IS NOT NULL AS "paused!", q.workers, 0::float8 AS "age_seconds!""#,
        MOST_COUNTED,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Load::from).collect())
}

/// How the queues are now, the most urgent first.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut OperatorTx) -> StoreResult<Vec<Queue>> {
    measured(tx.conn()).await?;
    let rows = sqlx::query!(
        r#"SELECT q.name AS "name: Priority", q.depth, q.parked, q.rate, q.drain, q.paused_at, q.paused_by, q.reason,
                  extract(epoch FROM now() - q.oldest_due_at)::float8 AS oldest_wait_seconds,
                  (SELECT count(*) FROM chat.generations g
                   WHERE g.status = 'in_progress' AND g.priority = q.name) AS "in_flight!"
           FROM chat.queues q ORDER BY array_position(ARRAY['premium', 'standard', 'background'], q.name)"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let drain = row
                .drain
                .filter(|drain| *drain > 0.0 && row.paused_at.is_none());
            Queue {
                name: row.name,
                depth: row.depth,
                parked: row.parked,
                oldest_wait_seconds: row.oldest_wait_seconds,
                in_flight: row.in_flight,
                rate_per_second: row.rate,
                eta_seconds: drain.map(|drain| (row.depth + row.parked) as f64 / drain),
                paused: row.paused_at.is_some(),
                paused_at: row.paused_at,
                paused_by: row.paused_by,
                reason: row.reason,
            }
        })
        .collect())
}

/// Tells the fleet to leave a queue alone. One that is paused stays as it is. `id` is that of the
/// trail's line. Returns whether anything changed.
///
/// # Errors
/// When the database fails.
pub async fn pause(
    tx: &mut OperatorTx,
    id: Uuid,
    queue: Priority,
    reason: Option<&str>,
    actor: &Actor,
) -> StoreResult<bool> {
    let changed = sqlx::query!(
        "UPDATE chat.queues SET paused_at = now(), paused_by = $2, reason = $3
         WHERE name = $1 AND paused_at IS NULL",
        queue as _,
        actor.name,
        reason,
    )
    .execute(tx.conn())
    .await?;
    let changed = changed.rows_affected() == 1;
    if changed {
        let details = serde_json::json!({ "reason": reason });
        note(tx, id, "queue.pause", queue, actor, &details).await?;
    }
    Ok(changed)
}

/// Lets the fleet take from a queue again. `id` is that of the trail's line. Returns whether anything
/// changed.
///
/// # Errors
/// When the database fails.
pub async fn resume(
    tx: &mut OperatorTx,
    id: Uuid,
    queue: Priority,
    actor: &Actor,
) -> StoreResult<bool> {
    let changed = sqlx::query!(
        "UPDATE chat.queues SET paused_at = NULL, paused_by = NULL, reason = NULL
         WHERE name = $1 AND paused_at IS NOT NULL",
        queue as _,
    )
    .execute(tx.conn())
    .await?;
    let changed = changed.rows_affected() == 1;
    if changed {
        note(tx, id, "queue.resume", queue, actor, &serde_json::json!({})).await?;
    }
    Ok(changed)
}

async fn note(
    tx: &mut OperatorTx,
    id: Uuid,
    action: &str,
    queue: Priority,
    actor: &Actor,
    details: &serde_json::Value,
) -> StoreResult<()> {
    let entry = Entry {
        id,
        actor,
        action,
        subject: queue.as_str(),
        details,
    };
    audit::note_of_fleet(tx, &entry).await
}
