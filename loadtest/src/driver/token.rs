//! The tokens of the run's users.

use anyhow::Context;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use uuid::Uuid;

use crate::clock;

/// How long a token is valid: longer than any run.
const VALID_SECONDS: u64 = 6 * 3_600;

#[derive(Debug, Serialize)]
struct Claims<'a> {
    sub: Uuid,
    tier: &'a str,
    role: &'a str,
    exp: u64,
}

/// Signs tokens with the first of the secrets the API accepts.
pub struct Signer {
    key: EncodingKey,
    tier: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer for users of `tier`.
    ///
    /// # Errors
    /// The list holds no secret.
    pub fn new(secrets: &str, tier: &str) -> anyhow::Result<Self> {
        let secret = secrets.split(',').next().unwrap_or_default().trim();
        anyhow::ensure!(
            !secret.is_empty(),
            "JWT_SECRET is needed to sign the users' tokens"
        );
        Ok(Self {
            key: EncodingKey::from_secret(secret.as_bytes()),
            tier: tier.to_owned(),
        })
    }

    /// The `Authorization` header of a user who has never been there before.
    ///
    /// # Errors
    /// The secret cannot sign.
    pub fn new_user(&self) -> anyhow::Result<String> {
        let exp = clock::unix_micros() / 1_000_000 + VALID_SECONDS;
        let claims = Claims {
            sub: Uuid::new_v4(),
            tier: &self.tier,
            role: "user",
            exp,
        };
        let token = jsonwebtoken::encode(&Header::default(), &claims, &self.key);
        Ok(format!(
            "Bearer {}",
            token.context("failed to sign a token")?
        ))
    }
}
