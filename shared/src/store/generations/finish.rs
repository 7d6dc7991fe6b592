//! The transactions that end an attempt.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::places::wake;
use crate::domain::{
    ContentType, ContextUse, FailureCode, GenerationKind, Message, Priority, SenderType, Usage,
    safe_tokens,
};
use crate::store::ledger::CallEnded;
use crate::store::{StoreResult, SweepTx, UserTx};

/// A reply to store.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The generation.
    pub id: Uuid,
    /// The token of the attempt that made it.
    pub token: Uuid,
    /// The id of the reply; sorts after the message it answers.
    pub reply_id: Uuid,
    /// The id of the usage row: that of the call.
    pub usage_id: Uuid,
    /// The id of a title's generation, should one be due.
    pub title_generation_id: Uuid,
    /// The text.
    pub content: String,
    /// Whether the model was cut at its token limit.
    pub incomplete: bool,
    /// What it took.
    pub usage: Usage,
    /// How much of the conversation the model was shown; stored with the usage.
    pub context: Option<ContextUse>,
    /// When the first token came, in milliseconds before now.
    pub first_token_ms_ago: Option<i32>,
    /// What to tell with the reply.
    pub metadata: Value,
    /// The upstream call that gave it, for the ledger.
    pub call: Option<CallEnded>,
}

/// The usage as it is stored, with what belongs to the generation beside it.
#[derive(serde::Serialize)]
struct StoredUsage<'a> {
    #[serde(flatten)]
    usage: &'a Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextUse>,
}

impl Finish {
    fn stored_usage(&self) -> StoredUsage<'_> {
        StoredUsage {
            usage: &self.usage,
            context: self.context,
        }
    }

    /// The size of the reply: what the model that wrote it counted, where that can be, and an estimate
    /// otherwise.
    fn token_count(&self) -> i32 {
        let bytes = i32::try_from(self.content.len()).unwrap_or(i32::MAX);
        let told = self
            .usage
            .completion_tokens
            .saturating_sub(self.usage.reasoning_tokens);
        if (bytes / 16..=bytes).contains(&told) && told > 0 {
            return told;
        }
        i32::try_from(safe_tokens(&self.content)).unwrap_or(i32::MAX)
    }
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
        /// What may be claimed now: the conversation's next generation, or whatever of its person has
        /// waited longer for a place.
        next: Vec<Next>,
        /// The title's generation that was queued with it.
        title: Option<Next>,
    },
    /// The claim is no longer ours: cancelled, or a newer attempt owns the row.
    Fenced,
}

struct FinishedRow {
    id: Uuid,
    conversation_id: Uuid,
    user_message_id: Option<Uuid>,
    kind: GenerationKind,
    now: OffsetDateTime,
    title_id: Option<Uuid>,
    next_ids: Vec<Uuid>,
    next_priorities: Vec<Priority>,
}

impl FinishedRow {
    fn stored(self, finish: &Finish) -> Finished {
        let message = Message {
            id: finish.reply_id,
            conversation_id: self.conversation_id,
            sender_type: SenderType::Assistant,
            content: finish.content.clone(),
            content_type: ContentType::Text,
            attachments: Vec::new(),
            metadata: finish.metadata.clone(),
            parent_message_id: self.user_message_id,
            superseded_by: None,
            created_at: self.now,
        };
        Finished::Stored {
            message: Box::new(message),
            next: std::iter::zip(self.next_ids, self.next_priorities)
                .map(|(id, priority)| Next { id, priority })
                .collect(),
            title: self.title_id.map(|id| Next {
                id,
                priority: Priority::Background,
            }),
        }
    }
}

/// The rows are locked before they are changed, in a statement's part of its own, so that it can be
/// said what happens to those that somebody else has locked. Everything about a reply but its text
/// and cost comes from the locked generation.
macro_rules! finish_query {
    ($which:literal, $finishes:expr, $places:expr) => {{
        let finishes: &[&Finish] = $finishes;
        let calls: Vec<Option<&CallEnded>> = finishes.iter().map(|finish| finish.call.as_ref()).collect();
        let usage = |of: fn(&Usage) -> i32| -> Vec<i32> {
            finishes.iter().map(|finish| of(&finish.usage)).collect()
        };
        sqlx::query_as!(
            FinishedRow,
            r#"WITH mine AS MATERIALIZED (
               SELECT n.* FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::boolean[],
                                      $7::float8[], $8::jsonb[], $9::text[], $10::boolean[], $11::text[],
                                      $12::jsonb[], $13::integer[], $14::integer[], $15::integer[], $16::integer[],
                                      $17::integer[], $18::numeric[], $19::integer[], $20::uuid[], $21::text[],
                                      $22::text[], $23::text[], $24::timestamptz[], $25::text[], $26::text[],
                                      $27::integer[], $28::integer[], $29::numeric[], $30::jsonb[],
                                      $31::timestamptz[], $32::timestamptz[])
                    AS n (id, token, reply_id, usage_id, title_generation_id, incomplete, first_token_ms_ago, usage,
                          model, free, content, metadata, token_count, prompt_tokens, completion_tokens,
                          cached_tokens, reasoning_tokens, cost_credits, processing_time_ms, call_id, key_label,
                          model_asked, upstream_id, call_started_at, model_served, call_outcome,
                          call_prompt_tokens, call_completion_tokens, call_cost, call_usage, call_first_token_at,
                          call_finished_at)
               JOIN chat.generations g ON g.id = n.id AND g.claim_token = n.token
               JOIN chat.conversations c ON c.id = g.conversation_id
               "# + $which + r#"
           ), done AS (
               UPDATE chat.generations g
               SET status = CASE WHEN n.incomplete THEN 'incomplete' ELSE 'completed' END, claim_token = NULL,
                   lease_until = NULL, assistant_message_id = n.reply_id, finished_at = clock_timestamp(),
                   first_token_at = clock_timestamp() - n.first_token_ms_ago * interval '1 millisecond',
                   usage = n.usage, model = n.model, is_free_model = n.free, error_detail = NULL
               FROM mine n WHERE g.id = n.id AND g.claim_token = n.token
               RETURNING g.user_id, g.conversation_id, g.user_message_id, g.kind, g.context_type, g.model_chain,
                         g.request_id, g.traceparent, g.attempt, n.*
           ), reply AS (
               INSERT INTO chat.messages (id, user_id, conversation_id, sender_type, content, metadata,
                                          parent_message_id, token_count)
               SELECT d.reply_id, d.user_id, d.conversation_id, 'assistant', d.content, d.metadata,
                      d.user_message_id, d.token_count
               FROM done d
           ), used AS (
               INSERT INTO chat.usage_tracking (id, user_id, conversation_id, generation_id, operation, model,
                                                prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,
                                                cost_credits, is_free_model, processing_time_ms)
               SELECT d.usage_id, d.user_id, d.conversation_id, d.id, 'completion', d.model, d.prompt_tokens,
                      d.completion_tokens, d.cached_tokens, d.reasoning_tokens, d.cost_credits, d.free,
                      d.processing_time_ms
               FROM done d
               ON CONFLICT (id) DO UPDATE SET wasted = false
           ), called AS (
               INSERT INTO chat.attempts AS a
                   (id, user_id, generation_id, attempt, operation, key_label, model_asked, upstream_id, started_at,
                    model_served, outcome, prompt_tokens, completion_tokens, cost_credits, usage, wasted,
                    first_token_at, finished_at)
               SELECT d.call_id, d.user_id, d.id, d.attempt, 'completion', d.key_label, d.model_asked, d.upstream_id,
                      d.call_started_at, d.model_served, d.call_outcome, d.call_prompt_tokens,
                      d.call_completion_tokens, d.call_cost, d.call_usage, false, d.call_first_token_at,
                      d.call_finished_at
               FROM done d WHERE d.call_id IS NOT NULL ORDER BY d.call_id
               ON CONFLICT (id) DO UPDATE
               SET model_served = EXCLUDED.model_served, outcome = EXCLUDED.outcome,
                   upstream_id = EXCLUDED.upstream_id, prompt_tokens = EXCLUDED.prompt_tokens,
                   completion_tokens = EXCLUDED.completion_tokens,
                   cost_credits = COALESCE(EXCLUDED.cost_credits, a.cost_credits),
                   usage = EXCLUDED.usage, wasted = EXCLUDED.wasted, first_token_at = EXCLUDED.first_token_at,
                   finished_at = EXCLUDED.finished_at
           ), conversation AS (
               UPDATE chat.conversations c
               SET message_count = c.message_count + 1,
                   last_id = GREATEST(c.last_id, d.reply_id, d.title_generation_id),
                   last_message_at = now(), last_activity_at = now(), updated_at = now()
               FROM done d WHERE c.id = d.conversation_id
               RETURNING d.id AS generation_id, c.title_is_default AND c.status = 'active' AND d.kind = 'reply' AS untitled
           ), title AS (
               INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain,
                                             model, is_free_model, stream, user_message_id, max_attempts, deadline_at,
                                             request_id, traceparent)
               SELECT d.title_generation_id, d.user_id, d.conversation_id, 'title', d.context_type, 'background',
                      d.model_chain, d.model_chain -> 0 ->> 'name', (d.model_chain -> 0 ->> 'free')::boolean, false,
                      d.user_message_id, 3, now() + interval '10 minutes', d.request_id, d.traceparent
               FROM done d JOIN conversation c ON c.generation_id = d.id
               WHERE c.untitled AND NOT EXISTS (
                   SELECT FROM chat.generations t WHERE t.conversation_id = d.conversation_id AND t.kind = 'title'
                     AND t.status IN ('queued', 'in_progress') OFFSET 0)
               RETURNING id
           ), woken AS MATERIALIZED (
               -- All of `done` is gathered first, so that the function sees it done.
               SELECT w.* FROM (SELECT array_agg(d.user_id) AS people, array_agg(d.conversation_id) AS conversations
                                FROM done d) ended
               CROSS JOIN LATERAL chat.wake(ended.people, ended.conversations, $33) w
           )
           SELECT d.id AS "id!", d.conversation_id, d.user_message_id, d.kind AS "kind: GenerationKind",
                  now() AS "now!: OffsetDateTime", t.id AS "title_id?",
                  ARRAY(SELECT w.generation_id FROM woken w WHERE w.person = d.user_id ORDER BY w.generation_id)
                      AS "next_ids!",
                  ARRAY(SELECT w.queue FROM woken w WHERE w.person = d.user_id ORDER BY w.generation_id)
                      AS "next_priorities!: Vec<Priority>"
           FROM done d LEFT JOIN title t ON t.id = d.title_generation_id"#,
            &finishes.iter().map(|finish| finish.id).collect::<Vec<_>>(),
            &finishes.iter().map(|finish| finish.token).collect::<Vec<_>>(),
            &finishes.iter().map(|finish| finish.reply_id).collect::<Vec<_>>(),
            &finishes.iter().map(|finish| finish.usage_id).collect::<Vec<_>>(),
            &finishes.iter().map(|finish| finish.title_generation_id).collect::<Vec<_>>(),
            &finishes.iter().map(|finish| finish.incomplete).collect::<Vec<_>>(),
            finishes.iter().map(|finish| finish.first_token_ms_ago.map(f64::from)).collect::<Vec<_>>() as _,
            finishes.iter().map(|finish| Json(finish.stored_usage())).collect::<Vec<_>>() as _,
            finishes.iter().map(|finish| finish.usage.model.as_str()).collect::<Vec<_>>() as _,
            &finishes.iter().map(|finish| finish.usage.is_free_model).collect::<Vec<_>>(),
            finishes.iter().map(|finish| finish.content.as_str()).collect::<Vec<_>>() as _,
            finishes.iter().map(|finish| Json(&finish.metadata)).collect::<Vec<_>>() as _,
            &finishes.iter().map(|finish| finish.token_count()).collect::<Vec<_>>(),
            &usage(|usage| usage.prompt_tokens),
            &usage(|usage| usage.completion_tokens),
            &usage(|usage| usage.cached_tokens),
            &usage(|usage| usage.reasoning_tokens),
            finishes.iter().map(|finish| finish.usage.cost_credits).collect::<Vec<_>>() as _,
            &usage(|usage| usage.processing_time_ms),
            calls.iter().map(|call| call.map(|call| call.started.id)).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.map(|call| call.started.key_label.as_str())).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.map(|call| call.started.model_asked.as_str())).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.and_then(|call| call.started.upstream_id.as_deref())).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.map(|call| call.started.started_at)).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.and_then(|call| call.model_served.as_deref())).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.map(|call| call.outcome)).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.and_then(|call| call.prompt_tokens)).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.and_then(|call| call.completion_tokens)).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.and_then(|call| call.cost_credits)).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.and_then(|call| call.usage.as_deref().map(Json))).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.and_then(|call| call.first_token_at)).collect::<Vec<_>>() as _,
            calls.iter().map(|call| call.map(|call| call.finished_at)).collect::<Vec<_>>() as _,
            $places,
        )
    }};
}

/// Stores a reply, its usage, the ledger's row of its call and the end of its generation, guarded by
/// the token. Waits for whoever has locked the rows.
///
/// # Errors
/// When the database fails. The outcome of a failed commit is unknown; the row tells,
/// because the id of the reply is the caller's.
pub async fn finish(tx: &mut SweepTx, finish: &Finish) -> StoreResult<Finished> {
    let places = tx.places();
    let row = finish_query!("FOR NO KEY UPDATE OF g, c", &[finish], places)
        .fetch_optional(tx.conn())
        .await?;
    let Some(row) = row else {
        return Ok(Finished::Fenced);
    };
    // A statement of its own: in the one above it would look into every partition for each reply.
    if row.kind == GenerationKind::Regenerate {
        sqlx::query!(
            "UPDATE chat.messages m SET superseded_by = $1
             WHERE m.conversation_id = $2 AND m.id > $2 AND m.id <> $1
               AND m.parent_message_id = $3 AND m.sender_type = 'assistant' AND m.superseded_by IS NULL",
            finish.reply_id,
            row.conversation_id,
            row.user_message_id,
        )
        .execute(tx.conn())
        .await?;
    }
    Ok(row.stored(finish))
}

/// Stores many replies as [`finish`] does one, in a single statement that waits for nobody: none for
/// a reply whose rows somebody else has locked, for a fenced one, and for one made anew, which takes a
/// second statement. They are to be finished one by one.
///
/// # Errors
/// When the database fails, which may be the fault of a single reply. The outcome of a failed
/// commit is unknown, as with [`finish`].
pub async fn finish_many(
    tx: &mut SweepTx,
    finishes: &[&Finish],
) -> StoreResult<Vec<Option<Finished>>> {
    let places = tx.places();
    let rows = finish_query!(
        "WHERE g.kind <> 'regenerate' FOR NO KEY UPDATE OF g, c SKIP LOCKED",
        finishes,
        places
    )
    .fetch_all(tx.conn())
    .await?;
    let mut rows: HashMap<Uuid, FinishedRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let finished = |finish: &&Finish| {
        let row = rows.remove(&finish.id)?;
        Some(row.stored(finish))
    };
    Ok(finishes.iter().map(finished).collect())
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
    // The conversation before its generations, as whoever deletes it does.
    sqlx::query!(
        "SELECT c.id FROM chat.conversations c
         WHERE c.user_id = $2
           AND c.id = (SELECT g.conversation_id FROM chat.generations g WHERE g.id = $1 AND g.user_id = $2)
         FOR NO KEY UPDATE",
        id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
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
               ON CONFLICT (id) DO UPDATE SET wasted = false
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
    /// Stored, once the transaction commits, and these may be claimed.
    Stored(Vec<Next>),
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
    let conversation_id = sqlx::query_scalar!(
        "UPDATE chat.generations g
         SET status = 'failed', claim_token = NULL, lease_until = NULL, finished_at = clock_timestamp(),
             error_code = $3, error_detail = $4
         WHERE g.id = $1 AND g.claim_token = $2 AND g.user_id = $5
         RETURNING g.conversation_id",
        id,
        token,
        code as _,
        detail,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(conversation_id) = conversation_id else {
        return Ok(Failed::Fenced);
    };
    let places = tx.places();
    let next = wake(tx.conn(), &[user_id], &[conversation_id], places).await?;
    Ok(Failed::Stored(next))
}
