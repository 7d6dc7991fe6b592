//! Vectors of questions that were asked before, by the hash of their text.

use uuid::Uuid;

use crate::store::{StoreResult, UserTx};

/// The vector of a question, if it was asked within `hours`.
///
/// # Errors
/// When the database fails.
pub async fn find(
    tx: &mut UserTx,
    profile_id: Uuid,
    hash: &[u8; 32],
    hours: f64,
) -> StoreResult<Option<Vec<f32>>> {
    let found = sqlx::query_scalar!(
        "SELECT q.embedding FROM chat.knowledge_questions q
         WHERE q.profile_id = $1 AND q.text_hash = $2 AND q.created_at > now() - $3 * interval '1 hour'",
        profile_id,
        hash,
        hours,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found)
}

/// Keeps the vector of a question.
///
/// # Errors
/// When the database fails.
pub async fn keep(
    tx: &mut UserTx,
    profile_id: Uuid,
    hash: &[u8; 32],
    vector: &[f32],
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO chat.knowledge_questions AS q (profile_id, text_hash, embedding) VALUES ($1, $2, $3)
         ON CONFLICT (profile_id, text_hash) DO UPDATE SET embedding = EXCLUDED.embedding, created_at = now()",
        profile_id,
        hash,
        vector,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
