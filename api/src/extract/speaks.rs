//! The language that a client asks for.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::header::ACCEPT_LANGUAGE;
use http::request::Parts;
use shared::domain::assessment::Language;

/// The language of `Accept-Language`, where it is one that Balas speaks by itself. Whatever else stands
/// there is no mistake: the header says what somebody would like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speaks(pub Option<Language>);

impl<S: Send + Sync> FromRequestParts<S> for Speaks {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get(ACCEPT_LANGUAGE);
        let text = header.and_then(|value| value.to_str().ok());
        Ok(Self(text.and_then(Language::accepted)))
    }
}
