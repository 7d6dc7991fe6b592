//! Writes every error answer as problem details, those of libraries included.

use std::error::Error;
use std::fmt::Write as _;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

use super::{Code, Problem, ProblemBody, Unrendered};
use crate::middleware::RequestId;

/// Marks an answer of status 400 and above whose body is meant to stay.
#[derive(Clone, Copy, Debug)]
pub struct AsIs;

/// The media type of RFC 9457.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// The middleware that turns every response of status 400 and above into problem details, whoever
/// made it: handlers, extractors, axum's routing, or a layer.
pub async fn problems(request: Request, next: Next) -> Response {
    let request_id = request.extensions().get::<RequestId>().cloned();
    let mut response = next.run(request).await;
    let status = response.status();
    let found = response.extensions_mut().remove::<Unrendered>();
    let problem = match &found {
        Some(Unrendered(problem)) => problem.as_ref(),
        None if !status.is_client_error() && !status.is_server_error() => return response,
        None if response.extensions().get::<AsIs>().is_some() => return response,
        // A library's own answer: its status is right, its text is for nobody.
        None => &Problem::of(Code::of_status(status)),
    };
    log(problem);
    let request_id = request_id.as_ref().map_or("", RequestId::as_str);
    let (mut parts, _) = response.into_parts();
    parts.status = problem.code.status();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts
        .headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    parts
        .headers
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    parts.extensions.insert(problem.code);
    Response::from_parts(parts, Body::from(problem.body(request_id))).into_response()
}

impl Problem {
    /// The problem as the caller reads it.
    #[must_use]
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let body = ProblemBody {
            kind: format!("urn:balas:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id,
            errors: &self.errors,
            resets_at: self.resets_at,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

fn log(problem: &Problem) {
    let code = problem.code.as_str();
    let cause = problem.source().map(chain).unwrap_or_default();
    // Somebody may try again a thousand times a second; the watch over the queues says it once.
    let is_fault = problem.code.status().is_server_error() && problem.code != Code::Overloaded;
    match is_fault {
        true => tracing::error!(
            problem.code = code,
            problem.cause = cause,
            "failed to answer a request"
        ),
        false => tracing::debug!(
            problem.code = code,
            problem.cause = cause,
            "refused a request"
        ),
    }
}

/// An error and everything that caused it, on one line.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _ = write!(text, ": {error}");
        next = error.source();
    }
    text
}
