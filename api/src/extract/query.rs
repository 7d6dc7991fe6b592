//! Query parameters.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::json::field_of;
use crate::error::{FieldError, Problem, Result};

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
