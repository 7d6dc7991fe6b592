//! Whose credentials are believed.

use secrecy::SecretString;
use shared::config::Vars;

use super::url;

/// Whose credentials are believed.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// HS256 secrets; any of them verifies.
    pub jwt_secrets: Vec<SecretString>,
    /// Where the public keys of asymmetric tokens are published.
    pub jwks_url: Option<String>,
    /// The one issuer, when set.
    pub issuer: Option<String>,
    /// The one audience, when set.
    pub audience: Option<String>,
    /// Keys of other services; any of them is accepted.
    pub service_keys: Vec<SecretString>,
}

impl AuthConfig {
    pub(super) fn from_vars(vars: &mut Vars) -> Self {
        let config = Self {
            jwt_secrets: vars.required_secrets(
                "JWT_SECRET",
                16,
                "comma-separated HS256 secrets of at least 16 bytes; any of them verifies a token",
            ),
            jwks_url: url(
                vars,
                "JWT_JWKS_URL",
                "where public keys for RS256, ES256 and EdDSA tokens are published",
            ),
            issuer: vars.optional("JWT_ISSUER", "the iss a token must have, when set"),
            audience: vars.optional("JWT_AUDIENCE", "the aud a token must have, when set"),
            service_keys: vars.secrets(
                "INTERNAL_SERVICE_KEY",
                "comma-separated keys of at least 16 bytes that other services send as X-Service-Key",
            ),
        };
        let short = |key: &SecretString| secrecy::ExposeSecret::expose_secret(key).len() < 16;
        if config.service_keys.iter().any(short) {
            vars.problem("INTERNAL_SERVICE_KEY", "each key needs at least 16 bytes");
        }
        config
    }
}
