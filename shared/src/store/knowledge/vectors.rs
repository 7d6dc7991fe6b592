//! Vectors of texts, stored as they come, guarded by the claim on their ingestion.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::ingest::hold;
use super::ingestions::Held;
use crate::store::{StoreResult, UserTx};

/// A text that a profile has no vector of.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The chunk.
    pub id: Uuid,
    /// Its text.
    pub content: String,
}

/// The next texts of an ingestion that have no vector of the profile, after `after`. Texts that another
/// chunk has a vector of get a copy of it first; OFFSET 0 has them looked up by their text, because
/// without statistics all vectors of the profile would be read for each of them.
///
/// # Errors
/// When the database fails.
pub async fn missing(
    tx: &mut UserTx,
    held: &Held,
    profile_id: Uuid,
    after: Uuid,
    limit: i64,
) -> StoreResult<Option<Vec<Missing>>> {
    if !hold(tx, held).await? {
        return Ok(None);
    }
    let copied = sqlx::query!(
        "INSERT INTO chat.knowledge_vectors (profile_id, chunk_id, collection, embedding)
         SELECT $2, c.id, c.collection, t.embedding
         FROM (SELECT c.id, c.collection, c.text_hash FROM chat.knowledge_chunks c
               WHERE c.ingestion_id = $1 AND c.id > $3 AND c.embed_error IS NULL
                 AND NOT EXISTS (SELECT FROM chat.knowledge_vectors v WHERE v.profile_id = $2 AND v.chunk_id = c.id)
               ORDER BY c.id LIMIT $4) c
         CROSS JOIN LATERAL (
             SELECT v.embedding FROM (
                 SELECT o.id FROM chat.knowledge_chunks o WHERE o.text_hash = c.text_hash OFFSET 0) o
             JOIN chat.knowledge_vectors v ON v.profile_id = $2 AND v.chunk_id = o.id LIMIT 1) t
         ON CONFLICT DO NOTHING",
        held.id,
        profile_id,
        after,
        limit,
    )
    .execute(tx.conn())
    .await?;
    note(
        tx,
        held,
        i32::try_from(copied.rows_affected()).unwrap_or(i32::MAX),
        0,
        None,
    )
    .await?;
    let missing = sqlx::query_as!(
        Missing,
        "SELECT c.id, c.content FROM chat.knowledge_chunks c
         WHERE c.ingestion_id = $1 AND c.id > $3 AND c.embed_error IS NULL
           AND NOT EXISTS (SELECT FROM chat.knowledge_vectors v WHERE v.profile_id = $2 AND v.chunk_id = c.id)
         ORDER BY c.id LIMIT $4",
        held.id,
        profile_id,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Some(missing))
}

/// Counts the texts that are to be embedded, once, when their number is known.
///
/// # Errors
/// When the database fails.
pub async fn count(tx: &mut UserTx, held: &Held, profile_id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.knowledge_ingestions i
         SET chunks_total = i.chunks_embedded + i.chunks_failed + (
                 SELECT count(*) FROM chat.knowledge_chunks c
                 WHERE c.ingestion_id = $1 AND c.embed_error IS NULL AND NOT EXISTS (
                     SELECT FROM chat.knowledge_vectors v WHERE v.profile_id = $3 AND v.chunk_id = c.id)),
             updated_at = now()
         WHERE i.id = $1 AND i.claim_token = $2",
        held.id,
        held.token,
        profile_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What a call took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Tokens that the provider charged.
    pub tokens: i64,
    /// NULL is unknown and never 0.
    pub cost: Option<Decimal>,
}

/// Stores vectors, each in the form pgvector reads. Returns whether the claim is ours; otherwise nothing is
/// stored.
///
/// # Errors
/// When the database fails.
pub async fn store(
    tx: &mut UserTx,
    held: &Held,
    profile_id: Uuid,
    chunks: &[Uuid],
    vectors: &[String],
    spent: Spent,
) -> StoreResult<bool> {
    if !hold(tx, held).await? {
        return Ok(false);
    }
    sqlx::query!(
        "INSERT INTO chat.knowledge_vectors (profile_id, chunk_id, collection, embedding)
         SELECT $1, c.id, c.collection, n.vector::halfvec
         FROM unnest($2::uuid[], $3::text[]) n (id, vector) JOIN chat.knowledge_chunks c ON c.id = n.id
         ON CONFLICT DO NOTHING",
        profile_id,
        chunks,
        vectors,
    )
    .execute(tx.conn())
    .await?;
    let embedded = i32::try_from(chunks.len()).unwrap_or(i32::MAX);
    note(tx, held, embedded, spent.tokens, spent.cost).await?;
    Ok(true)
}

/// Notes that the provider refused a text, which is then found by its words alone. Returns whether the
/// claim is ours.
///
/// # Errors
/// When the database fails.
pub async fn refuse(tx: &mut UserTx, held: &Held, chunk: Uuid, reason: &str) -> StoreResult<bool> {
    if !hold(tx, held).await? {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE chat.knowledge_chunks SET embed_error = $2 WHERE id = $1",
        chunk,
        reason
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE chat.knowledge_rows r SET outcome = 'failed', reason = $3
         FROM chat.knowledge_chunks c JOIN chat.knowledge_documents d ON d.id = c.document_id
         WHERE c.id = $2 AND r.ingestion_id = $1 AND r.key = d.key AND r.outcome IN ('new', 'changed')",
        held.id,
        chunk,
        reason,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE chat.knowledge_ingestions SET chunks_failed = chunks_failed + 1, updated_at = now() WHERE id = $1",
        held.id
    )
    .execute(tx.conn())
    .await?;
    Ok(true)
}

pub(super) async fn note(
    tx: &mut UserTx,
    held: &Held,
    embedded: i32,
    tokens: i64,
    cost: Option<Decimal>,
) -> StoreResult<()> {
    if embedded == 0 {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE chat.knowledge_ingestions
         SET chunks_embedded = chunks_embedded + $2, tokens = tokens + $3, problem = NULL, updated_at = now(),
             cost_credits = CASE WHEN $4::numeric IS NULL THEN cost_credits ELSE COALESCE(cost_credits, 0) + $4 END
         WHERE id = $1",
        held.id,
        embedded,
        tokens,
        cost,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
