//! `/api/chat/internal/upstreams`: how the models' provider is, as the fleet sees it.

use axum::extract::State;
use shared::upstreams::{self, Upstreams};

use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::Internal;

/// Which models are left alone, how full the account's buckets are, which keys were refused, and what the account
/// has left. Each worker tells what it knows every five seconds.
#[utoipa::path(
    get, path = "/internal/upstreams", operation_id = "show_upstreams", tag = "internal",
    responses(
        (status = 200, body = Upstreams),
        (status = 503, description = "unavailable"),
    )
)]
pub(in crate::routes) async fn show(
    State(app): State<AppState>,
    _: Internal,
) -> Result<axum::Json<Upstreams>> {
    let known = upstreams::read(&app.redis).await;
    known
        .map(axum::Json)
        .map_err(|_| Problem::of(Code::Unavailable))
}
