//! The ids that the work of a request carries on.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;

use shared::traces::TraceParent;

use crate::middleware::RequestId;

/// Request id and trace context, as the outermost layer found or made them.
#[derive(Clone, Debug, Default)]
pub struct Correlation {
    request_id: Option<RequestId>,
    traceparent: Option<String>,
}

impl Correlation {
    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref().map(RequestId::as_str)
    }

    /// `traceparent` for what this request sets off.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Correlation {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            request_id: parts.extensions.get::<RequestId>().cloned(),
            traceparent: parts
                .extensions
                .get::<TraceParent>()
                .map(ToString::to_string),
        })
    }
}
