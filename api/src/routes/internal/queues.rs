//! `/internal/queues`: how the queues are, and whether workers may take from them.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::{Priority, Queue};
use utoipa::ToSchema;

use super::actor;
use crate::app::AppState;
use crate::error::{Checks, Problem, Result};
use crate::extract::{Correlation, Internal, Json, Path};

/// The most characters a reason may have.
const MAX_REASON: usize = 500;

/// All queues.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Queues {
    queues: Vec<Queue>,
}

/// Why a queue is paused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Pause {
    /// For whoever finds it paused.
    #[schema(nullable = false, max_length = 500)]
    reason: Option<String>,
}

/// How the queues are, the most urgent first.
#[utoipa::path(
    get, path = "/internal/queues", operation_id = "list_queues", tag = "internal",
    responses((status = 200, body = Queues))
)]
pub(in crate::routes) async fn list(
    State(app): State<AppState>,
    _: Internal,
) -> Result<axum::Json<Queues>> {
    let queues = app.operator.queues().await?;
    Ok(axum::Json(Queues { queues }))
}

/// Tells the whole fleet to leave a queue alone, within about a second and until it is resumed. What
/// runs goes on; what waits can be cancelled, and its deadline passes as ever. Pausing twice changes
/// nothing.
#[utoipa::path(
    post, path = "/internal/queues/{name}/pause", operation_id = "pause_queue", tag = "internal",
    params(("name" = Priority, Path)), request_body = Pause, responses((status = 200, body = Queue))
)]
pub(in crate::routes) async fn pause(
    State(app): State<AppState>,
    _: Internal,
    Path(name): Path<Priority>,
    correlation: Correlation,
    Json(body): Json<Pause>,
) -> Result<axum::Json<Queue>> {
    let reason = body.reason.as_deref();
    let length = reason.map_or(0, |reason| reason.chars().count());
    let mut checks = Checks::default();
    checks.require(
        length <= MAX_REASON,
        "reason",
        "must have at most 500 characters",
    );
    checks.finish()?;
    app.operator
        .pause(name, reason, &actor(&correlation))
        .await?;
    one(&app, name).await
}

/// Lets the fleet take from a queue again. Resuming one that is open changes nothing.
#[utoipa::path(
    post, path = "/internal/queues/{name}/resume", operation_id = "resume_queue", tag = "internal",
    params(("name" = Priority, Path)), responses((status = 200, body = Queue))
)]
pub(in crate::routes) async fn resume(
    State(app): State<AppState>,
    _: Internal,
    Path(name): Path<Priority>,
    correlation: Correlation,
) -> Result<axum::Json<Queue>> {
    app.operator.resume(name, &actor(&correlation)).await?;
    one(&app, name).await
}

async fn one(app: &AppState, name: Priority) -> Result<axum::Json<Queue>> {
    let mut queues = app.operator.queues().await?.into_iter();
    match queues.find(|queue| queue.name == name) {
        Some(queue) => Ok(axum::Json(queue)),
        None => Err(Problem::internal(format!("there is no row of {name}"))),
    }
}
