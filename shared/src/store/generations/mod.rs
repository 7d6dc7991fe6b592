//! The generation row: the only truth about a piece of work.
//!
//! **Invariant:** every transition of `status` is a statement of this module, and the table in
//! [`GenerationStatus::may_become`] lists them all. A worker's statements are guarded by the claim
//! token, which exists exactly while the row is in progress.

mod accept;
mod cancel;
mod claim;
mod finish;
mod history;
mod places;
mod queued;
mod reconcile;
mod regenerate;
mod room;
mod welcome;

pub use accept::{
    Accepted, Concurrency, NewGeneration, NewMessage, accept, accept_alone, lock_conversation,
};
pub use cancel::{Cancelled, Stopped, cancel, cancel_unfinished, keep_partial};
pub use claim::{
    Claim, Claimer, Handover, claim, claim_ready, free_predecessor, release, renew, retry_later,
};
pub use finish::{
    Failed, Finish, Finished, Next, TitleFinished, fail, finish, finish_many, finish_title,
};
pub use history::{History, HistoryMessage};
#[cfg(feature = "testing")]
pub use history::{HistoryOf, histories};
pub(super) use places::park;
pub use places::{Look, parked, wake_after, wake_lost};
pub use reconcile::{Expired, Ready, expired_deadlines, expired_leases, ready_unpushed};
pub use regenerate::{Regenerated, regenerate};
pub use room::Room;
pub use welcome::{Replacement, WELCOME_DEADLINE, replace_welcome, welcome};

use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreResult, UserTx};
use crate::domain::{
    ContextUse, FailureCode, Generation, GenerationKind, GenerationStatus, Timings, Usage, WaitsFor,
};

/// A row with what the public shape leaves out.
#[derive(Clone, Debug)]
pub struct GenerationRow {
    /// The public shape, without its reply.
    pub generation: Generation,
    /// The person it belongs to.
    pub user_id: Uuid,
    /// The queue it waits in.
    pub priority: crate::domain::Priority,
    /// What it waits for before it may wait there.
    pub parked: Option<WaitsFor>,
    /// Whether clients want the text as it comes.
    pub stream: bool,
}

struct Row {
    id: Uuid,
    user_id: Uuid,
    conversation_id: Uuid,
    kind: GenerationKind,
    status: GenerationStatus,
    priority: crate::domain::Priority,
    parked: Option<WaitsFor>,
    model: String,
    is_free_model: bool,
    stream: bool,
    attempt: i32,
    error_code: Option<FailureCode>,
    partial_content: Option<String>,
    queued_at: OffsetDateTime,
    started_at: Option<OffsetDateTime>,
    first_token_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
    user_message_id: Option<Uuid>,
    assistant_message_id: Option<Uuid>,
    usage: Option<Json<Usage>>,
    context: Option<Json<ContextUse>>,
}

impl From<Row> for GenerationRow {
    fn from(row: Row) -> Self {
        Self {
            user_id: row.user_id,
            priority: row.priority,
            parked: row.parked,
            stream: row.stream,
            generation: Generation {
                id: row.id,
                conversation_id: row.conversation_id,
                kind: row.kind,
                status: row.status,
                model: row.model,
                attempts: row.attempt,
                queue_position: None,
                estimated_response_time_ms: None,
                is_free_model: row.is_free_model,
                error: row.error_code.map(Into::into),
                partial_content: row.partial_content,
                timings: Timings {
                    queued_at: row.queued_at,
                    started_at: row.started_at,
                    first_token_at: row.first_token_at,
                    finished_at: row.finished_at,
                },
                user_message_id: row.user_message_id,
                assistant_message_id: row.assistant_message_id,
                assistant_message: None,
                usage: row.usage.map(|usage| usage.0),
                context: row.context.map(|context| context.0),
            },
        }
    }
}

macro_rules! generation_query {
    ($head:literal + $tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            $head + r#" g.id, g.user_id, g.conversation_id, g.kind AS "kind: GenerationKind",
                      g.status AS "status: GenerationStatus", g.priority AS "priority: crate::domain::Priority",
                      g.parked AS "parked: WaitsFor", g.model, g.is_free_model, g.stream, g.attempt, g.error_code AS "error_code: FailureCode",
                      g.partial_content, g.queued_at, g.started_at, g.first_token_at, g.finished_at,
                      g.user_message_id, g.assistant_message_id, g.usage AS "usage: Json<Usage>",
                      g.usage -> 'context' AS "context: Json<crate::domain::ContextUse>" "# + $tail
            $(, $arg)*
        )
    };
}
use generation_query;

/// One generation of the person, unless its conversation was deleted.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<GenerationRow>> {
    let user_id = tx.user_id();
    let row = generation_query!(
        "SELECT"
            + "FROM chat.generations g
           JOIN chat.conversations c ON c.id = g.conversation_id AND c.status <> 'deleted'
         WHERE g.id = $1 AND g.user_id = $2",
        id,
        user_id
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(GenerationRow::from))
}

/// One generation of the person with its reply.
///
/// # Errors
/// When the database fails.
pub async fn find_with_reply(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<Generation>> {
    let Some(row) = find(tx, id).await? else {
        return Ok(None);
    };
    let mut generation = row.generation;
    if let Some(message_id) = generation.assistant_message_id {
        generation.assistant_message =
            crate::store::messages::find(tx, generation.conversation_id, message_id).await?;
    }
    Ok(Some(generation))
}

/// Which generations to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only those of this status.
    pub status: Option<GenerationStatus>,
    /// Only those of this conversation.
    pub conversation_id: Option<Uuid>,
    /// At most so many.
    pub limit: i64,
    /// After so many.
    pub offset: i64,
}

/// The person's generations, newest first, and whether there are more.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut UserTx, filter: &Filter) -> StoreResult<(Vec<Generation>, bool)> {
    let user_id = tx.user_id();
    let mut rows = generation_query!(
        "SELECT"
            + "FROM chat.generations g
           JOIN chat.conversations c ON c.id = g.conversation_id AND c.status <> 'deleted'
         WHERE g.user_id = $1 AND ($2::text IS NULL OR g.status = $2)
           AND ($3::uuid IS NULL OR g.conversation_id = $3)
         ORDER BY g.id DESC LIMIT $4 OFFSET $5",
        user_id,
        filter.status.map(GenerationStatus::as_str),
        filter.conversation_id,
        filter.limit + 1,
        filter.offset,
    )
    .fetch_all(tx.conn())
    .await?;
    let has_more = i64::try_from(rows.len()).unwrap_or(i64::MAX) > filter.limit;
    rows.truncate(usize::try_from(filter.limit).unwrap_or(0));
    Ok((
        rows.into_iter()
            .map(|row| GenerationRow::from(row).generation)
            .collect(),
        has_more,
    ))
}

/// The generations of a conversation from `younger` on, and those from `oldest` on that have not ended or did so
/// within so many seconds; oldest first, at most 200: the logs that a resumed feed of the conversation may still have to
/// read. Titles are nobody's to follow.
///
/// # Errors
/// When the database fails.
pub async fn going_on_since(
    tx: &mut UserTx,
    conversation_id: Uuid,
    oldest: Uuid,
    younger: Uuid,
    ended_within: f64,
) -> StoreResult<Vec<Uuid>> {
    let user_id = tx.user_id();
    let ids = sqlx::query_scalar!(
        "SELECT id FROM chat.generations
         WHERE user_id = $1 AND conversation_id = $2 AND id >= $3 AND kind <> 'title'
           AND (id >= $4 OR finished_at IS NULL OR finished_at > now() - $5 * interval '1 second')
         ORDER BY id LIMIT 200",
        user_id,
        conversation_id,
        oldest,
        younger,
        ended_within,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(ids)
}

/// The chain as the row keeps it.
pub(super) fn chain_json(chain: &[crate::models::Model]) -> Value {
    serde_json::to_value(chain).unwrap_or_default()
}
