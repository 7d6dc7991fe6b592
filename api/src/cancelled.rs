//! After generations were cancelled in the database: tell clients, workers and whoever waits next.
//!
//! None of it is needed for the cancellation to hold. Without Redis, clients learn it from the row,
//! the worker at its next renewal, and the next generation is found by the reconciler.

use shared::push::{broadcast_cancel, terminal_event, text_so_far, write_terminal};
use shared::queue;
use shared::redis::RedisFailure;
use shared::store::StoreResult;
use shared::store::generations::{GenerationRow, Next, find, keep_partial};
use uuid::Uuid;

use crate::app::AppState;
use crate::error::chain;

/// Tells everybody of each of `rows`, and keeps the text that clients have seen of it.
pub(crate) async fn tell(app: &AppState, user_id: Uuid, rows: Vec<GenerationRow>) {
    for mut row in rows {
        let id = row.generation.id;
        if row.generation.partial_content.is_none()
            && let Ok(text) = text_so_far(&app.redis, id).await
            && !text.is_empty()
        {
            let kept = keep(app, user_id, id, row.generation.attempts, &text).await;
            row.generation.partial_content = Some(kept.unwrap_or_else(|error| {
                tracing::warn!(generation.id = %id, error = chain(&error), "failed to keep the text of a cancelled reply");
                text
            }));
        }
        if let Err(failure) = end(app, user_id, &row).await {
            tracing::debug!(generation.id = %id, %failure, "a cancellation was not pushed");
        }
    }
}

/// Returns the text that is kept: the worker may have been first, and what is told must be what is read later.
async fn keep(
    app: &AppState,
    user_id: Uuid,
    id: Uuid,
    attempt: i32,
    text: &str,
) -> StoreResult<String> {
    let mut tx = app.db.user(user_id).await?;
    if keep_partial(&mut tx, id, attempt, text).await? {
        tx.commit().await?;
        return Ok(text.to_owned());
    }
    let row = find(&mut tx, id).await?;
    let kept = row.and_then(|row| row.generation.partial_content);
    Ok(kept.unwrap_or_else(|| text.to_owned()))
}

async fn end(app: &AppState, user_id: Uuid, row: &GenerationRow) -> Result<(), RedisFailure> {
    broadcast_cancel(&app.redis, row.generation.id).await?;
    match terminal_event(&row.generation) {
        Some(event) => write_terminal(&app.redis, user_id, &event).await,
        None => Ok(()),
    }
}

/// Pushes what nothing is in the way of now.
pub(crate) async fn push(app: &AppState, next: Vec<Next>) {
    let next = next.into_iter().map(|next| (next.id, next.priority));
    if let Err(failure) = queue::push_back(&app.redis, next).await {
        tracing::debug!(%failure, "what was woken was not pushed");
    }
}
