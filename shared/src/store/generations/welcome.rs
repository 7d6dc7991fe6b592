//! Queueing the first message of a conversation that is prepared from an assessment.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::accept::queued_generation;
use super::places::park;
use super::{NewGeneration, chain_json};
use crate::domain::{Generation, GenerationKind, Parked};
use crate::store::{StoreError, StoreResult, UserTx};
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
    let Some(model) = crate::models::likely_first(new.chain) else {
        return Err(StoreError::Corrupt("a generation needs a model".to_owned()));
    };
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
    let generation_id = id::new_after(clock.now(), Some(found.last_id));
    let parked = park(tx, conversation_id, generation_id, found.is_head).await?;
    sqlx::query!(
        r#"WITH touched AS (
               UPDATE chat.conversations SET last_id = $1, last_activity_at = now(), updated_at = now() WHERE id = $3
           )
           INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain, model,
                                         is_free_model, stream, max_attempts, deadline_at, request_id, traceparent,
                                         parked, run_at)
           VALUES ($1, $2, $3, 'welcome', $13, $4, $5, $6, $7, $8, $9, now() + $10 * interval '1 second', $11, $12,
                   $14, CASE WHEN $14::text IS NULL THEN now() ELSE 'infinity' END)"#,
        generation_id,
        user_id,
        conversation_id,
        new.priority as _,
        chain_json(new.chain),
        model.name,
        model.free,
        new.stream,
        new.max_attempts,
        new.deadline.as_secs_f64(),
        new.request_id,
        new.traceparent,
        found.context_type,
        parked.map(|parked| parked.waits_for.as_str()),
    )
    .execute(tx.conn())
    .await?;
    let kind = GenerationKind::Welcome;
    let mut generation = queued_generation(
        generation_id,
        conversation_id,
        kind,
        model,
        Uuid::nil(),
        found.now,
    );
    generation.user_message_id = None;
    Ok((generation, parked))
}
