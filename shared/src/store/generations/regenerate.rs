//! Asking for another answer to the same message.

use time::OffsetDateTime;
use uuid::Uuid;

use super::accept::queued_generation;
use super::places::park;
use super::{NewGeneration, chain_json};
use crate::domain::{ConversationStatus, Generation, GenerationKind, Parked, SenderType};
use crate::store::{StoreResult, UserTx};
use crate::{clock::Clock, id};

/// What became of the wish for another answer.
#[derive(Debug)]
pub enum Regenerated {
    /// Queued, once the transaction commits.
    Queued {
        /// The new generation.
        generation: Box<Generation>,
        /// Whether nothing older of the conversation is unfinished.
        is_head: bool,
        /// What it waits for before it can be claimed, and what is before it.
        parked: Option<Parked>,
    },
    /// The same was asked for a moment ago; this is what was queued then.
    Same(Box<Generation>),
    /// There is no such message in a conversation of this person.
    NotFound,
    /// The conversation is archived.
    NotActive,
    /// The message is not the reply to a message.
    NotAReply,
}

/// Queues another answer to the message that `message_id` answers. The old reply stays until the
/// new one is stored, and is then marked as superseded. Who asks for the same by the same models again
/// within a second has clicked twice, and gets what was queued the first time.
///
/// # Errors
/// When the database fails.
pub async fn regenerate(
    tx: &mut UserTx,
    clock: &Clock,
    conversation_id: Uuid,
    message_id: Uuid,
    new: &NewGeneration<'_>,
) -> StoreResult<Regenerated> {
    let user_id = tx.user_id();
    let Some(model) = crate::models::likely_first(new.chain) else {
        return Err(crate::store::StoreError::Corrupt(
            "a generation needs a model".to_owned(),
        ));
    };
    // A statement of its own: what the next one sees of the unfinished must be younger than the lock.
    if !super::lock_conversation(tx, conversation_id).await? {
        return Ok(Regenerated::NotFound);
    }
    let found = sqlx::query!(
        r#"SELECT c.status AS "status: ConversationStatus", c.last_id, c.context_type, m.sender_type AS "sender_type: SenderType",
                  m.parent_message_id, now() AS "now!: OffsetDateTime", same.id AS "same?",
                  NOT EXISTS (SELECT FROM chat.generations g
                              WHERE g.conversation_id = c.id AND g.status IN ('queued', 'in_progress')
                                AND g.kind <> 'title') AS "is_head!"
           FROM chat.conversations c JOIN chat.messages m ON m.id = $3 AND m.conversation_id = c.id
           LEFT JOIN LATERAL (
               SELECT r.id FROM (
                   SELECT g.id, g.kind, g.status, g.replaces_message_id, g.model_chain, g.queued_at
                   FROM chat.generations g WHERE g.user_id = $2 AND g.id > $3 ORDER BY g.id DESC LIMIT 50
               ) r
               WHERE r.kind = 'regenerate' AND r.replaces_message_id = $3 AND r.model_chain = $4
                 AND r.status NOT IN ('failed', 'cancelled') AND r.queued_at > now() - interval '1 second'
               ORDER BY r.id DESC LIMIT 1
           ) same ON true
           WHERE c.id = $1 AND c.user_id = $2 AND c.status <> 'deleted' FOR UPDATE OF c"#,
        conversation_id,
        user_id,
        message_id,
        chain_json(new.chain),
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(found) = found else {
        return Ok(Regenerated::NotFound);
    };
    if found.status != ConversationStatus::Active {
        return Ok(Regenerated::NotActive);
    }
    let (SenderType::Assistant, Some(user_message_id)) =
        (found.sender_type, found.parent_message_id)
    else {
        return Ok(Regenerated::NotAReply);
    };
    if let Some(same) = found.same
        && let Some(row) = super::find(tx, same).await?
    {
        return Ok(Regenerated::Same(Box::new(row.generation)));
    }
    let generation_id = id::new_after(clock.now(), Some(found.last_id));
    let parked = park(tx, conversation_id, generation_id, found.is_head).await?;
    sqlx::query!(
        r#"WITH touched AS (
               UPDATE chat.conversations SET last_id = $1, last_activity_at = now(), updated_at = now() WHERE id = $3
           )
           INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain, model,
                                         is_free_model, stream, user_message_id, replaces_message_id, max_attempts,
                                         deadline_at, request_id, traceparent, parked, run_at)
           VALUES ($1, $2, $3, 'regenerate', $15, $4, $5, $6, $7, $8, $9, $10, $11,
                   now() + $12 * interval '1 second', $13, $14, $16,
                   CASE WHEN $16::text IS NULL THEN now() ELSE 'infinity' END)"#,
        generation_id,
        user_id,
        conversation_id,
        new.priority as _,
        chain_json(new.chain),
        model.name,
        model.free,
        new.stream,
        user_message_id,
        message_id,
        new.max_attempts,
        new.deadline.as_secs_f64(),
        new.request_id,
        new.traceparent,
        found.context_type,
        parked.map(|parked| parked.waits_for.as_str()),
    )
    .execute(tx.conn())
    .await?;
    let kind = GenerationKind::Regenerate;
    let generation = queued_generation(
        generation_id,
        conversation_id,
        kind,
        model,
        user_message_id,
        found.now,
    );
    Ok(Regenerated::Queued {
        generation: Box::new(generation),
        is_head: found.is_head,
        parked,
    })
}
