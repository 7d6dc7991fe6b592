//! Asking for another answer to the same message.

use time::OffsetDateTime;
use uuid::Uuid;

use super::queued::{Making, Place, insert};
use super::{NewGeneration, chain_json};
use crate::clock::Clock;
use crate::domain::{ConversationStatus, Generation, GenerationKind, Parked, SenderType};
use crate::store::{StoreResult, UserTx};

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
    let place = Place {
        conversation_id,
        context_type: &found.context_type,
        last_id: found.last_id,
        is_head: found.is_head,
        now: found.now,
    };
    let making = Making {
        kind: GenerationKind::Regenerate,
        user_message_id: Some(user_message_id),
        replaces: Some(message_id),
    };
    let (generation, parked) = insert(tx, clock, &place, making, new).await?;
    Ok(Regenerated::Queued {
        generation: Box::new(generation),
        is_head: found.is_head,
        parked,
    })
}
