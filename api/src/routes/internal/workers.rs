//! `/internal/workers`: the fleet.

use axum::extract::State;
use serde::Serialize;
use shared::domain::FleetWorker;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::error::Result;
use crate::extract::Internal;

/// The fleet.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Workers {
    workers: Vec<FleetWorker>,
}

/// The workers of the last day, those that live first.
#[utoipa::path(
    get, path = "/internal/workers", operation_id = "list_workers", tag = "internal",
    responses((status = 200, body = Workers))
)]
pub(in crate::routes) async fn list(
    State(app): State<AppState>,
    _: Internal,
) -> Result<axum::Json<Workers>> {
    let workers = app.operator.workers().await?;
    Ok(axum::Json(Workers { workers }))
}
