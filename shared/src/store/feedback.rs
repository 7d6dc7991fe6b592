//! What people thought of replies.

use uuid::Uuid;

use super::{StoreResult, UserTx};

/// Stores the rating of a reply; the last one counts.
///
/// # Errors
/// When the database fails.
pub async fn put(
    tx: &mut UserTx,
    message_id: Uuid,
    up: bool,
    comment: Option<&str>,
) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "INSERT INTO chat.feedback (message_id, user_id, rating, comment) VALUES ($1, $2, $3, $4)
         ON CONFLICT (message_id) DO UPDATE
         SET rating = EXCLUDED.rating, comment = EXCLUDED.comment, updated_at = now()",
        message_id,
        user_id,
        if up { "up" } else { "down" },
        comment,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
