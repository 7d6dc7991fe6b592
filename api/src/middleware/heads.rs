//! How large the head of a request may be, whichever version of HTTP it comes by.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{Code, Problem};

/// Bytes of the head of a request.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;
/// What RFC 9113, 6.5.2 counts for each field besides its name and value.
const FIELD: usize = 32;

/// Refuses what the library of HTTP/2 lets through: it is told of a larger limit, because what it refuses itself has
/// a status alone. HTTP/1 never comes so far.
pub async fn heads(request: Request, next: Next) -> Response {
    let fields = request.headers().iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD)
        .sum();
    let target = request.uri().path_and_query();
    if fields + target.map_or(0, |target| target.as_str().len()) > MAX_HEAD_BYTES {
        return Problem::of(Code::HeadersTooLarge).into_response();
    }
    next.run(request).await
}
