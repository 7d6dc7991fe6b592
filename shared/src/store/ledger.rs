//! The ledger: one row per upstream call, whatever became of it.

use rust_decimal::Decimal;
use serde_json::value::RawValue;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreResult, SweepTx, UserTx};

/// A call that began.
#[derive(Clone, Debug)]
pub struct CallStarted {
    /// UUIDv7 of the row.
    pub id: Uuid,
    /// The generation it serves.
    pub generation_id: Uuid,
    /// The attempt that made it.
    pub attempt: i32,
    /// `completion` or `title`.
    pub operation: &'static str,
    /// Which key paid, never the key.
    pub key_label: String,
    /// The model asked for.
    pub model_asked: String,
    /// The upstream's id of the call, once known.
    pub upstream_id: Option<String>,
    /// When the request went out.
    pub started_at: OffsetDateTime,
}

/// A call that ended.
#[derive(Clone, Debug)]
pub struct CallEnded {
    /// What the call began as; the row is made now if that was not stored.
    pub started: CallStarted,
    /// The model that answered.
    pub model_served: Option<String>,
    /// `completed`, or the class of the error.
    pub outcome: &'static str,
    /// Tokens read, where the upstream said.
    pub prompt_tokens: Option<i32>,
    /// Tokens written, where the upstream said.
    pub completion_tokens: Option<i32>,
    /// NULL is unknown and never 0.
    pub cost_credits: Option<Decimal>,
    /// The upstream's usage, as it came.
    pub usage: Option<Box<RawValue>>,
    /// Whether no reply came of it.
    pub wasted: bool,
    /// When the first token came.
    pub first_token_at: Option<OffsetDateTime>,
    /// When it ended.
    pub finished_at: OffsetDateTime,
}

/// A call that is running, as noted until it ends.
#[derive(Clone, Debug)]
pub struct RunningCall {
    /// UUIDv7 of the row.
    pub id: Uuid,
    /// Whose generation it serves.
    pub user_id: Uuid,
    /// The generation it serves.
    pub generation_id: Uuid,
    /// The attempt that made it.
    pub attempt: i32,
    /// `completion` or `title`.
    pub operation: &'static str,
    /// Which key paid, never the key.
    pub key_label: String,
    /// The model asked for.
    pub model_asked: String,
    /// The upstream's id of the call.
    pub upstream_id: String,
    /// When the request went out.
    pub started_at: OffsetDateTime,
}

/// Notes that calls began, all in one statement. Those whose end is booked already stay as they are.
/// In the order of their ids, as the statement that books the ends of many has them: the two would
/// wait for each other otherwise.
///
/// # Errors
/// When the database fails.
pub async fn started(tx: &mut SweepTx, calls: &[RunningCall]) -> StoreResult<()> {
    let ids: Vec<Uuid> = calls.iter().map(|call| call.id).collect();
    let users: Vec<Uuid> = calls.iter().map(|call| call.user_id).collect();
    let generations: Vec<Uuid> = calls.iter().map(|call| call.generation_id).collect();
    let attempts: Vec<i32> = calls.iter().map(|call| call.attempt).collect();
    let operations: Vec<String> = calls.iter().map(|call| call.operation.to_owned()).collect();
    let keys: Vec<String> = calls.iter().map(|call| call.key_label.clone()).collect();
    let models: Vec<String> = calls.iter().map(|call| call.model_asked.clone()).collect();
    let upstream_ids: Vec<String> = calls.iter().map(|call| call.upstream_id.clone()).collect();
    let times: Vec<OffsetDateTime> = calls.iter().map(|call| call.started_at).collect();
    sqlx::query!(
        "INSERT INTO chat.attempts
             (id, user_id, generation_id, attempt, operation, key_label, model_asked, upstream_id, started_at)
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::integer[], $5::text[], $6::text[],
                              $7::text[], $8::text[], $9::timestamptz[]) AS c (id)
         ORDER BY c.id
         ON CONFLICT DO NOTHING",
        &ids,
        &users,
        &generations,
        &attempts,
        &operations,
        &keys,
        &models,
        &upstream_ids,
        &times,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes how a call ended, and that its cost is to be asked for where it may have one that is not known.
/// May run twice.
///
/// # Errors
/// When the database fails.
pub async fn ended(tx: &mut UserTx, call: &CallEnded) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "WITH question AS (
             INSERT INTO chat.cost_questions AS q (call_id, user_id, upstream_id, ask_at)
             SELECT $1::uuid, $2::uuid, $8::text, now() + interval '2 seconds'
             WHERE $16::boolean AND $14::numeric IS NULL AND $8::text IS NOT NULL
             ON CONFLICT (call_id) DO UPDATE SET ask_at = least(q.ask_at, EXCLUDED.ask_at)
         )
         INSERT INTO chat.attempts AS a
             (id, user_id, generation_id, attempt, operation, key_label, model_asked, upstream_id, started_at,
              model_served, outcome, prompt_tokens, completion_tokens, cost_credits, usage, wasted, first_token_at,
              finished_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
         ON CONFLICT (id) DO UPDATE
         SET model_served = EXCLUDED.model_served, outcome = EXCLUDED.outcome, upstream_id = EXCLUDED.upstream_id,
             prompt_tokens = COALESCE(EXCLUDED.prompt_tokens, a.prompt_tokens),
             completion_tokens = COALESCE(EXCLUDED.completion_tokens, a.completion_tokens),
             cost_credits = COALESCE(EXCLUDED.cost_credits, a.cost_credits), usage = EXCLUDED.usage, wasted = EXCLUDED.wasted,
             first_token_at = EXCLUDED.first_token_at, finished_at = EXCLUDED.finished_at",
        call.started.id,
        user_id,
        call.started.generation_id,
        call.started.attempt,
        call.started.operation,
        call.started.key_label,
        call.started.model_asked,
        call.started.upstream_id,
        call.started.started_at,
        call.model_served,
        call.outcome,
        call.prompt_tokens,
        call.completion_tokens,
        call.cost_credits,
        call.usage.as_deref().map(Json) as _,
        call.wasted,
        call.first_token_at,
        call.finished_at,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What a call used that is not a reply.
#[derive(Clone, Debug)]
pub struct Used<'a> {
    /// The id of the call, which the row of its usage shares.
    pub id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The generation.
    pub generation_id: Uuid,
    /// `completion`, `title` or `summary`.
    pub operation: &'static str,
    /// What it took.
    pub usage: &'a crate::domain::Usage,
    /// Whether nothing came of it.
    pub wasted: bool,
}

/// Books what a call used whose answer is stored elsewhere or nowhere: that of a summary, that of a fenced
/// attempt, or a call that failed or was dropped after the upstream had taken it. May run twice.
///
/// # Errors
/// When the database fails.
pub async fn used(tx: &mut UserTx, used: &Used<'_>) -> StoreResult<()> {
    let user_id = tx.user_id();
    let usage = used.usage;
    sqlx::query!(
        "INSERT INTO chat.usage_tracking
             (id, user_id, conversation_id, generation_id, operation, model, prompt_tokens, completion_tokens,
              cached_tokens, reasoning_tokens, cost_credits, is_free_model, wasted, processing_time_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT (id) DO NOTHING",
        used.id,
        user_id,
        used.conversation_id,
        used.generation_id,
        used.operation,
        usage.model,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.cost_credits,
        usage.is_free_model,
        used.wasted,
        usage.processing_time_ms,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
