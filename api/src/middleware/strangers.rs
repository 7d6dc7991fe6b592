//! A limit for those who show no valid credentials, by address.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::client_ip::ClientIp;
use crate::app::AppState;
use crate::limits;

/// Counts refused credentials and answers 429 once there were too many: guessing must not be free.
pub async fn slow_down_strangers(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let client = request.extensions().get::<ClientIp>().copied();
    let response = next.run(request).await;
    match client {
        Some(client) if response.status() == StatusCode::UNAUTHORIZED => {
            count(&app, client, response).await
        }
        _ => response,
    }
}

/// Counts every request of a route that asks for no credentials.
pub async fn public(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let Some(client) = request.extensions().get::<ClientIp>().copied() else {
        return next.run(request).await;
    };
    let limit = limits::strangers(&app.gate.config.limits);
    match limits::count(&app, limit, client.0).await {
        Ok(budget) => {
            let mut response = next.run(request).await;
            budget.write(&mut response);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

async fn count(app: &AppState, client: ClientIp, mut refused: Response) -> Response {
    let limit = limits::strangers(&app.gate.config.limits);
    match limits::count(app, limit, client.0).await {
        Ok(budget) => {
            budget.write(&mut refused);
            refused
        }
        Err(problem) => problem.into_response(),
    }
}
