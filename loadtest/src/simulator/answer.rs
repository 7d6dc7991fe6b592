//! What the answers of all endpoints share: who calls, refusals, and broken connections.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Duration;

use super::behaviour::Failure;
use super::connection::{Break, Handle};
use super::open_call::OpenCall;
use super::records::Outcome;
use super::script::BeforeHeaders;

/// Who calls.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The API key; empty when there is none.
    pub(crate) key: String,
    /// The key as it may be shown.
    pub(crate) label: String,
    pub(crate) request_id: Option<String>,
    pub(crate) traceparent: Option<String>,
}

impl Caller {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let authorization = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let key = authorization
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default()
            .trim();
        Self {
            key: key.to_owned(),
            label: label(key),
            request_id: text("x-request-id"),
            traceparent: text("traceparent"),
        }
    }
}

/// A key as it may be shown: no real key is as short as 24 characters, so those of tests stay
/// whole, and a real one that was set by mistake is not kept.
fn label(key: &str) -> String {
    let count = key.chars().count();
    if count <= 24 {
        return key.to_owned();
    }
    let first: String = key.chars().take(12).collect();
    let last: String = key.chars().skip(count - 4).collect();
    format!("{first}...{last}")
}

pub(crate) fn invalid(message: String) -> Failure {
    Failure {
        status: 400,
        message,
        error_type: "invalid_request".to_owned(),
        provider_code: None,
        limit_source: None,
        retryable: Some(false),
        retry_after: None,
        reset: None,
        metadata: true,
    }
}

pub(crate) fn no_key() -> Failure {
    Failure {
        status: 401,
        error_type: "authentication".to_owned(),
        ..invalid("No auth credentials found".to_owned())
    }
}

/// A failure as an HTTP answer.
pub(crate) fn failure(failure: &Failure) -> Response {
    let mut response = (failure.status_code(), Json(failure.body())).into_response();
    for (name, value) in failure.headers() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// A failure as the end of a call.
pub(crate) fn fail(call: &OpenCall, reason: &Failure) -> Response {
    call.set_status(reason.status);
    call.end(Outcome::Failed, None);
    failure(reason)
}

/// Silence or a broken connection instead of an answer.
pub(crate) async fn break_before_headers(
    how: BeforeHeaders,
    call: &OpenCall,
    connection: &Handle,
) -> Response {
    let how = match how {
        BeforeHeaders::Hang => std::future::pending().await,
        BeforeHeaders::Reset => Break::Reset,
        BeforeHeaders::Close => Break::Close,
    };
    call.end(Outcome::Cut, None);
    connection.break_now(how);
    Response::default()
}

pub(crate) async fn pause(millis: u64) {
    // A sleep of nothing still costs a turn of the timer wheel.
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

pub(crate) fn put_id(headers: &mut HeaderMap, call: &OpenCall, wanted: bool) {
    if let Some(value) = Some(&call.id)
        .filter(|_| wanted)
        .and_then(|id| HeaderValue::from_str(id).ok())
    {
        headers.insert(HeaderName::from_static("x-generation-id"), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_shortened() {
        assert_eq!(label("k1"), "k1");
        assert_eq!(
            label("sk-or-v1-0123456789abcdef0123456789abcdef"),
            "sk-or-v1-012...cdef"
        );
    }
}
