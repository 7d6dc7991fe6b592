//! Embedding profiles: which model's vectors are searched, and which are being built.

use uuid::Uuid;

use crate::domain::EmbeddingProfile;
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
