//! Who is calling: tokens of people, keys of services.

mod claims;
mod jwks;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use secrecy::{ExposeSecret, SecretString};
use shared::clock::Clock;
use shared::domain::{Role, Tier};
use subtle::{Choice, ConstantTimeEq};
use time::OffsetDateTime;
use uuid::Uuid;

use self::claims::Claims;
use self::jwks::{Jwks, KeyError};
use crate::config::AuthConfig;
use crate::error::{Code, Problem, Result};

/// A token longer than this is not read at all.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Whom a valid token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The person.
    pub id: Uuid,
    /// Which models they may use.
    pub tier: Tier,
    /// What they may do.
    pub role: Role,
    /// When the token ends.
    pub expires_at: OffsetDateTime,
}

/// Verifies tokens and service keys.
#[derive(Debug)]
pub struct Authenticator {
    secrets: Vec<DecodingKey>,
    hs256: Validation,
    asymmetric: Validation,
    jwks: Option<Jwks>,
    service_keys: Vec<SecretString>,
    clock: Clock,
}

impl Authenticator {
    /// Prepares the verification of what `config` trusts.
    ///
    /// # Errors
    /// When the client for `JWT_JWKS_URL` cannot be made.
    pub fn new(config: &AuthConfig, clock: Clock) -> Result<Self, reqwest::Error> {
        let secrets = config.jwt_secrets.iter();
        Ok(Self {
            secrets: secrets
                .map(|s| DecodingKey::from_secret(s.expose_secret().as_bytes()))
                .collect(),
            hs256: validation(config, &[Algorithm::HS256]),
            asymmetric: validation(config, jwks::ALGORITHMS),
            jwks: config
                .jwks_url
                .clone()
                .map(|url| Jwks::new(url, clock.clone()))
                .transpose()?,
            service_keys: config.service_keys.clone(),
            clock,
        })
    }

    /// Says whom `token` names.
    ///
    /// # Errors
    /// `token_invalid` or `token_expired`; `unavailable` while the public keys cannot be fetched
    /// and none were ever seen.
    pub async fn verify(&self, token: &str) -> Result<Identity> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused("the token is too long"));
        }
        let header = decode_header(token)
            .map_err(|error| refused("the token is malformed").because(error))?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: what is critical and not understood makes the token invalid.
            return Err(refused(
                "the token needs an extension that is not supported",
            ));
        }
        let claims = match header.alg {
            Algorithm::HS256 => self.verify_hs256(token)?,
            algorithm if jwks::ALGORITHMS.contains(&algorithm) => {
                self.verify_asymmetric(token, header.kid.as_deref(), algorithm)
                    .await?
            }
            _ => return Err(refused("the token's algorithm is not accepted")),
        };
        claims.identity(self.clock.now())
    }

    fn verify_hs256(&self, token: &str) -> Result<Claims> {
        let mut failure = refused("the token's signature is not valid");
        for secret in &self.secrets {
            match decode::<Claims>(token, secret, &self.hs256) {
                Ok(token) => return Ok(token.claims),
                // The signature was right, so no other secret can do better.
                Err(error) if !is_signature(&error) => return Err(rejected(error)),
                Err(error) => failure = failure.because(error),
            }
        }
        Err(failure)
    }

    async fn verify_asymmetric(
        &self,
        token: &str,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Claims> {
        let (Some(jwks), Some(kid)) = (&self.jwks, kid) else {
            return Err(refused("the token's key is not known"));
        };
        let key = jwks
            .key(kid, algorithm)
            .await
            .map_err(|error| match error {
                KeyError::Unknown => refused("the token's key is not known"),
                KeyError::Unreachable(cause) => Problem::of(Code::Unavailable).because(cause),
            })?;
        // The library wants every listed algorithm to fit the key, so just the one is listed.
        let validation = Validation {
            algorithms: vec![algorithm],
            ..self.asymmetric.clone()
        };
        decode::<Claims>(token, &key, &validation)
            .map(|token| token.claims)
            .map_err(rejected)
    }

    /// Whether `key` is one of the service keys. The time it takes tells nothing about them.
    #[must_use]
    pub fn is_service_key(&self, key: &[u8]) -> bool {
        let keys = self
            .service_keys
            .iter()
            .map(|known| known.expose_secret().as_bytes().ct_eq(key));
        keys.fold(Choice::from(0), |found, equal| found | equal)
            .into()
    }
}

/// Time is checked by [`Claims`] with our own clock, so the library is told not to.
fn validation(config: &AuthConfig, algorithms: &[Algorithm]) -> Validation {
    let mut validation = Validation {
        algorithms: algorithms.to_vec(),
        validate_exp: false,
        validate_nbf: false,
        ..Validation::default()
    };
    let mut required = vec!["exp"];
    match &config.issuer {
        Some(issuer) => {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        None => validation.iss = None,
    }
    match &config.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        None => validation.validate_aud = false,
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn is_signature(error: &jsonwebtoken::errors::Error) -> bool {
    matches!(
        error.kind(),
        jsonwebtoken::errors::ErrorKind::InvalidSignature
    )
}

fn rejected(error: jsonwebtoken::errors::Error) -> Problem {
    use jsonwebtoken::errors::ErrorKind;
    let detail = match error.kind() {
        ErrorKind::InvalidSignature => "the token's signature is not valid",
        ErrorKind::InvalidIssuer => "the token has another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => {
            "the token lacks exp, or iss or aud where they are required"
        }
        ErrorKind::Json(_) => "the token's claims are missing or have wrong types",
        _ => "the token is malformed",
    };
    refused(detail).because(error)
}

fn refused(detail: &'static str) -> Problem {
    Problem::new(Code::TokenInvalid, detail)
}

#[cfg(test)]
mod tests;
