//! What a token says, once its signature was found to be right.

use serde::Deserialize;
use shared::domain::{Role, Tier};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Identity, refused};
use crate::error::{Code, Problem, Result};

/// How far the clocks of issuer and API may be apart.
const LEEWAY: Duration = Duration::seconds(5);

/// The claims Balas reads; others are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: Option<Uuid>,
    id: Option<Uuid>,
    user_id: Option<Uuid>,
    #[serde(default)]
    tier: Tier,
    #[serde(default)]
    role: Role,
    exp: f64,
    nbf: Option<f64>,
}

impl Claims {
    pub(super) fn identity(&self, now: OffsetDateTime) -> Result<Identity> {
        let id = self.sub.or(self.id).or(self.user_id);
        let id = id.ok_or_else(|| refused("the token names no user in sub, id or user_id"))?;
        let expires_at = instant(self.exp)?;
        if expires_at + LEEWAY <= now {
            return Err(Problem::new(Code::TokenExpired, "the token has expired"));
        }
        if let Some(not_before) = self.nbf
            && instant(not_before)? > now + LEEWAY
        {
            return Err(refused("the token is not valid yet"));
        }
        Ok(Identity {
            id,
            tier: self.tier,
            role: self.role,
            expires_at,
        })
    }
}

/// A NumericDate of RFC 7519: seconds since 1970, perhaps with a fraction.
fn instant(seconds: f64) -> Result<OffsetDateTime> {
    // Year 9999 is where the calendar of `time` ends; some issuers use it as "never".
    const LATEST: f64 = 253_370_764_800.0;
    if !(0.0..).contains(&seconds) {
        return Err(refused("exp and nbf must be seconds since 1970"));
    }
    OffsetDateTime::from_unix_timestamp(seconds.min(LATEST) as i64)
        .map_err(|error| refused("exp and nbf must be seconds since 1970").because(error))
}
