//! Embedding profiles: which model's vectors are searched, and which are being built.

use uuid::Uuid;

use crate::domain::{EmbeddingProfile, KnowledgeProfile, ProfileState};
use crate::store::{StoreResult, UserTx};

/// A profile to be made.
#[derive(Clone, Debug)]
pub struct NewProfile<'a> {
    /// UUIDv7.
    pub id: Uuid,
    /// Who serves the model.
    pub provider: &'a str,
    /// The model.
    pub model: &'a str,
    /// Numbers in a vector.
    pub dimension: i32,
}

macro_rules! profile_query {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            EmbeddingProfile,
            "SELECT p.id, p.provider, p.model, p.dimension, p.query_prefix, p.document_prefix, p.word_weight,
                    p.vector_weight, p.threshold
             FROM chat.knowledge_profiles p " + $tail $(, $arg)*
        )
    };
}

/// The profile that is searched.
///
/// # Errors
/// When the database fails.
pub async fn active(tx: &mut UserTx) -> StoreResult<Option<EmbeddingProfile>> {
    Ok(profile_query!("WHERE p.state = 'active'")
        .fetch_optional(tx.conn())
        .await?)
}

/// One profile, unless it is retired.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<EmbeddingProfile>> {
    Ok(
        profile_query!("WHERE p.id = $1 AND p.state <> 'retired'", id)
            .fetch_optional(tx.conn())
            .await?,
    )
}

/// A profile whose vectors may be searched with a vector of its own: the active one, or one that was just
/// replaced.
///
/// # Errors
/// When the database fails.
pub async fn searchable(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<EmbeddingProfile>> {
    Ok(profile_query!(
        "WHERE p.id = $1 AND (p.state = 'active' OR p.state = 'retired' AND p.activated_at IS NOT NULL
                              AND p.retired_at > now() - interval '1 minute')",
        id
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Every profile with what there is of it, newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut UserTx) -> StoreResult<Vec<KnowledgeProfile>> {
    let profiles = sqlx::query_as!(
        KnowledgeProfile,
        r#"SELECT p.id, p.provider, p.model, p.dimension, p.query_prefix, p.document_prefix, p.state AS "state: ProfileState",
                  p.threshold, p.word_weight, p.vector_weight,
                  (SELECT count(*) FROM chat.knowledge_vectors v WHERE v.profile_id = p.id) AS "vectors!",
                  (SELECT count(*) FROM chat.knowledge_refused r WHERE r.profile_id = p.id) AS "refused!",
                  EXISTS (SELECT FROM chat.knowledge_collections c
                          JOIN pg_class i ON i.relname = chat.vector_index_name(p.id, c.name)
                                         AND i.relnamespace = 'chat'::regnamespace
                          JOIN pg_index x ON x.indexrelid = i.oid WHERE x.indisvalid) AS "indexed!",
                  p.created_at, p.activated_at, p.retired_at
           FROM chat.knowledge_profiles p ORDER BY p.created_at DESC, p.id DESC LIMIT 100"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(profiles)
}

/// The profile that is searched, or this one where there is none yet.
///
/// # Errors
/// When the database fails.
pub async fn active_or(
    tx: &mut UserTx,
    new: &NewProfile<'_>,
) -> StoreResult<Option<EmbeddingProfile>> {
    if let Some(profile) = active(tx).await? {
        return Ok(Some(profile));
    }
    sqlx::query!(
        "INSERT INTO chat.knowledge_profiles (id, provider, model, dimension, state, activated_at)
         VALUES ($1, $2, $3, $4, 'active', now()) ON CONFLICT DO NOTHING",
        new.id,
        new.provider,
        new.model,
        new.dimension,
    )
    .execute(tx.conn())
    .await?;
    active(tx).await
}
