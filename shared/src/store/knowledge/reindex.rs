//! Another embedding model: its profile is built beside the one that serves, and swapped in one transaction.
//!
//! **Invariant:** once a profile is active, every text that is committed has a vector of it or one on its way.
//! Whoever stores texts holds the profiles' lock shared until the commit, and a swap holds it alone: so a text
//! is either seen by the swap, or its upload sees the new profile.

use uuid::Uuid;

use super::ingest::hold;
use super::ingestions::{self, Held};
use super::vectors::Missing;
use crate::store::{StoreResult, SweepTx, UserTx};

/// How long the vectors of a model that was replaced are kept, to go back to it at once.
pub const KEPT_DAYS: i32 = 7;

/// The model that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The id of its profile, should it be a new one.
    pub profile_id: Uuid,
    /// The model.
    pub model: &'a str,
    /// Numbers in a vector.
    pub dimension: i32,
    /// Put before a question.
    pub query_prefix: &'a str,
    /// Put before an entry's text.
    pub document_prefix: &'a str,
}

/// What became of a wish for another model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// A worker will build it.
    Queued,
    /// It serves already.
    Serves,
    /// Another one is being built.
    Busy,
}

/// What became of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The new profile serves.
    Done,
    /// Texts came meanwhile that it has no vectors of.
    Incomplete,
    /// The claim is no longer ours.
    Lost,
}

/// Holds the profiles' lock until the transaction ends, with others who store texts.
pub(super) async fn hold_profiles(tx: &mut UserTx) -> StoreResult<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock_shared(hashtext('balas.knowledge.profiles'))")
        .fetch_one(tx.conn())
        .await?;
    Ok(())
}

async fn hold_profiles_alone(tx: &mut UserTx) -> StoreResult<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('balas.knowledge.profiles'))")
        .fetch_one(tx.conn())
        .await?;
    Ok(())
}

/// Queues the building of a profile. One of the same model that served before, or was not completed, is taken
/// up again with the vectors it has; so is the one that serves where it lacks some, as after a restore without
/// them.
///
/// # Errors
/// When the database fails.
pub async fn begin(tx: &mut UserTx, id: Uuid, wanted: &Wanted<'_>) -> StoreResult<Begun> {
    hold_profiles_alone(tx).await?;
    let state = sqlx::query!(
        r#"SELECT
               (SELECT p.id FROM chat.knowledge_profiles p WHERE p.state = 'active' AND p.model = $1 AND p.dimension = $2
                AND p.query_prefix = $3 AND p.document_prefix = $4) AS serves,
               EXISTS (SELECT FROM chat.knowledge_ingestions i
                       WHERE i.kind = 'reindex' AND i.status IN ('queued', 'running')) AS "busy!""#,
        wanted.model,
        wanted.dimension,
        wanted.query_prefix,
        wanted.document_prefix,
    )
    .fetch_one(tx.conn())
    .await?;
    if state.busy {
        return Ok(Begun::Busy);
    }
    if let Some(serves) = state.serves {
        if is_complete(tx, serves).await? {
            return Ok(Begun::Serves);
        }
        return queue(tx, id, serves).await;
    }
    // What an older version left when its work was cancelled.
    sqlx::query!(
        "UPDATE chat.knowledge_profiles SET state = 'retired', retired_at = now() WHERE state = 'building'"
    )
    .execute(tx.conn())
    .await?;
    let profile_id = profile(tx, wanted).await?;
    queue(tx, id, profile_id).await
}

async fn queue(tx: &mut UserTx, id: Uuid, profile_id: Uuid) -> StoreResult<Begun> {
    sqlx::query!(
        "DELETE FROM chat.knowledge_refused WHERE profile_id = $1",
        profile_id
    )
    .execute(tx.conn())
    .await?;
    let user_id = tx.user_id();
    sqlx::query!(
        "INSERT INTO chat.knowledge_ingestions (id, kind, status, collection, profile_id, created_by)
         VALUES ($1, 'reindex', 'queued', 'default', $2, $3)",
        id,
        profile_id,
        user_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(Begun::Queued)
}

async fn profile(tx: &mut UserTx, wanted: &Wanted<'_>) -> StoreResult<Uuid> {
    let known = sqlx::query_scalar!(
        "UPDATE chat.knowledge_profiles p SET state = 'building', retired_at = NULL
         FROM (SELECT o.id FROM chat.knowledge_profiles o
               WHERE o.state = 'retired' AND o.model = $1 AND o.dimension = $2 AND o.query_prefix = $3
                 AND o.document_prefix = $4 ORDER BY o.created_at DESC LIMIT 1) o
         WHERE p.id = o.id RETURNING p.id",
        wanted.model,
        wanted.dimension,
        wanted.query_prefix,
        wanted.document_prefix,
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = known {
        return Ok(id);
    }
    sqlx::query!(
        "INSERT INTO chat.knowledge_profiles (id, provider, model, dimension, query_prefix, document_prefix, state)
         VALUES ($1, COALESCE((SELECT p.provider FROM chat.knowledge_profiles p WHERE p.state = 'active'), 'unknown'),
                 $2, $3, $4, $5, 'building')",
        wanted.profile_id,
        wanted.model,
        wanted.dimension,
        wanted.query_prefix,
        wanted.document_prefix,
    )
    .execute(tx.conn())
    .await?;
    Ok(wanted.profile_id)
}

/// Lets go of the profile that an ingestion built, which has ended without a swap. What it has of vectors stays
/// for the next try.
///
/// # Errors
/// When the database fails.
pub(super) async fn let_go(tx: &mut UserTx, ingestion_id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.knowledge_profiles p SET state = 'retired', retired_at = now()
         FROM chat.knowledge_ingestions i
         WHERE i.id = $1 AND p.id = i.profile_id AND p.state = 'building'",
        ingestion_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The next texts of all collections, after `after`, that the profile has no vector of; none where the claim is
/// lost. Texts that are written alike get a copy of the vector that one of them has.
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
         SELECT $1, c.id, c.collection, t.embedding
         FROM (SELECT c.id, c.collection, c.text_hash FROM chat.knowledge_chunks c
               WHERE c.id > $2
                 AND NOT EXISTS (SELECT FROM chat.knowledge_vectors v WHERE v.profile_id = $1 AND v.chunk_id = c.id)
               ORDER BY c.id LIMIT $3) c
         CROSS JOIN LATERAL (
             SELECT v.embedding FROM (
                 SELECT o.id FROM chat.knowledge_chunks o WHERE o.text_hash = c.text_hash OFFSET 0) o
             JOIN chat.knowledge_vectors v ON v.profile_id = $1 AND v.chunk_id = o.id LIMIT 1) t
         ON CONFLICT DO NOTHING",
        profile_id,
        after,
        limit,
    )
    .execute(tx.conn())
    .await?;
    let copied = i32::try_from(copied.rows_affected()).unwrap_or(i32::MAX);
    super::vectors::note(tx, held, copied, 0, None).await?;
    let missing = sqlx::query_as!(
        Missing,
        "SELECT c.id, c.content FROM chat.knowledge_chunks c
         WHERE c.id > $2
           AND NOT EXISTS (SELECT FROM chat.knowledge_vectors v WHERE v.profile_id = $1 AND v.chunk_id = c.id)
           AND NOT EXISTS (SELECT FROM chat.knowledge_refused r WHERE r.profile_id = $1 AND r.chunk_id = c.id)
         ORDER BY c.id LIMIT $3",
        profile_id,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Some(missing))
}

/// Counts the texts that are to be embedded, and those that were.
///
/// # Errors
/// When the database fails.
pub async fn count(tx: &mut UserTx, held: &Held, profile_id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.knowledge_ingestions i
         SET chunks_total = i.chunks_embedded + i.chunks_failed + (
                 SELECT count(*) FROM chat.knowledge_chunks c
                 WHERE NOT EXISTS (SELECT FROM chat.knowledge_vectors v WHERE v.profile_id = $3 AND v.chunk_id = c.id)
                   AND NOT EXISTS (SELECT FROM chat.knowledge_refused r WHERE r.profile_id = $3 AND r.chunk_id = c.id)),
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

/// Notes that the model refused a text, which will be found by its words alone. Returns whether the claim is
/// ours.
///
/// # Errors
/// When the database fails.
pub async fn refuse(
    tx: &mut UserTx,
    held: &Held,
    profile_id: Uuid,
    chunk: Uuid,
    reason: &str,
) -> StoreResult<bool> {
    if !hold(tx, held).await? {
        return Ok(false);
    }
    let noted = sqlx::query!(
        "INSERT INTO chat.knowledge_refused (profile_id, chunk_id, reason)
         SELECT $1, c.id, $3 FROM chat.knowledge_chunks c WHERE c.id = $2 ON CONFLICT DO NOTHING",
        profile_id,
        chunk,
        reason,
    )
    .execute(tx.conn())
    .await?;
    if noted.rows_affected() == 1 {
        sqlx::query!(
            "UPDATE chat.knowledge_ingestions SET chunks_failed = chunks_failed + 1, updated_at = now() WHERE id = $1",
            held.id
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(true)
}

/// How a profile that is complete stands the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Texts of the knowledge base.
    pub texts: i64,
    /// Those of them that the model refused.
    pub refused: i64,
    /// Texts that were looked for by their own vector.
    pub looked_for: i64,
    /// Those of them that were found first: a model that makes the same of every text finds hardly any.
    pub found: i64,
}

/// Looks some texts up by their own vectors.
///
/// # Errors
/// When the database fails.
pub async fn try_out(tx: &mut UserTx, profile_id: Uuid) -> StoreResult<Tried> {
    let tried = sqlx::query_as!(
        Tried,
        r#"WITH picked AS MATERIALIZED (
               SELECT c.collection, c.text_hash, v.embedding::text AS vector
               FROM chat.knowledge_vectors v JOIN chat.knowledge_chunks c ON c.id = v.chunk_id
               WHERE v.profile_id = $1 ORDER BY v.chunk_id LIMIT 20)
           SELECT (SELECT count(*) FROM chat.knowledge_chunks) AS "texts!",
                  (SELECT count(*) FROM chat.knowledge_refused r WHERE r.profile_id = $1) AS "refused!",
                  (SELECT count(*) FROM picked) AS "looked_for!",
                  (SELECT count(*) FROM picked p WHERE p.text_hash = (
                       SELECT c.text_hash FROM chat.nearest($1, p.vector, p.collection, 1) n
                       JOIN chat.knowledge_chunks c ON c.id = n.chunk_id)) AS "found!""#,
        profile_id,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(tried)
}

/// Whether a profile has a vector of every text that its model takes.
async fn is_complete(tx: &mut UserTx, profile_id: Uuid) -> StoreResult<bool> {
    let complete = sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM chat.knowledge_chunks c
               WHERE NOT EXISTS (SELECT FROM chat.knowledge_vectors v WHERE v.profile_id = $1 AND v.chunk_id = c.id)
                 AND NOT EXISTS (SELECT FROM chat.knowledge_refused r WHERE r.profile_id = $1 AND r.chunk_id = c.id)
           ) AS "complete!""#,
        profile_id,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(complete)
}

/// Lets a profile serve that has a vector of every text, and ends the ingestion that built it.
///
/// # Errors
/// When the database fails.
pub async fn swap(
    tx: &mut UserTx,
    held: &Held,
    profile_id: Uuid,
    problem: Option<&str>,
) -> StoreResult<Swap> {
    if !hold(tx, held).await? {
        return Ok(Swap::Lost);
    }
    hold_profiles_alone(tx).await?;
    // A statement of its own: it sees what was committed before the lock was had.
    if !is_complete(tx, profile_id).await? {
        return Ok(Swap::Incomplete);
    }
    sqlx::query!(
        "UPDATE chat.knowledge_profiles SET state = 'retired', retired_at = now() WHERE state = 'active' AND id <> $1",
        profile_id,
    )
    .execute(tx.conn())
    .await?;
    let active = sqlx::query!(
        "UPDATE chat.knowledge_profiles SET state = 'active', activated_at = now(), retired_at = NULL
         WHERE id = $1 AND state IN ('building', 'active')",
        profile_id,
    )
    .execute(tx.conn())
    .await?;
    if active.rows_affected() == 0 {
        return Ok(Swap::Lost);
    }
    ingestions::finish(tx, held, problem, false).await?;
    Ok(Swap::Done)
}

/// Removes vectors of models that have not served for [`KEPT_DAYS`], at most `limit` of them, and the vectors
/// of questions that are older than `hours`. Returns how many went.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut SweepTx, limit: i64, hours: f64) -> StoreResult<u64> {
    let questions = sqlx::query!(
        "DELETE FROM chat.knowledge_questions WHERE (profile_id, text_hash) IN (
             SELECT q.profile_id, q.text_hash FROM chat.knowledge_questions q
             WHERE q.created_at < now() - $1 * interval '1 hour' ORDER BY q.created_at LIMIT $2)",
        hours,
        limit,
    )
    .execute(tx.conn())
    .await?;
    let available = sqlx::query_scalar!(
        r#"SELECT to_regclass('chat.knowledge_vectors') IS NOT NULL AS "available!""#
    )
    .fetch_one(tx.conn())
    .await?;
    if !available {
        return Ok(questions.rows_affected());
    }
    let vectors = sqlx::query!(
        "DELETE FROM chat.knowledge_vectors WHERE (profile_id, chunk_id) IN (
             SELECT v.profile_id, v.chunk_id FROM chat.knowledge_profiles p
             JOIN chat.knowledge_vectors v ON v.profile_id = p.id
             WHERE p.state = 'retired' AND p.retired_at < now() - $2 * interval '1 day' LIMIT $1)",
        limit,
        f64::from(KEPT_DAYS),
    )
    .execute(tx.conn())
    .await?;
    Ok(questions.rows_affected() + vectors.rows_affected())
}
