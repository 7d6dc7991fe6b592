//! Which pages may call the API.

use std::time::Duration;

use http::{HeaderName, Method, header};
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

/// The layer that answers preflights and marks answers. No credentials: tokens travel in a header,
/// never in a cookie.
pub fn cors(origins: &AllowedOrigins) -> CorsLayer {
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
