//! Requests that may be repeated without doing their work twice.

use axum::extract::{FromRef, FromRequest, Request};
use http::HeaderMap;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::json;
use crate::error::{Problem, Result};
use crate::gate::Gate;

/// The client's name for one request: 1 to 255 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A JSON body together with what makes a repetition of the request recognisable.
#[derive(Clone, Debug)]
pub struct Idempotent<T> {
    /// The client's key, if it sent one.
    pub key: Option<IdempotencyKey>,
    /// SHA-256 of method, path and body: what the same key must come with again.
    pub fingerprint: [u8; 32],
    /// The body.
    pub body: T,
}

impl IdempotencyKey {
    /// The key as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of a request, if it has one.
    ///
    /// # Errors
    /// When it is malformed or comes twice.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let bytes = value.as_bytes();
        let valid = (1..=255).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        match (valid, values.next()) {
            (true, None) => Ok(Some(Self(String::from_utf8_lossy(bytes).into_owned()))),
            _ => Err(Problem::field(
                "Idempotency-Key",
                "must be one value of 1 to 255 visible ASCII characters",
            )),
        }
    }
}

impl<S, T> FromRequest<S> for Idempotent<T>
where
    S: Send + Sync,
    Gate: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let key = IdempotencyKey::from_headers(request.headers())?;
        let mut hash = Sha256::new();
        hash.update(request.method().as_str());
        hash.update([0]);
        hash.update(request.uri().path());
        hash.update([0]);
        let bytes = json::read(request, state).await?;
        hash.update(&bytes);
        Ok(Self {
            key,
            fingerprint: hash.finalize().into(),
            body: json::parse(&bytes)?,
        })
    }
}
