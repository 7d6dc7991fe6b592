//! Headers that tell browsers to be careful.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

/// The console loads nothing from elsewhere and runs no inline script.
const CONSOLE: &str = "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'; object-src 'none'";
/// Swagger UI sets styles from its scripts.
const DOCS: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'; object-src 'none'";

/// Adds them to every answer that has not set its own.
pub async fn security_headers(request: Request, next: Next) -> Response {
    let policy = if request.uri().path().starts_with("/docs") {
        DOCS
    } else {
        CONSOLE
    };
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, policy);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    // What a person wrote must not stay in a shared cache; static files say otherwise themselves.
    set(header::CACHE_CONTROL, "no-store");
    response
}
