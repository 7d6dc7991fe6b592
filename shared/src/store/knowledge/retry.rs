//! Trying again what an upload left behind: texts that were refused, or for which there was no provider.

use uuid::Uuid;

use crate::store::{StoreResult, UserTx};

/// Queues an upload again that completed with errors, for the rows that begin on these lines or for all that
/// failed. Returns whether there was anything to try again.
///
/// # Errors
/// When the database fails.
pub async fn retry(tx: &mut UserTx, id: Uuid, lines: Option<&[i32]>) -> StoreResult<bool> {
    let ended = sqlx::query_scalar!(
        "SELECT i.collection FROM chat.knowledge_ingestions i
         WHERE i.id = $1 AND i.kind = 'upload' AND i.status = 'completed_with_errors' FOR NO KEY UPDATE",
        id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(collection) = ended else {
        return Ok(false);
    };
    let cleared = sqlx::query!(
        "UPDATE chat.knowledge_chunks c SET embed_error = NULL
         FROM chat.knowledge_rows r JOIN chat.knowledge_documents d ON d.collection = $3 AND d.key = r.key
         WHERE r.ingestion_id = $1 AND r.outcome = 'failed' AND ($2::integer[] IS NULL OR r.line = ANY ($2))
           AND c.document_id = d.id AND c.ingestion_id = $1 AND c.embed_error IS NOT NULL",
        id,
        lines,
        collection,
    )
    .execute(tx.conn())
    .await?;
    let cleared = i32::try_from(cleared.rows_affected()).unwrap_or(i32::MAX);
    // Lines that did not fail are no reason to begin.
    if cleared == 0 && lines.is_some() {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE chat.knowledge_rows r SET outcome = 'changed', reason = NULL
         WHERE r.ingestion_id = $1 AND r.outcome = 'failed' AND ($2::integer[] IS NULL OR r.line = ANY ($2))",
        id,
        lines,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE chat.knowledge_ingestions
         SET status = 'queued', attempt = 0, run_at = now(), finished_at = NULL, problem = NULL, updated_at = now(),
             chunks_failed = GREATEST(0, chunks_failed - $2)
         WHERE id = $1",
        id,
        cleared,
    )
    .execute(tx.conn())
    .await?;
    Ok(true)
}
