//! What is left of a limit, also in refusals that came before it was counted.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, header};

use crate::app::AppState;
use crate::extract::identify;
use crate::limits;

/// Adds the `RateLimit` headers where a limited route refused a request without having counted it. Only refusals cost
/// anything: the token is read once more, and Redis asked. Who is sent away because there is too much to do is sent
/// away at once.
pub async fn allowance(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let limit = route.and_then(|route| limits::of_route(request.method().as_str(), route.as_str()));
    let Some(limit) = limit else {
        return next.run(request).await;
    };
    let mut credentials = HeaderMap::new();
    for value in request.headers().get_all(header::AUTHORIZATION) {
        credentials.append(header::AUTHORIZATION, value.clone());
    }
    let mut response = next.run(request).await;
    if response.status().is_client_error()
        && !response.headers().contains_key("ratelimit-limit")
        && let Ok(user) = identify(&app.gate, &credentials).await
    {
        let limit = limit(&app.gate.config.limits);
        limits::left(&app, limit, user.id)
            .await
            .write(&mut response);
    }
    response
}
