//! The slow sweeps: partitions ahead of time, expiry of what is no longer needed.

use super::{StoreResult, SweepTx};

/// Takes the lock under which one worker at a time maintains; false when another has it. It ends
/// with the transaction.
///
/// # Errors
/// When the database fails.
pub async fn try_lock(tx: &mut SweepTx, name: &str) -> StoreResult<bool> {
    let locked = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtext('balas.maintenance'), hashtext($1)) AS "locked!""#,
        name
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(locked)
}

/// Makes the partitions of this month and the next three. Returns how many were missing.
///
/// # Errors
/// When the database fails.
pub async fn ensure_partitions(tx: &mut SweepTx) -> StoreResult<i32> {
    let made = sqlx::query_scalar!(r#"SELECT chat.ensure_partitions() AS "made!""#)
        .fetch_one(tx.conn())
        .await?;
    Ok(made)
}

/// Removes idempotency keys older than 24 hours, at most `limit` of them. Returns how many went.
///
/// # Errors
/// When the database fails.
pub async fn expire_idempotency_keys(tx: &mut SweepTx, limit: i64) -> StoreResult<u64> {
    let expired = sqlx::query!(
        "DELETE FROM chat.idempotency_keys WHERE (user_id, key) IN (
             SELECT user_id, key FROM chat.idempotency_keys
             WHERE created_at < now() - interval '24 hours' ORDER BY created_at LIMIT $1)",
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(expired.rows_affected())
}
