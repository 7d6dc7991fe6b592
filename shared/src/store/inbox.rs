//! What came from the broker: each event is written down in the transaction that does its work, so
//! that a repetition finds it done.

use uuid::Uuid;

use super::{StoreResult, SweepTx, UserTx};

/// Notes an event of this person. False when it has been noted before.
///
/// # Errors
/// When the database fails.
pub async fn note(
    tx: &mut UserTx,
    event_id: &str,
    assessment_id: Uuid,
    kind: &str,
) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let noted = sqlx::query!(
        "INSERT INTO chat.inbound_events (user_id, event_id, assessment_id, type) VALUES ($1, $2, $3, $4)
         ON CONFLICT (user_id, event_id) DO NOTHING",
        user_id,
        event_id,
        assessment_id,
        kind,
    )
    .execute(tx.conn())
    .await?;
    Ok(noted.rows_affected() == 1)
}

/// Forgets events that came more than 30 days ago, at most `limit` of them: no broker repeats them
/// any more. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut SweepTx, limit: i64) -> StoreResult<u64> {
    let forgotten = sqlx::query!(
        "DELETE FROM chat.inbound_events WHERE (user_id, event_id) IN (
             SELECT user_id, event_id FROM chat.inbound_events
             WHERE received_at < now() - interval '30 days' ORDER BY received_at LIMIT $1)",
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(forgotten.rows_affected())
}
