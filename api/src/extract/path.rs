//! Path parameters.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::{Code, Problem, Result};

/// The parameters of the path, as type `T`.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(match error.into_kind() {
                    // An enum's own words, which do not say where it stood.
                    ErrorKind::Message(message) => {
                        Problem::field(only_name(parts, state).await, message)
                    }
                    kind => explain(kind),
                })
            }
            Err(error) => Err(Problem::internal(error)),
        }
    }
}

/// The name of the only parameter.
async fn only_name<S: Send + Sync>(parts: &mut Parts, state: &S) -> String {
    let parameters = RawPathParams::from_request_parts(parts, state).await;
    let mut names = parameters.iter().flatten().map(|(name, _)| name);
    match (names.next(), names.next()) {
        (Some(name), None) => name.to_owned(),
        _ => "path".to_owned(),
    }
}

fn explain(kind: ErrorKind) -> Problem {
    match kind {
        ErrorKind::ParseErrorAtKey {
            key, expected_type, ..
        } => Problem::field(key, format!("must be a {expected_type}")),
        ErrorKind::DeserializeError { key, message, .. } => Problem::field(key, message),
        ErrorKind::ParseError { expected_type, .. } => {
            Problem::field("path", format!("must be a {expected_type}"))
        }
        ErrorKind::InvalidUtf8InPathParam { key } => {
            Problem::new(Code::MalformedRequest, format!("{key}: is not UTF-8"))
        }
        // The rest is a handler whose type does not fit its own route.
        other => Problem::internal(other.to_string()),
    }
}
