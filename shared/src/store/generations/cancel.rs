//! Stopping generations: a flag on the row first, a broadcast second.

use sqlx::types::Json;
use uuid::Uuid;

use super::places::wake;
use super::{GenerationRow, Next, Row};
use crate::domain::{FailureCode, GenerationKind, GenerationStatus, Usage, WaitsFor};
use crate::store::{StoreResult, UserTx};

/// What became of the wish to stop one.
#[derive(Debug)]
pub enum Cancelled {
    /// It is cancelled now, once the transaction commits, and these may be claimed.
    Done(Box<GenerationRow>, Vec<Next>),
    /// It had ended already.
    Ended(Box<GenerationRow>),
    /// There is no such generation of this person.
    NotFound,
}

/// Cancels one generation, wherever it is. `partial` is the text that clients have seen: empty where they have seen none
/// yet, `None` where that is not known.
///
/// # Errors
/// When the database fails.
pub async fn cancel(tx: &mut UserTx, id: Uuid, partial: Option<&str>) -> StoreResult<Cancelled> {
    let user_id = tx.user_id();
    let row = super::generation_query!(
        "WITH target AS MATERIALIZED (
             SELECT g.id, g.status FROM chat.generations g
             JOIN chat.conversations c ON c.id = g.conversation_id AND c.status <> 'deleted'
             WHERE g.id = $1 AND g.user_id = $2 FOR UPDATE OF g
         )
         UPDATE chat.generations g
         SET status = 'cancelled', claim_token = NULL, lease_until = NULL, finished_at = now(),
             parked = NULL, partial_content = $3
         FROM target t WHERE g.id = $1 AND t.id = g.id AND t.status IN ('queued', 'in_progress')
         RETURNING"
            + "",
        id,
        user_id,
        partial,
    )
    .fetch_optional(tx.conn())
    .await?;
    match row {
        Some(row) => {
            let places = tx.places();
            let next = wake(tx.conn(), &[user_id], &[row.conversation_id], places).await?;
            Ok(Cancelled::Done(Box::new(row.into()), next))
        }
        None => Ok(super::find(tx, id)
            .await?
            .map_or(Cancelled::NotFound, |row| Cancelled::Ended(Box::new(row)))),
    }
}

/// Everything of a conversation that was cancelled together.
#[derive(Debug, Default)]
pub struct Stopped {
    /// What is cancelled, once the transaction commits.
    pub rows: Vec<GenerationRow>,
    /// What may be claimed then.
    pub next: Vec<Next>,
}

/// Cancels everything unfinished of a conversation; titles too where `with_titles`.
///
/// # Errors
/// When the database fails.
pub async fn cancel_unfinished(
    tx: &mut UserTx,
    conversation_id: Uuid,
    with_titles: bool,
) -> StoreResult<Stopped> {
    let user_id = tx.user_id();
    let rows = super::generation_query!(
        "UPDATE chat.generations g
         SET status = 'cancelled', claim_token = NULL, lease_until = NULL, finished_at = now(),
             parked = NULL
         WHERE g.conversation_id = $1 AND g.user_id = $2 AND g.status IN ('queued', 'in_progress')
           AND ($3 OR g.kind <> 'title')
         RETURNING"
            + "",
        conversation_id,
        user_id,
        with_titles,
    )
    .fetch_all(tx.conn())
    .await?;
    let next = if rows.is_empty() {
        Vec::new()
    } else {
        let places = tx.places();
        wake(tx.conn(), &[user_id], &[conversation_id], places).await?
    };
    Ok(Stopped {
        rows: rows.into_iter().map(GenerationRow::from).collect(),
        next,
    })
}

/// Keeps the text of a cancelled generation where none was kept yet, because the canceller could not see any. What
/// clients were told stays as it is: whether it was kept now.
///
/// # Errors
/// When the database fails.
pub async fn keep_partial(
    tx: &mut UserTx,
    id: Uuid,
    attempt: i32,
    partial: &str,
) -> StoreResult<bool> {
    let kept = sqlx::query!(
        "UPDATE chat.generations SET partial_content = $3
         WHERE id = $1 AND attempt = $2 AND status = 'cancelled' AND partial_content IS NULL",
        id,
        attempt,
        partial,
    )
    .execute(tx.conn())
    .await?;
    Ok(kept.rows_affected() == 1)
}
