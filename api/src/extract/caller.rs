//! Who calls, as the type of an argument.

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::query;
use crate::auth::Identity;
use crate::error::{Code, Problem, Result};
use crate::gate::Gate;

const SERVICE_KEY: HeaderName = HeaderName::from_static("x-service-key");

/// A person with a valid token.
#[derive(Clone, Copy, Debug)]
pub struct User(pub Identity);

/// A person whose token says administrator.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub Identity);

/// Another service with a valid key.
#[derive(Clone, Copy, Debug)]
pub struct Internal;

/// A person, or another service.
#[derive(Clone, Copy, Debug)]
pub enum UserOrInternal {
    /// A person with a valid token.
    User(Identity),
    /// A service with a valid key.
    Internal,
}

impl<S> FromRequestParts<S> for User
where
    S: Send + Sync,
    Gate: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let identity = identify(&Gate::from_ref(state), &parts.headers).await?;
        tracing::Span::current().record("user.id", tracing::field::display(identity.id));
        query::refuse_unknown(parts)?;
        Ok(Self(identity))
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Gate: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let User(identity) = User::from_request_parts(parts, state).await?;
        match identity.role {
            shared::domain::Role::Admin => Ok(Self(identity)),
            shared::domain::Role::User => Err(Problem::of(Code::AdminRequired)),
        }
    }
}

impl<S> FromRequestParts<S> for Internal
where
    S: Send + Sync,
    Gate: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let key = parts
            .headers
            .get(SERVICE_KEY)
            .ok_or_else(|| Problem::of(Code::ServiceKeyInvalid))?;
        match Gate::from_ref(state).auth.is_service_key(key.as_bytes()) {
            true => query::refuse_unknown(parts).map(|()| Self),
            false => Err(Problem::of(Code::ServiceKeyInvalid)),
        }
    }
}

impl<S> FromRequestParts<S> for UserOrInternal
where
    S: Send + Sync,
    Gate: FromRef<S>,
{
    type Rejection = Problem;

    /// Whoever shows a key is judged by the key.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        if parts.headers.contains_key(SERVICE_KEY) {
            let Internal = Internal::from_request_parts(parts, state).await?;
            return Ok(Self::Internal);
        }
        let User(identity) = User::from_request_parts(parts, state).await?;
        Ok(Self::User(identity))
    }
}

/// Whom the credentials of a request name.
///
/// # Errors
/// When there are none, or they are not valid.
pub async fn identify(gate: &Gate, headers: &HeaderMap) -> Result<Identity> {
    let token = bearer(headers).map_err(challenge)?;
    gate.auth.verify(token).await.map_err(challenge)
}

/// The token of the one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => {
            return Err(Problem::new(
                Code::Unauthenticated,
                "the Authorization header is missing",
            ));
        }
        (Some(value), None) => value,
        (Some(_), Some(_)) => {
            return Err(Problem::new(
                Code::TokenInvalid,
                "there are two Authorization headers",
            ));
        }
    };
    let text = value
        .to_str()
        .map_err(|_| Problem::new(Code::TokenInvalid, "the token is malformed"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Problem::new(
            Code::Unauthenticated,
            "the Authorization header must be `Bearer <token>`",
        )),
    }
}

/// RFC 6750, 3: every 401 says which scheme to use, and what was wrong with a token that came.
fn challenge(problem: Problem) -> Problem {
    let value = match problem.code() {
        Code::Unauthenticated => "Bearer",
        Code::TokenInvalid | Code::TokenExpired => "Bearer error=\"invalid_token\"",
        _ => return problem,
    };
    problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(value))
}
