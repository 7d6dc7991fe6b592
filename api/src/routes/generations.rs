//! `/api/chat/generations`: the work that makes one reply.

use std::time::Duration;

use axum::extract::State;
use serde::Deserialize;
use shared::domain::{Generation, GenerationStatus, Parked, Priority};
use shared::push::{Feed, first_text_at, text_so_far};
use shared::queue;
use shared::store::generations::{self as store, Cancelled, Filter};
use shared::store::{StoreResult, messages};
use tokio::time::Instant;
use utoipa::IntoParams;
use uuid::Uuid;

use super::view::{Generations, OffsetPage};
use crate::app::AppState;
use crate::cancelled;
use crate::error::{Code, Problem, Result};
use crate::extract::{Limit, Offset, Path, Query, User, Wait};

/// Which generations to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those of this status.
    status: Option<GenerationStatus>,
    /// Only those of this conversation.
    conversation_id: Option<Uuid>,
    /// Generations per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 100, default = 20, required = false)]
    limit: Limit<20, 100>,
    /// Generations to skip.
    #[serde(default)]
    #[param(value_type = u32, maximum = 1_000_000, default = 0, required = false)]
    offset: Offset,
}

/// How to read a generation.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadQuery {
    /// Seconds to wait for the next change of the status, at most 60.
    #[serde(default)]
    #[param(value_type = u32, maximum = 60, default = 0, required = false)]
    wait: Wait,
}

/// How often the row is looked at while a poll waits: the only source while Redis is away.
const LOOK_AT_ROW: Duration = Duration::from_secs(1);

/// The person's generations, newest first.
#[utoipa::path(
    get, path = "/api/chat/generations", operation_id = "list_generations", tag = "generations", params(ListQuery),
    responses((status = 200, body = Generations))
)]
pub(super) async fn list(
    State(app): State<AppState>,
    User(user): User,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Generations>> {
    let filter = Filter {
        status: query.status,
        conversation_id: query.conversation_id,
        limit: query.limit.get(),
        offset: query.offset.get(),
    };
    let mut tx = app.db.user(user.id).await?;
    let (generations, has_more) = store::list(&mut tx, &filter).await?;
    let pagination = OffsetPage {
        limit: filter.limit,
        offset: filter.offset,
        has_more,
    };
    Ok(axum::Json(Generations {
        generations,
        pagination,
    }))
}

/// A generation, with its reply once it has one.
#[utoipa::path(
    get, path = "/api/chat/generations/{generation_id}", operation_id = "read_generation", tag = "generations",
    params(("generation_id" = Uuid, Path), ReadQuery),
    responses((status = 200, body = Generation), (status = 404, description = "generation_not_found"))
)]
pub(super) async fn read(
    State(app): State<AppState>,
    User(user): User,
    Path(id): Path<Uuid>,
    Query(query): Query<ReadQuery>,
) -> Result<axum::Json<Generation>> {
    let wait = query.wait.duration();
    let found = if wait.is_zero() {
        load(&app, user.id, id).await?.ok_or_else(not_found)?
    } else {
        changed(&app, user.id, id, wait).await?
    };
    Ok(axum::Json(as_of_now(&app, found).await))
}

/// The generation after its status has changed, or as it is when the wait is over.
async fn changed(app: &AppState, user_id: Uuid, id: Uuid, wait: Duration) -> Result<Found> {
    let deadline = Instant::now() + wait;
    // Listening begins before looking, so that no change falls between the two.
    let mut feed = app.hub.subscribe(user_id).await;
    let first = load(app, user_id, id).await?.ok_or_else(not_found)?;
    let status = first.generation.status;
    let mut current = first;
    while !current.generation.status.is_terminal() && current.generation.status == status {
        let look_at = Instant::now() + LOOK_AT_ROW;
        let event = async {
            loop {
                match feed.next().await {
                    Feed::Event(event)
                        if event.generation_id != Some(id) || !event.kind.changes_status() => {}
                    Feed::Event(_) | Feed::Gap => return,
                }
            }
        };
        tokio::select! {
            () = event => {}
            () = tokio::time::sleep_until(look_at.min(deadline)) => {}
            () = app.closing.cancelled() => return Ok(current),
        }
        current = load(app, user_id, id).await?.ok_or_else(not_found)?;
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(current)
}

/// Which events come with another status.
trait ChangesStatus {
    fn changes_status(&self) -> bool;
}

impl ChangesStatus for shared::domain::EventType {
    fn changes_status(&self) -> bool {
        self.is_terminal() || matches!(self, Self::InProgress | Self::Queued | Self::Retrying)
    }
}

/// A generation and where it waits.
pub(crate) struct Found {
    pub(crate) generation: Generation,
    priority: Priority,
    parked: Option<Parked>,
}

/// A generation with its reply, and where it waits.
pub(crate) async fn load(app: &AppState, user_id: Uuid, id: Uuid) -> StoreResult<Option<Found>> {
    let mut tx = app.db.user(user_id).await?;
    let Some(row) = store::find(&mut tx, id).await? else {
        return Ok(None);
    };
    let mut generation = row.generation;
    if let Some(message_id) = generation.assistant_message_id {
        generation.assistant_message =
            messages::find(&mut tx, generation.conversation_id, message_id).await?;
    }
    let mut parked = None;
    if generation.status == GenerationStatus::Queued {
        parked = store::parked(&mut tx, &generation, row.parked).await?;
    }
    Ok(Some(Found {
        generation,
        priority: row.priority,
        parked,
    }))
}

/// The generation with what only Redis knows of it: where it waits, or since when there is text.
async fn as_of_now(app: &AppState, found: Found) -> Generation {
    let Found {
        mut generation,
        priority,
        parked,
    } = found;
    let (id, model) = (generation.id, &generation.model);
    if generation.status == GenerationStatus::Queued
        && let Ok((position, estimate)) =
            queue::position(&app.redis, priority, id, model, parked).await
    {
        generation.queue_position = position;
        generation.estimated_response_time_ms = estimate;
    }
    // The row learns it at the end; until then the log knows when the first text was published.
    if generation.status == GenerationStatus::InProgress
        && let Ok(at) = first_text_at(&app.redis, id).await
    {
        generation.timings.first_token_at = at;
    }
    generation
}

/// Stops a generation, queued or running. The text so far is kept.
#[utoipa::path(
    post, path = "/api/chat/generations/{generation_id}/cancel", operation_id = "cancel_generation", tag = "generations",
    params(("generation_id" = Uuid, Path)),
    responses(
        (status = 200, body = Generation),
        (status = 404, description = "generation_not_found"),
        (status = 409, description = "generation_ended"),
    )
)]
pub(super) async fn cancel(
    State(app): State<AppState>,
    User(user): User,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<Generation>> {
    // Only the owner's log is read: the row is looked up first.
    let found = load(&app, user.id, id).await?.ok_or_else(not_found)?;
    // What the worker writes from now on nobody was told of: of one that runs, no text is known to be none.
    let runs = found.generation.status == GenerationStatus::InProgress;
    let seen = text_so_far(&app.redis, id)
        .await
        .ok()
        .filter(|text| runs || !text.is_empty());
    let mut tx = app.db.user(user.id).await?;
    let (row, next) = match store::cancel(&mut tx, id, seen.as_deref()).await? {
        Cancelled::Done(row, next) => (*row, next),
        Cancelled::Ended(_) => return Err(Problem::of(Code::GenerationEnded)),
        Cancelled::NotFound => return Err(not_found()),
    };
    tx.commit().await?;
    cancelled::tell(&app, user.id, vec![row.clone()]).await;
    cancelled::push(&app, next).await;
    Ok(axum::Json(row.generation))
}

pub(super) fn not_found() -> Problem {
    Problem::of(Code::GenerationNotFound)
}
