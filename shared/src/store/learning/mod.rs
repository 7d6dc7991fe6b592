//! What the help desk learns from: questions and what became of them, and what people answered in its place.
//!
//! Both hold words of people, without what could name somebody ([`crate::desk::mask`]). They are theirs, by
//! row-level security; only an [`EditorTx`](super::EditorTx) reads those of others. They go with their
//! conversation, and when the retention period is over.

pub mod proposals;
pub mod questions;

use super::{StoreResult, SweepTx};

/// Removes what is older than so many days, at most `limit` rows of each kind. Returns how many went.
///
/// # Errors
/// When the database fails.
pub async fn expire(tx: &mut SweepTx, days: u16, limit: i64) -> StoreResult<u64> {
    let questions = sqlx::query!(
        "DELETE FROM chat.support_questions WHERE message_id IN (
             SELECT message_id FROM chat.support_questions
             WHERE message_id < chat.uuid7_floor(now() - $1 * interval '1 day') ORDER BY message_id LIMIT $2)",
        f64::from(days),
        limit,
    )
    .execute(tx.conn())
    .await?;
    let proposals = sqlx::query!(
        "DELETE FROM chat.knowledge_proposals WHERE id IN (
             SELECT id FROM chat.knowledge_proposals
             WHERE id < chat.uuid7_floor(now() - $1 * interval '1 day') ORDER BY id LIMIT $2)",
        f64::from(days),
        limit,
    )
    .execute(tx.conn())
    .await?;
    Ok(questions.rows_affected() + proposals.rows_affected())
}
