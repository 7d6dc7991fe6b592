//! What the sweeps find and repair. Every pass is idempotent.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::{FailureCode, GenerationKind, Priority};
use crate::store::{StoreResult, SweepTx};

/// A generation that can be claimed and should be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The generation.
    pub id: Uuid,
    /// Its queue.
    pub priority: Priority,
}

/// A generation that a sweep ended or freed.
#[derive(Clone, Copy, Debug)]
pub struct Expired {
    /// The generation.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// Its conversation.
    pub conversation_id: Uuid,
    /// What it makes.
    pub kind: GenerationKind,
    /// Its queue.
    pub priority: Priority,
    /// Claims so far.
    pub attempt: i32,
    /// Why it was given up; none when it goes back to the queue.
    pub failed: Option<FailureCode>,
}

/// Takes generations from workers whose lease ran out: back to the queue, or failed where the
/// attempts are used up. What has been lost before is staggered as in
/// [`free_predecessor`](super::free_predecessor).
///
/// # Errors
/// When the database fails.
pub async fn expired_leases(
    tx: &mut SweepTx,
    limit: i64,
    stagger: Duration,
) -> StoreResult<Vec<Expired>> {
    let expired = sqlx::query_as!(
        Expired,
        r#"WITH expired AS MATERIALIZED (
               SELECT id, attempt - forgiven AS counted, attempt - forgiven >= max_attempts AS spent
               FROM chat.generations
               WHERE status = 'in_progress' AND lease_until < now() LIMIT $1 FOR UPDATE SKIP LOCKED
           )
           UPDATE chat.generations g
           SET status = CASE WHEN e.spent THEN 'failed' ELSE 'queued' END, claim_token = NULL, lease_until = NULL,
               run_at = now() + CASE WHEN e.counted < 2 THEN 0
                                     ELSE random() * $2 * power(2, least(e.counted - 2, 6)) END * interval '1 second',
               error_code = CASE WHEN e.spent THEN 'attempts_exhausted' END,
               error_detail = 'the lease ran out on ' || g.worker_id,
               finished_at = CASE WHEN e.spent THEN now() END
           FROM expired e WHERE g.id = e.id
           RETURNING g.id, g.user_id, g.conversation_id, g.kind AS "kind: GenerationKind",
                     g.priority AS "priority: Priority", g.attempt, g.error_code AS "failed: FailureCode""#,
        limit,
        stagger.as_secs_f64(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(expired)
}

/// Gives up what is still queued past its deadline.
///
/// # Errors
/// When the database fails.
pub async fn expired_deadlines(tx: &mut SweepTx, limit: i64) -> StoreResult<Vec<Expired>> {
    let expired = sqlx::query_as!(
        Expired,
        r#"WITH expired AS MATERIALIZED (
               SELECT id FROM chat.generations
               WHERE status = 'queued' AND deadline_at < now() LIMIT $1 FOR UPDATE SKIP LOCKED
           )
           UPDATE chat.generations g
           SET status = 'failed', error_code = 'expired', finished_at = now(), parked = NULL
           FROM expired e WHERE g.id = e.id
           RETURNING g.id, g.user_id, g.conversation_id, g.kind AS "kind: GenerationKind",
                     g.priority AS "priority: Priority", g.attempt, g.error_code AS "failed: FailureCode""#,
        limit
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(expired)
}

/// Finds generations that are due and head of their conversation but were not pushed within
/// `older_than_seconds`, and marks them as pushed. Retries that came due and heads that were parked
/// are found here, as are those whose push was lost. Only these `queues` are looked at, and paused
/// ones are not.
///
/// # Errors
/// When the database fails.
pub async fn ready_unpushed(
    tx: &mut SweepTx,
    queues: &[Priority],
    older_than_seconds: f64,
    limit: i64,
) -> StoreResult<Vec<Ready>> {
    let queues: Vec<String> = queues.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        r#"WITH ready AS MATERIALIZED (
               SELECT r.id FROM unnest($3::text[]) AS p (name)
               CROSS JOIN LATERAL (
                   SELECT r.id FROM chat.generations r
                   WHERE r.priority = p.name AND r.status = 'queued'
                     AND r.run_at <= now() - interval '500 milliseconds'
                     AND NOT EXISTS (SELECT FROM chat.queues q WHERE q.name = p.name AND q.paused_at IS NOT NULL)
                     AND (r.pushed_at IS NULL OR r.pushed_at < now() - $1 * interval '1 second'
                          OR r.pushed_at < r.run_at)
                     AND NOT EXISTS (
                          SELECT FROM chat.generations o
                          WHERE o.conversation_id = r.conversation_id AND o.id < r.id
                            AND o.status IN ('queued', 'in_progress') AND (o.kind = 'title') = (r.kind = 'title')
                          OFFSET 0)
                   ORDER BY r.run_at, r.id LIMIT $2 FOR UPDATE SKIP LOCKED
               ) r
           )
           UPDATE chat.generations g SET pushed_at = now() FROM ready r WHERE g.id = r.id
           RETURNING g.id, g.priority AS "priority: Priority""#,
        older_than_seconds,
        limit,
        &queues,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Ready {
            id: row.id,
            priority: row.priority,
        })
        .collect())
}
