//! A generation in a row of its own, queued beside nothing else.

use time::OffsetDateTime;
use uuid::Uuid;

use super::accept::queued_generation;
use super::places::park;
use super::{NewGeneration, chain_json};
use crate::domain::{Generation, GenerationKind, Parked};
use crate::store::{StoreResult, UserTx};
use crate::{clock::Clock, id};

/// What is known of the conversation, which the caller has locked.
pub(super) struct Place<'a> {
    pub(super) conversation_id: Uuid,
    pub(super) context_type: &'a str,
    /// The largest id that was given out in it.
    pub(super) last_id: Uuid,
    /// Whether nothing older of it is unfinished.
    pub(super) is_head: bool,
    /// The transaction's time.
    pub(super) now: OffsetDateTime,
}

/// What the generation makes, and of what.
#[derive(Clone, Copy)]
pub(super) struct Making {
    pub(super) kind: GenerationKind,
    pub(super) user_message_id: Option<Uuid>,
    pub(super) replaces: Option<Uuid>,
}

/// Queues it.
pub(super) async fn insert(
    tx: &mut UserTx,
    clock: &Clock,
    place: &Place<'_>,
    making: Making,
    new: &NewGeneration<'_>,
) -> StoreResult<(Generation, Option<Parked>)> {
    let user_id = tx.user_id();
    let model = new.model()?;
    let generation_id = id::new_after(clock.now(), Some(place.last_id));
    let parked = park(tx, place.conversation_id, generation_id, place.is_head).await?;
    sqlx::query!(
        r#"WITH touched AS (
               UPDATE chat.conversations SET last_id = $1, last_activity_at = now(), updated_at = now() WHERE id = $3
           )
           INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain, model,
                                         is_free_model, stream, user_message_id, replaces_message_id, max_attempts,
                                         deadline_at, request_id, traceparent, parked, run_at)
           VALUES ($1, $2, $3, $17, $15, $4, $5, $6, $7, $8, $9, $10, $11,
                   now() + $12 * interval '1 second', $13, $14, $16,
                   CASE WHEN $16::text IS NULL THEN now() ELSE 'infinity' END)"#,
        generation_id,
        user_id,
        place.conversation_id,
        new.priority as _,
        chain_json(new.chain),
        model.name,
        model.free,
        new.stream,
        making.user_message_id,
        making.replaces,
        new.max_attempts,
        new.deadline.as_secs_f64(),
        new.request_id,
        new.traceparent,
        place.context_type,
        parked.map(|parked| parked.waits_for.as_str()),
        making.kind as _,
    )
    .execute(tx.conn())
    .await?;
    let conversation_id = place.conversation_id;
    let answered = making.user_message_id.unwrap_or_default();
    let mut generation = queued_generation(
        generation_id,
        conversation_id,
        making.kind,
        model,
        answered,
        place.now,
    );
    generation.user_message_id = making.user_message_id;
    Ok((generation, parked))
}
