//! Query parameters.

use axum::extract::{FromRequestParts, MatchedPath};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::json::field_of;
use crate::error::{FieldError, Problem, Result};
use crate::openapi;

/// The query string as type `T`. Unknown parameters are refused where `T` says so
/// (`deny_unknown_fields`), which every type of this crate does.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Refuses what is asked of an operation that takes no query parameters: like an unknown field of a body it is most
/// likely a mistake, and would do nothing.
///
/// # Errors
/// `validation_failed`, naming the first.
pub(super) fn refuse_unknown(parts: &Parts) -> Result<()> {
    let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) else {
        return Ok(());
    };
    let route = parts.extensions.get::<MatchedPath>();
    if !route.is_some_and(|route| openapi::takes_no_query(&parts.method, route.as_str())) {
        return Ok(());
    }
    let first = form_urlencoded::parse(query.as_bytes()).next();
    let name = first.map_or_else(String::new, |(name, _)| name.replace('\0', "\u{fffd}"));
    Err(Problem::field(
        name,
        "unknown parameter, there are none here",
    ))
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<T> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    if let Some((name, _)) = pairs
        .clone()
        .find(|(name, value)| name.contains('\0') || value.contains('\0'))
    {
        return Err(Problem::field(
            name.replace('\0', "\u{fffd}"),
            "must not contain NUL characters",
        ));
    }
    let deserializer = serde_urlencoded::Deserializer::new(pairs);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let message = error.inner().to_string();
        let field = match field_of(&error.path().to_string(), &message) {
            root if root == "body" => "query".to_owned(),
            field => field,
        };
        Problem::fields(vec![FieldError { field, message }])
    })
}
