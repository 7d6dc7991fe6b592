//! The time a request may take.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{Code, Problem};
use crate::extract::{MAX_WAIT, wait_of};
use crate::gate::Gate;

/// Ends a request that takes longer than `REQUEST_TIMEOUT`, plus the time it asked to wait. A stream
/// is not cut: only the time until its first byte counts.
pub async fn deadline(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let allowed = gate.config.server.request_timeout + requested_wait(&request) + besides(&request);
    match tokio::time::timeout(allowed, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::of(Code::Timeout).into_response(),
    }
}

/// How long a file may take to come, besides.
const UPLOAD: Duration = Duration::from_mins(15);

/// What a route takes longer for by itself.
fn besides(request: &Request) -> Duration {
    if request.method() != http::Method::POST {
        return Duration::ZERO;
    }
    match request.uri().path() {
        crate::routes::UPLOADS => UPLOAD,
        crate::routes::SUPPORT_CHAT => crate::routes::SUPPORT_WAIT,
        _ => Duration::ZERO,
    }
}

/// What `Prefer: wait` or `?wait=` asks for. A malformed one is refused by its extractor later.
fn requested_wait(request: &Request) -> Duration {
    let preferred = wait_of(request.headers())
        .ok()
        .flatten()
        .unwrap_or_default();
    let polled = request.uri().query().and_then(|query| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let (_, value) = pairs.find(|(name, _)| name == "wait")?;
        value.parse().ok().map(Duration::from_secs)
    });
    preferred.max(polled.unwrap_or_default()).min(MAX_WAIT)
}
