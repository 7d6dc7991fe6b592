//! Which pages may call the API.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, Method, header};
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::AllowedOrigins;

/// Headers a page may read besides the ones browsers always allow.
const EXPOSED: [&str; 11] = [
    "etag",
    "idempotency-replayed",
    "location",
    "preference-applied",
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "www-authenticate",
    "x-request-id",
];

/// Headers a page may send.
const ACCEPTED: [&str; 6] = [
    "idempotency-key",
    "if-match",
    "last-event-id",
    "prefer",
    "traceparent",
    "x-request-id",
];

/// Which pages may call, and what for.
#[derive(Clone, Debug)]
pub struct Cors(CorsLayer);

/// Answers preflights and marks answers. The library takes every `OPTIONS` for a preflight, of whatever path: one that
/// is none, or is about nothing, goes to the routes like any other request.
pub async fn cors(State(Cors(layer)): State<Cors>, request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let asks = request.headers().contains_key(header::ORIGIN)
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_known = request.extensions().get::<MatchedPath>().is_some();
    if is_options && !(asks && is_known) {
        return next.run(request).await;
    }
    match layer.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

impl Cors {
    /// No credentials: tokens travel in a header, never in a cookie.
    #[must_use]
    pub fn new(origins: &AllowedOrigins) -> Self {
        Self(layer(origins))
    }
}

fn layer(origins: &AllowedOrigins) -> CorsLayer {
    let origins = match origins {
        AllowedOrigins::Any => AllowOrigin::any(),
        AllowedOrigins::Only(list) => AllowOrigin::list(list.iter().cloned()),
    };
    let accepted = ACCEPTED.into_iter().map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(
            accepted
                .chain([header::AUTHORIZATION, header::CONTENT_TYPE])
                .collect::<Vec<_>>(),
        )
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(Duration::from_secs(3600))
}
