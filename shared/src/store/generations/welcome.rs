//! The first message of a conversation that is prepared from an assessment.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::NewGeneration;
use super::queued::{Making, Place, insert};
use crate::domain::{ConversationStatus, Generation, GenerationKind, GenerationStatus, Parked};
use crate::store::{StoreResult, SweepTx, UserTx};
use crate::{clock::Clock, id};

/// A person waits for it on the page of their results: later than this the composed welcome is better.
pub const WELCOME_DEADLINE: Duration = Duration::from_mins(2);

/// Queues the welcome of a conversation in which nothing was said yet; the caller holds a lock that
/// keeps others from doing so as well.
///
/// # Errors
/// When the database fails.
pub async fn welcome(
    tx: &mut UserTx,
    clock: &Clock,
    conversation_id: Uuid,
    new: &NewGeneration<'_>,
) -> StoreResult<(Generation, Option<Parked>)> {
    let user_id = tx.user_id();
    let found = sqlx::query!(
        r#"SELECT c.last_id, c.context_type, now() AS "now!: OffsetDateTime",
                  NOT EXISTS (SELECT FROM chat.generations g
                              WHERE g.conversation_id = c.id AND g.status IN ('queued', 'in_progress')
                                AND g.kind <> 'title') AS "is_head!"
           FROM chat.conversations c WHERE c.id = $1 AND c.user_id = $2 FOR UPDATE"#,
        conversation_id,
        user_id,
    )
    .fetch_one(tx.conn())
    .await?;
    let place = Place {
        conversation_id,
        context_type: &found.context_type,
        last_id: found.last_id,
        is_head: found.is_head,
        now: found.now,
    };
    let making = Making {
        kind: GenerationKind::Welcome,
        user_message_id: None,
        replaces: None,
    };
    insert(tx, clock, &place, making, new).await
}

/// What takes the place of a welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// A generation of its own, which this transaction has claimed and is to finish.
    Claimed {
        /// The generation.
        id: Uuid,
        /// Its claim.
        token: Uuid,
        /// Its conversation.
        conversation_id: Uuid,
    },
    /// Nothing: the person has cancelled the welcome or begun to talk, or the conversation is gone.
    Nothing,
    /// It is being made, or was asked for again.
    NotYet,
}

/// Begins a generation in the place of a welcome that failed. Nothing leaves a terminal status, so that
/// one stays failed, and its dead letter is settled by the new one as by a replay.
///
/// # Errors
/// When the database fails.
pub async fn replace_welcome(
    tx: &mut SweepTx,
    clock: &Clock,
    welcome_id: Uuid,
    worker_id: &str,
) -> StoreResult<Replacement> {
    let found = sqlx::query!(
        r#"SELECT g.status AS "status: GenerationStatus", c.status AS "conversation: ConversationStatus", c.last_id,
                  c.message_count, c.id AS conversation_id,
                  EXISTS (SELECT FROM chat.generations o
                          WHERE o.conversation_id = c.id AND o.status IN ('queued', 'in_progress')
                            AND o.kind <> 'title') AS "is_busy!"
           FROM chat.generations g JOIN chat.conversations c ON c.id = g.conversation_id
           WHERE g.id = $1 FOR NO KEY UPDATE OF g, c"#,
        welcome_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(found) = found else {
        return Ok(Replacement::Nothing);
    };
    if found.is_busy {
        return Ok(Replacement::NotYet);
    }
    let is_wanted = found.status == GenerationStatus::Failed
        && found.message_count == 0
        && found.conversation != ConversationStatus::Deleted;
    if !is_wanted {
        return Ok(Replacement::Nothing);
    }
    let new = id::new_after(clock.now(), Some(found.last_id));
    let token = sqlx::query_scalar!(
        r#"WITH letter AS (
               UPDATE chat.generations
               SET settled_at = COALESCE(settled_at, now()),
                   replayed_as = CASE WHEN settled_at IS NULL THEN $2 ELSE replayed_as END
               WHERE id = $1 RETURNING *
           ), moved AS (
               UPDATE chat.conversations c SET last_id = $2 FROM letter l WHERE c.id = l.conversation_id
           )
           INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain, model,
                                         is_free_model, stream, max_attempts, deadline_at, request_id, traceparent,
                                         status, attempt, claim_token, lease_until, worker_id, started_at)
           SELECT $2, l.user_id, l.conversation_id, l.kind, l.context_type, l.priority, l.model_chain, l.model,
                  l.is_free_model, l.stream, l.max_attempts, now() + (l.deadline_at - l.queued_at), l.request_id,
                  l.traceparent, 'in_progress', 1, gen_random_uuid(), now() + interval '1 minute', $3, now()
           FROM letter l
           RETURNING claim_token AS "token!""#,
        welcome_id,
        new,
        worker_id,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Replacement::Claimed {
        id: new,
        token,
        conversation_id: found.conversation_id,
    })
}
