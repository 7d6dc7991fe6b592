//! The one transaction that ends an attempt with a result.

use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    ContentType, FailureCode, GenerationKind, Message, Priority, SenderType, Usage, estimate_tokens,
};
use crate::store::{StoreResult, UserTx};

/// A reply to store.
#[derive(Clone, Debug)]
pub struct Finish<'a> {
    /// The generation.
    pub id: Uuid,
    /// The token of the attempt that made it.
    pub token: Uuid,
    /// The id of the reply; sorts after the message it answers.
    pub reply_id: Uuid,
    /// The id of the usage row.
    pub usage_id: Uuid,
    /// The id of a title's generation, should one be due.
    pub title_generation_id: Uuid,
    /// The text.
    pub content: &'a str,
    /// Whether the model was cut at its token limit.
    pub incomplete: bool,
    /// What it took.
    pub usage: &'a Usage,
    /// When the first token came, in milliseconds before now.
    pub first_token_ms_ago: Option<i32>,
    /// What to tell with the reply.
    pub metadata: &'a Value,
}

/// The generation to wake next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The generation.
    pub id: Uuid,
    /// Its queue.
    pub priority: Priority,
}

/// What became of a reply.
#[derive(Debug)]
pub enum Finished {
    /// Stored, once the transaction commits.
    Stored {
        /// The reply.
        message: Box<Message>,
        /// The conversation's next queued generation.
        next: Option<Next>,
        /// The title's generation that was queued with it.
        title: Option<Next>,
    },
    /// The claim is no longer ours: cancelled, or a newer attempt owns the row.
    Fenced,
}

/// Stores the reply, its usage and the end of the generation, guarded by the token.
///
/// # Errors
/// When the database fails. The outcome of a failed commit is unknown: see [`is_finished_by`].
pub async fn finish(tx: &mut UserTx, finish: &Finish<'_>) -> StoreResult<Finished> {
    let user_id = tx.user_id();
    let usage = finish.usage;
    let row = sqlx::query!(
        r#"WITH done AS (
               UPDATE chat.generations g
               SET status = CASE WHEN $3::boolean THEN 'incomplete' ELSE 'completed' END, claim_token = NULL,
                   lease_until = NULL, assistant_message_id = $4, finished_at = clock_timestamp(),
                   first_token_at = clock_timestamp() - $5 * interval '1 millisecond', usage = $6, model = $7,
                   is_free_model = $8, error_detail = NULL
               WHERE g.id = $1 AND g.claim_token = $2 AND g.user_id = $9
               RETURNING g.conversation_id, g.user_message_id, g.kind, g.context_type, g.model_chain, g.max_attempts, g.request_id,
                         g.traceparent
           ), reply AS (
               INSERT INTO chat.messages (id, user_id, conversation_id, sender_type, content, metadata,
                                          parent_message_id, token_count)
               SELECT $4, $9, d.conversation_id, 'assistant', $10, $11, d.user_message_id, $12 FROM done d
           ), used AS (
               INSERT INTO chat.usage_tracking (id, user_id, conversation_id, generation_id, operation, model,
                                                prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,
                                                cost_credits, is_free_model, processing_time_ms)
               SELECT $13, $9, d.conversation_id, $1, 'completion', $7, $14, $15, $16, $17, $18, $8, $19 FROM done d
           ), conversation AS (
               UPDATE chat.conversations c
               SET message_count = c.message_count + 1, last_id = GREATEST(c.last_id, $4, $20),
                   last_message_at = now(), last_activity_at = now(), updated_at = now()
               FROM done d WHERE c.id = d.conversation_id
               RETURNING c.title_is_default AND c.status = 'active' AND d.kind = 'reply' AS untitled
           ), title AS (
               INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain,
                                             model, is_free_model, stream, user_message_id, max_attempts, deadline_at,
                                             request_id, traceparent)
               SELECT $20, $9, d.conversation_id, 'title', d.context_type, 'background', d.model_chain, d.model_chain -> 0 ->> 'name',
                      (d.model_chain -> 0 ->> 'free')::boolean, false, d.user_message_id, 3,
                      now() + interval '10 minutes', d.request_id, d.traceparent
               FROM done d, conversation c
               WHERE c.untitled AND NOT EXISTS (
                   SELECT FROM chat.generations t WHERE t.conversation_id = d.conversation_id AND t.kind = 'title'
                     AND t.status IN ('queued', 'in_progress'))
               RETURNING id
           )
           SELECT d.conversation_id, d.user_message_id, d.kind AS "kind: GenerationKind",
                  now() AS "now!: OffsetDateTime",
                  (SELECT t.id FROM title t) AS title_id, n.id AS "next_id?", n.priority AS "next_priority?: Priority"
           FROM done d LEFT JOIN LATERAL (
               SELECT q.id, q.priority FROM chat.generations q
               WHERE q.conversation_id = d.conversation_id AND q.status IN ('queued', 'in_progress')
                 AND q.kind <> 'title' AND q.id <> $1
               ORDER BY q.id LIMIT 1
           ) n ON true"#,
        finish.id,
        finish.token,
        finish.incomplete,
        finish.reply_id,
        finish.first_token_ms_ago.map(f64::from),
        Json(usage) as _,
        usage.model,
        usage.is_free_model,
        user_id,
        finish.content,
        finish.metadata,
        i32::try_from(estimate_tokens(finish.content)).unwrap_or(i32::MAX),
        finish.usage_id,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.cost_credits,
        usage.processing_time_ms,
        finish.title_generation_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else {
        return Ok(Finished::Fenced);
    };
    // A statement of its own: in the one above it would look into every partition for each reply.
    if row.kind == GenerationKind::Regenerate {
        sqlx::query!(
            "UPDATE chat.messages m SET superseded_by = $1
             WHERE m.conversation_id = $2 AND m.id > $2 AND m.id <> $1 AND m.user_id = $4
               AND m.parent_message_id = $3 AND m.sender_type = 'assistant' AND m.superseded_by IS NULL",
            finish.reply_id,
            row.conversation_id,
            row.user_message_id,
            user_id,
        )
        .execute(tx.conn())
        .await?;
    }
    let message = Message {
        id: finish.reply_id,
        conversation_id: row.conversation_id,
        sender_type: SenderType::Assistant,
        content: finish.content.to_owned(),
        content_type: ContentType::Text,
        attachments: Vec::new(),
        metadata: finish.metadata.clone(),
        parent_message_id: row.user_message_id,
        superseded_by: None,
        created_at: row.now,
    };
    let next = row
        .next_id
        .zip(row.next_priority)
        .map(|(id, priority)| Next { id, priority });
    let title = row.title_id.map(|id| Next {
        id,
        priority: Priority::Background,
    });
    Ok(Finished::Stored {
        message: Box::new(message),
        next,
        title,
    })
}

/// What became of a title.
#[derive(Debug)]
pub enum TitleFinished {
    /// The generation is complete; the title was set unless the person had set one.
    Stored(Option<Box<crate::domain::Conversation>>),
    /// The claim is no longer ours.
    Fenced,
}

/// Stores a generated title with its usage, guarded by the token. The id of the usage row and the
/// cleaned title are the caller's.
///
/// # Errors
/// When the database fails.
pub async fn finish_title(
    tx: &mut UserTx,
    id: Uuid,
    token: Uuid,
    usage_id: Uuid,
    usage: &Usage,
    title: Option<&str>,
) -> StoreResult<TitleFinished> {
    let user_id = tx.user_id();
    let done = sqlx::query!(
        r#"WITH done AS (
               UPDATE chat.generations g
               SET status = 'completed', claim_token = NULL, lease_until = NULL, finished_at = clock_timestamp(),
                   usage = $3, model = $4, is_free_model = $5
               WHERE g.id = $1 AND g.claim_token = $2 AND g.user_id = $6
               RETURNING g.conversation_id
           ), used AS (
               INSERT INTO chat.usage_tracking (id, user_id, conversation_id, generation_id, operation, model,
                                                prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,
                                                cost_credits, is_free_model, processing_time_ms)
               SELECT $7, $6, d.conversation_id, $1, 'title', $4, $8, $9, $10, $11, $12, $5, $13 FROM done d
           )
           SELECT conversation_id FROM done"#,
        id,
        token,
        Json(usage) as _,
        usage.model,
        usage.is_free_model,
        user_id,
        usage_id,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.cost_credits,
        usage.processing_time_ms,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(done) = done else {
        return Ok(TitleFinished::Fenced);
    };
    let conversation = match title {
        Some(title) => {
            crate::store::conversations::set_generated_title(tx, done.conversation_id, title)
                .await?
        }
        None => None,
    };
    Ok(TitleFinished::Stored(conversation.map(Box::new)))
}

/// What became of a failure.
#[derive(Debug)]
pub enum Failed {
    /// Stored, once the transaction commits, with the conversation's next queued generation.
    Stored(Option<Next>),
    /// The claim is no longer ours.
    Fenced,
}

/// Ends a generation without a reply, guarded by the token. `detail` is for operators.
///
/// # Errors
/// When the database fails.
pub async fn fail(
    tx: &mut UserTx,
    id: Uuid,
    token: Uuid,
    code: FailureCode,
    detail: &str,
) -> StoreResult<Failed> {
    let user_id = tx.user_id();
    let row = sqlx::query!(
        r#"WITH done AS (
               UPDATE chat.generations g
               SET status = 'failed', claim_token = NULL, lease_until = NULL, finished_at = clock_timestamp(),
                   error_code = $3, error_detail = $4
               WHERE g.id = $1 AND g.claim_token = $2 AND g.user_id = $5
               RETURNING g.conversation_id
           )
           SELECT n.id AS "next_id?", n.priority AS "next_priority?: Priority"
           FROM done d LEFT JOIN LATERAL (
               SELECT q.id, q.priority FROM chat.generations q
               WHERE q.conversation_id = d.conversation_id AND q.status IN ('queued', 'in_progress')
                 AND q.kind <> 'title' AND q.id <> $1
               ORDER BY q.id LIMIT 1
           ) n ON true"#,
        id,
        token,
        code as _,
        detail,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(match row {
        Some(row) => Failed::Stored(
            row.next_id
                .zip(row.next_priority)
                .map(|(id, priority)| Next { id, priority }),
        ),
        None => Failed::Fenced,
    })
}

/// Whether the generation ended with just this reply: tells a commit whose answer was lost from a
/// claim that was lost.
///
/// # Errors
/// When the database fails.
pub async fn is_finished_by(tx: &mut UserTx, id: Uuid, reply_id: Uuid) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let found = sqlx::query_scalar!(
        "SELECT 1 AS one FROM chat.generations WHERE id = $1 AND assistant_message_id = $2 AND user_id = $3",
        id,
        reply_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}
