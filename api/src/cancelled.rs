//! After generations were cancelled in the database: tell clients, workers and whoever waits next.
//!
//! None of it is needed for the cancellation to hold. Without Redis, clients learn it from the row,
//! the worker at its next renewal, and the next generation is found by the reconciler.

use shared::domain::GenerationKind;
use shared::push::{broadcast_cancel, terminal_event, text_so_far, write_terminal};
use shared::queue;
use shared::redis::RedisFailure;
use shared::store::generations::{GenerationRow, keep_partial};
use shared::store::{StoreResult, generations};
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
            if let Err(error) = keep(app, user_id, id, row.generation.attempts, &text).await {
                tracing::warn!(generation.id = %id, error = chain(&error), "failed to keep the text of a cancelled reply");
            }
            row.generation.partial_content = Some(text);
        }
        if let Err(failure) = push(app, user_id, &row).await {
            tracing::debug!(generation.id = %id, %failure, "a cancellation was not pushed");
        }
    }
}

async fn keep(
    app: &AppState,
    user_id: Uuid,
    id: Uuid,
    attempt: i32,
    text: &str,
) -> StoreResult<()> {
    let mut tx = app.db.user(user_id).await?;
    keep_partial(&mut tx, id, attempt, text).await?;
    tx.commit().await
}

async fn push(app: &AppState, user_id: Uuid, row: &GenerationRow) -> Result<(), RedisFailure> {
    broadcast_cancel(&app.redis, row.generation.id).await?;
    match terminal_event(&row.generation) {
        Some(event) => write_terminal(&app.redis, user_id, &event).await,
        None => Ok(()),
    }
}

/// Pushes the oldest unfinished generation of a conversation, which nothing is in the way of now.
pub(crate) async fn wake_next(app: &AppState, user_id: Uuid, conversation_id: Uuid) {
    match next(app, user_id, conversation_id).await {
        Ok(Some(row)) if row.generation.attempts == 0 => {
            if let Err(failure) =
                queue::push_front(&app.redis, [(row.generation.id, row.priority)]).await
            {
                tracing::debug!(%failure, "the next generation was not pushed");
            }
        }
        // Another one is running, or waits for its retry.
        Ok(_) => {}
        Err(error) => tracing::warn!(
            error = chain(&error),
            "failed to look for the next generation"
        ),
    }
}

async fn next(
    app: &AppState,
    user_id: Uuid,
    conversation_id: Uuid,
) -> StoreResult<Option<GenerationRow>> {
    let mut tx = app.db.user(user_id).await?;
    for id in generations::unfinished_of_conversation(&mut tx, conversation_id).await? {
        match generations::find(&mut tx, id).await? {
            // A title keeps nobody waiting.
            Some(row) if row.generation.kind != GenerationKind::Title => return Ok(Some(row)),
            _ => {}
        }
    }
    Ok(None)
}
