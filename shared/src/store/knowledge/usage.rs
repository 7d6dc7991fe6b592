//! What embedding takes, for the owner of the cost.

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::store::{StoreResult, UserTx};

/// Somebody's part of an embedding call.
#[derive(Clone, Copy, Debug)]
pub struct Embedding<'a> {
    /// UUIDv7 of the usage row.
    pub id: Uuid,
    /// The model.
    pub model: &'a str,
    /// Tokens charged.
    pub tokens: i32,
    /// NULL is unknown and never 0.
    pub cost: Option<Decimal>,
    /// How long the call took.
    pub processing_time_ms: i32,
}

/// Books it for the person of the transaction.
///
/// # Errors
/// When the database fails.
pub async fn embedding(tx: &mut UserTx, used: &Embedding<'_>) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "INSERT INTO chat.usage_tracking (id, user_id, operation, model, prompt_tokens, completion_tokens, cost_credits,
                                          is_free_model, processing_time_ms)
         VALUES ($1, $2, 'embedding', $3, $4, 0, $5, false, $6) ON CONFLICT (id) DO NOTHING",
        used.id,
        user_id,
        used.model,
        used.tokens,
        used.cost,
        used.processing_time_ms,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
