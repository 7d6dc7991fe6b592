//! Failed generations that wait for an operator.
//!
//! A failed generation is a dead letter until it is settled, by a replay or by being discarded. It
//! stays failed either way: its client was told so, and no transition leaves a terminal status.
//!
//! **Rule:** a replay is a generation of its own for the same message, accepted when the operator
//! asks for it. It takes its turn behind everything its conversation has accepted before, sees the
//! history that the first one would have seen, and its reply names the message it answers. Where the
//! message got a reply meanwhile, or one is on its way, there is nothing left to replay.

use serde_json::{Value, json};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::audit::{self, Actor, Entry};
use super::{OperatorTx, StoreResult, UserTx};
use crate::clock::Clock;
use crate::domain::{
    DeadLetter, DeadLetterCount, FailureCode, Generation, GenerationKind, Parked, Priority,
};
use crate::id;
use crate::models::Model;

/// Which dead letters to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only those with this reason.
    pub error_code: Option<FailureCode>,
    /// Only those that were to make this.
    pub kind: Option<GenerationKind>,
    /// Only this person's.
    pub user_id: Option<Uuid>,
    /// Only those accepted before this one.
    pub before: Option<Uuid>,
    /// At most so many.
    pub limit: i64,
}

/// The dead letters, newest accepted first, and whether there are more.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut OperatorTx, filter: &Filter) -> StoreResult<(Vec<DeadLetter>, bool)> {
    let rows = sqlx::query!(
        r#"SELECT g.id, g.user_id, g.conversation_id, g.kind AS "kind: GenerationKind", g.priority AS "queue: Priority",
                  g.model_chain AS "models: Json<Vec<Model>>", g.attempt, g.error_code AS "error_code!: FailureCode",
                  g.error_detail, g.worker_id, g.request_id, g.queued_at,
                  COALESCE(g.finished_at, g.queued_at) AS "failed_at!",
                  floor(extract(epoch FROM now() - COALESCE(g.finished_at, g.queued_at)))::bigint AS "age_seconds!"
           FROM chat.generations g
           WHERE g.status = 'failed' AND g.settled_at IS NULL
             AND ($1::text IS NULL OR g.error_code = $1) AND ($2::text IS NULL OR g.kind = $2)
             AND ($3::uuid IS NULL OR g.user_id = $3) AND ($4::uuid IS NULL OR g.id < $4)
           ORDER BY g.id DESC LIMIT $5"#,
        filter.error_code.map(FailureCode::as_str),
        filter.kind.map(GenerationKind::as_str),
        filter.user_id,
        filter.before,
        filter.limit + 1,
    )
    .fetch_all(tx.conn())
    .await?;
    let has_more = i64::try_from(rows.len()).unwrap_or(i64::MAX) > filter.limit;
    let letters = rows
        .into_iter()
        .take(usize::try_from(filter.limit).unwrap_or(0))
        .map(|row| DeadLetter {
            id: row.id,
            user_id: row.user_id,
            conversation_id: row.conversation_id,
            kind: row.kind,
            queue: row.queue,
            models: row.models.0.into_iter().map(|model| model.name).collect(),
            attempts: row.attempt,
            error: row.error_code.into(),
            last_error: row.error_detail,
            worker: row.worker_id,
            request_id: row.request_id,
            queued_at: row.queued_at,
            failed_at: row.failed_at,
            age_seconds: row.age_seconds,
        })
        .collect();
    Ok((letters, has_more))
}

/// How many dead letters there are of each reason, most first.
///
/// # Errors
/// When the database fails.
pub async fn counts(tx: &mut OperatorTx) -> StoreResult<Vec<DeadLetterCount>> {
    let counts = sqlx::query_as!(
        DeadLetterCount,
        r#"SELECT error_code AS "error_code!: FailureCode", count(*) AS "count!"
           FROM chat.generations WHERE status = 'failed' AND settled_at IS NULL
           GROUP BY error_code ORDER BY 2 DESC, 1"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(counts)
}

/// The dead letters of a reason with their owners, oldest first, at most `limit` after `after`.
///
/// # Errors
/// When the database fails.
pub async fn like(
    tx: &mut OperatorTx,
    error_code: FailureCode,
    kind: Option<GenerationKind>,
    after: Option<Uuid>,
    limit: i64,
) -> StoreResult<Vec<(Uuid, Uuid)>> {
    let rows = sqlx::query!(
        "SELECT id, user_id FROM chat.generations
         WHERE status = 'failed' AND settled_at IS NULL AND error_code = $1 AND ($2::text IS NULL OR kind = $2)
           AND ($3::uuid IS NULL OR id > $3)
         ORDER BY id LIMIT $4",
        error_code as _,
        kind.map(GenerationKind::as_str),
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.user_id)).collect())
}

/// Whose failed generations these are, oldest first, settled or not; ids of others are left out.
///
/// # Errors
/// When the database fails.
pub async fn owners(tx: &mut OperatorTx, ids: &[Uuid]) -> StoreResult<Vec<(Uuid, Uuid)>> {
    let rows = sqlx::query!(
        "SELECT id, user_id FROM chat.generations WHERE id = ANY($1) AND status = 'failed' ORDER BY id",
        ids
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.user_id)).collect())
}

/// Why a dead letter was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such failed generation of this person.
    NotFound,
    /// It was replayed, as this generation, or discarded.
    Settled(Option<Uuid>),
    /// Its conversation was deleted.
    ConversationGone,
    /// Its message has a reply by now, or one is on its way.
    Answered,
    /// A budget is used up that it may cost something of.
    BudgetExhausted {
        /// When it is free again.
        resets_at: OffsetDateTime,
    },
}

/// A replay that was queued, once the transaction commits.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The new generation.
    pub generation: Generation,
    /// The models that may make it.
    pub chain: Vec<Model>,
    /// Its queue.
    pub priority: Priority,
    /// Whether nothing older of the conversation is unfinished.
    pub is_head: bool,
    /// What it waits for before it can be claimed, and what is before it.
    pub parked: Option<Parked>,
}

/// Queues the work of a dead letter again, with `first` before the models it had.
///
/// # Errors
/// When the database fails.
pub async fn replay(
    tx: &mut UserTx,
    clock: &Clock,
    letter: Uuid,
    first: Option<&Model>,
    actor: &Actor,
) -> StoreResult<Result<Replayed, Refused>> {
    let user_id = tx.user_id();
    let found = sqlx::query!(
        r#"SELECT g.conversation_id, g.user_message_id, g.kind AS "kind: GenerationKind",
                  g.model_chain AS "chain: Json<Vec<Model>>"
           FROM chat.generations g WHERE g.id = $1 AND g.user_id = $2 AND g.status = 'failed'"#,
        letter,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(found) = found else {
        return Ok(Err(Refused::NotFound));
    };
    // What follows must see all that was accepted and settled before the lock.
    if !super::generations::lock_conversation(tx, found.conversation_id).await? {
        return Ok(Err(Refused::ConversationGone));
    }
    let state = sqlx::query!(
        r#"SELECT g.settled_at IS NOT NULL AS "settled!", g.replayed_as, c.last_id,
                  CASE WHEN $3 THEN NOT c.title_is_default
                       ELSE EXISTS (SELECT FROM chat.messages m
                                    WHERE m.conversation_id = c.id AND m.id > $1 AND m.sender_type = 'assistant'
                                      AND m.parent_message_id IS NOT DISTINCT FROM $4)
                  END AS "answered!",
                  EXISTS (SELECT FROM chat.generations o
                          WHERE o.conversation_id = c.id AND o.status IN ('queued', 'in_progress')
                            AND (o.kind = 'title') = $3
                            AND ($3 OR o.user_message_id IS NOT DISTINCT FROM $4)) AS "on_its_way!",
                  NOT EXISTS (SELECT FROM chat.generations o
                              WHERE o.conversation_id = c.id AND o.status IN ('queued', 'in_progress')
                                AND (o.kind = 'title') = $3) AS "is_head!"
           FROM chat.generations g JOIN chat.conversations c ON c.id = g.conversation_id
           WHERE g.id = $1 AND g.user_id = $2"#,
        letter,
        user_id,
        found.kind == GenerationKind::Title,
        found.user_message_id,
    )
    .fetch_one(tx.conn())
    .await?;
    if state.settled {
        return Ok(Err(Refused::Settled(state.replayed_as)));
    }
    if state.answered || state.on_its_way {
        return Ok(Err(Refused::Answered));
    }
    let chain = chain_with(first, found.chain.0);
    let Some(model) = chain.first() else {
        return Err(super::StoreError::Corrupt(
            "a generation needs a model".to_owned(),
        ));
    };
    let new = id::new_after(clock.now(), Some(state.last_id));
    let parked = if found.kind == GenerationKind::Title {
        None
    } else {
        super::generations::park(tx, found.conversation_id, new, state.is_head).await?
    };
    let queued = sqlx::query!(
        r#"WITH g AS (
               UPDATE chat.generations SET settled_at = now(), replayed_as = $2
               WHERE id = $1 AND user_id = $3 AND settled_at IS NULL RETURNING *
           ), moved AS (
               UPDATE chat.conversations c SET last_id = $2 FROM g WHERE c.id = g.conversation_id
           )
           INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain, model,
                                         is_free_model, stream, user_message_id, replaces_message_id, max_attempts,
                                         deadline_at, request_id, traceparent, parked, run_at)
           SELECT $2, g.user_id, g.conversation_id, g.kind, g.context_type, g.priority, $4, $5, $6, g.stream,
                  g.user_message_id, g.replaces_message_id, g.max_attempts, now() + (g.deadline_at - g.queued_at),
                  g.request_id, g.traceparent, $7, CASE WHEN $7::text IS NULL THEN now() ELSE 'infinity' END
           FROM g"#,
        letter,
        new,
        user_id,
        serde_json::to_value(&chain).unwrap_or_default(),
        model.name,
        model.free,
        parked.map(|parked| parked.waits_for.as_str()),
    )
    .execute(tx.conn())
    .await?;
    if queued.rows_affected() == 0 {
        // It was discarded a moment ago, which takes no lock of the conversation.
        return Ok(Err(Refused::Settled(None)));
    }
    let details = json!({ "generation_id": new, "model": model.name });
    note(tx, clock, letter, "dead_letter.replay", actor, &details).await?;
    let Some(row) = super::generations::find(tx, new).await? else {
        return Err(super::StoreError::Corrupt(
            "a generation that was just queued is gone".to_owned(),
        ));
    };
    Ok(Ok(Replayed {
        generation: row.generation,
        chain,
        priority: row.priority,
        is_head: state.is_head,
        parked,
    }))
}

/// Settles a dead letter without another try.
///
/// # Errors
/// When the database fails.
pub async fn discard(
    tx: &mut UserTx,
    clock: &Clock,
    letter: Uuid,
    actor: &Actor,
) -> StoreResult<Result<(), Refused>> {
    let user_id = tx.user_id();
    // A statement of its own locks the row, so that what is read of it is what is settled.
    let found = sqlx::query!(
        r#"SELECT settled_at IS NOT NULL AS "settled!", replayed_as FROM chat.generations
           WHERE id = $1 AND user_id = $2 AND status = 'failed' FOR UPDATE"#,
        letter,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    match found {
        None => return Ok(Err(Refused::NotFound)),
        Some(found) if found.settled => return Ok(Err(Refused::Settled(found.replayed_as))),
        Some(_) => {}
    }
    sqlx::query!(
        "UPDATE chat.generations SET settled_at = now() WHERE id = $1 AND user_id = $2",
        letter,
        user_id,
    )
    .execute(tx.conn())
    .await?;
    note(tx, clock, letter, "dead_letter.discard", actor, &json!({})).await?;
    Ok(Ok(()))
}

async fn note(
    tx: &mut UserTx,
    clock: &Clock,
    letter: Uuid,
    action: &str,
    actor: &Actor,
    details: &Value,
) -> StoreResult<()> {
    let subject = letter.to_string();
    let entry = Entry {
        id: id::new(clock.now()),
        actor,
        action,
        subject: &subject,
        details,
    };
    audit::note(tx, &entry).await
}

fn chain_with(first: Option<&Model>, rest: Vec<Model>) -> Vec<Model> {
    let Some(first) = first else {
        return rest;
    };
    let rest = rest.into_iter().filter(|model| model.name != first.name);
    std::iter::once(first.clone()).chain(rest).collect()
}
