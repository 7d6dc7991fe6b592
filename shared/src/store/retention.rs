//! The end of the retention period. What is older than so many days goes, a batch at a time: nobody waits for a sweep.

use uuid::Uuid;

use super::{StoreResult, SweepTx};

/// Drops the oldest month of messages, ledger or usage that lies before the period as a whole. Returns its
/// partition's name; none when there is no such month.
///
/// # Errors
/// When the database fails, or somebody holds the table for longer than a second.
pub async fn drop_partition(tx: &mut SweepTx, days: u16) -> StoreResult<Option<String>> {
    let dropped = sqlx::query_scalar!(
        "SELECT chat.drop_partition(now() - $1 * interval '1 day')",
        f64::from(days)
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(dropped)
}

/// Removes generations that ended before the period, at most `limit` of them. Returns how many went.
///
/// # Errors
/// When the database fails.
pub async fn expire_generations(tx: &mut SweepTx, days: u16, limit: i64) -> StoreResult<u64> {
    let gone = sqlx::query!(
        "DELETE FROM chat.generations WHERE id IN (
             SELECT id FROM chat.generations
             WHERE id < chat.uuid7_floor(now() - $1 * interval '1 day') AND finished_at < now() - $1 * interval '1 day'
             ORDER BY id LIMIT $2)",
        f64::from(days),
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(gone.rows_affected())
}

/// Removes opinions on messages from before the period, at most `limit` of them. Returns how many went.
///
/// # Errors
/// When the database fails.
pub async fn expire_feedback(tx: &mut SweepTx, days: u16, limit: i64) -> StoreResult<u64> {
    let gone = sqlx::query!(
        "DELETE FROM chat.feedback WHERE message_id IN (
             SELECT message_id FROM chat.feedback WHERE message_id < chat.uuid7_floor(now() - $1 * interval '1 day')
             ORDER BY message_id LIMIT $2)",
        f64::from(days),
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(gone.rows_affected())
}

/// Removes summaries that were made before the period, at most `limit` of them; of a conversation that goes on, a newer
/// one was made since. Returns how many went.
///
/// # Errors
/// When the database fails.
pub async fn expire_summaries(tx: &mut SweepTx, days: u16, limit: i64) -> StoreResult<u64> {
    let gone = sqlx::query!(
        "DELETE FROM chat.conversation_summaries WHERE (conversation_id, version) IN (
             SELECT conversation_id, version FROM chat.conversation_summaries
             WHERE created_at < now() - $1 * interval '1 day' ORDER BY created_at LIMIT $2)",
        f64::from(days),
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(gone.rows_affected())
}

/// What a look at old conversations found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Conversations that went, with all that belonged to them.
    pub expired: u64,
    /// Where the next look begins; none when all have been looked at.
    pub next: Option<Uuid>,
}

/// Looks at `limit` conversations that were begun before the period, from the one after `after` on, and removes those in
/// which nothing has happened since. The others stay, so the next look must begin behind them.
///
/// # Errors
/// When the database fails.
pub async fn expire_conversations(
    tx: &mut SweepTx,
    days: u16,
    after: Uuid,
    limit: i64,
) -> StoreResult<Looked> {
    let row = sqlx::query!(
        r#"WITH looked AS MATERIALIZED (
               SELECT c.id, c.last_activity_at < now() - $2 * interval '1 day'
                            AND NOT EXISTS (SELECT FROM chat.generations g WHERE g.conversation_id = c.id
                                            AND g.status IN ('queued', 'in_progress')) AS is_over
               FROM chat.conversations c
               WHERE c.id > $1 AND c.id < chat.uuid7_floor(now() - $2 * interval '1 day') ORDER BY c.id LIMIT $3
           ), gone AS (
               DELETE FROM chat.conversations c USING looked l
               WHERE c.id = l.id AND l.is_over AND c.last_activity_at < now() - $2 * interval '1 day'
               RETURNING c.id
           )
           SELECT (SELECT count(*) FROM looked) AS "looked!", (SELECT count(*) FROM gone) AS "expired!",
                  (SELECT l.id FROM looked l ORDER BY l.id DESC LIMIT 1) AS last"#,
        after,
        f64::from(days),
        limit,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Looked {
        expired: u64::try_from(row.expired).unwrap_or(0),
        next: row.last.filter(|_| row.looked == limit),
    })
}
