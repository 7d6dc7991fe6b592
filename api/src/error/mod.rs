//! Errors as clients and as operators see them.
//!
//! A [`Problem`] has two texts: `detail` for the caller, `cause` for the log. It travels to
//! [`render`](render::problems) inside the response's extensions, because only there the request id is at hand
//! and the cause can be logged once, in the request's span.

mod code;
mod render;
mod store;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

pub use code::Code;
pub use render::{AsIs, CONTENT_TYPE, chain, problems};

/// The result of everything that can end a request early.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    resets_at: Option<time::OffsetDateTime>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

/// One wrong field, parameter or header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: `attachments[0].url`, a parameter's or a header's name.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// RFC 9457 problem details, the body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Names the kind of problem: `urn:balas:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: &'a str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened to this request.
    pub detail: &'a str,
    /// The stable code of the kind.
    pub code: Code,
    /// The id of this request, as in `X-Request-Id` and in the logs.
    pub request_id: &'a str,
    /// Each wrong field, when the request as such is wrong.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    pub errors: &'a [FieldError],
    /// When the budget that is used up begins anew.
    #[serde(
        with = "shared::domain::timestamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(required = false)]
    pub resets_at: Option<time::OffsetDateTime>,
}

impl Problem {
    /// A problem whose `detail` the caller may read.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
            resets_at: None,
            cause: None,
        }
    }

    /// A problem for which the code's own sentence says enough.
    #[must_use]
    pub fn of(code: Code) -> Self {
        Self::new(code, code.doc())
    }

    /// A wrong field, parameter or header.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError {
            field: field.into(),
            message: message.into(),
        }])
    }

    /// Several wrong fields.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        Self::coded_fields(Code::ValidationFailed, errors)
    }

    /// Wrong fields whose kind has a code of its own.
    #[must_use]
    pub fn coded_fields(code: Code, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.field, only.message),
            several => format!("{} fields are wrong", several.len()),
        };
        Self {
            errors,
            ..Self::new(code, detail)
        }
    }

    /// A fault of Balas itself; the caller learns nothing but the request id.
    pub fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(Code::Internal).because(cause)
    }

    /// Adds what the log needs and the caller must not read.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds when the budget that is used up begins anew.
    #[must_use]
    pub fn until(mut self, resets_at: time::OffsetDateTime) -> Self {
        self.resets_at = Some(resets_at);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// What kind of problem it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// What the caller may read.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Each wrong field.
    #[must_use]
    pub fn field_errors(&self) -> &[FieldError] {
        &self.errors
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause
            .as_deref()
            .map(|cause| cause as &(dyn Error + 'static))
    }
}

/// Carries a [`Problem`] from its handler to the layer that writes it.
#[derive(Clone, Debug)]
struct Unrendered(Arc<Problem>);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.headers_mut().extend(self.headers.iter().cloned());
        response.extensions_mut().insert(Unrendered(Arc::new(self)));
        response
    }
}

/// Collects what is wrong with a request, so that the caller learns it all at once.
#[derive(Debug, Default)]
pub struct Checks(Vec<FieldError>);

impl Checks {
    /// Records `message` for `field` unless `holds`.
    pub fn require(&mut self, holds: bool, field: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.0.push(FieldError {
                field: field.into(),
                message: message.into(),
            });
        }
    }

    /// Ends the checking.
    ///
    /// # Errors
    /// When anything was wrong.
    pub fn finish(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Problem::fields(self.0))
        }
    }
}
