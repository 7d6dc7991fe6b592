//! User tokens for trying things out: HS256 JWTs as the API verifies them (api.md, "Auth").

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::ValueEnum;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

/// What a user has paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    Free,
    Premium,
}

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    User,
    Admin,
}

/// The content of a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims {
    pub(crate) user: Uuid,
    pub(crate) tier: Tier,
    pub(crate) role: Role,
    /// Seconds since 1970.
    pub(crate) issued_at: u64,
    /// Seconds since 1970.
    pub(crate) expires_at: u64,
}

impl Claims {
    fn json(&self) -> String {
        let tier = match self.tier {
            Tier::Free => "free",
            Tier::Premium => "premium",
        };
        let role = match self.role {
            Role::User => "user",
            Role::Admin => "admin",
        };
        // Nothing here can hold a character that JSON would escape.
        format!(
            r#"{{"sub":"{}","tier":"{tier}","role":"{role}","iat":{},"exp":{}}}"#,
            self.user, self.issued_at, self.expires_at
        )
    }
}

/// Signs with the first of a comma-separated list of secrets: the API accepts all of them, so that
/// a secret can be rotated, and the first is the new one.
pub(crate) fn sign(claims: &Claims, secrets: &str) -> anyhow::Result<String> {
    let secret = secrets
        .split(',')
        .map(str::trim)
        .find(|secret| !secret.is_empty())
        .context("JWT_SECRET holds no secret")?;
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let body = URL_SAFE_NO_PAD.encode(claims.json());
    let signed = format!("{header}.{body}");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .context("JWT_SECRET cannot be used as a key")?;
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    Ok(format!("{signed}.{signature}"))
}

/// Reads "90s", "30m", "24h", "7d"; a bare number is seconds.
pub(crate) fn parse_ttl(text: &str) -> anyhow::Result<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => bail!("write a number and s, m, h or d, such as 24h"),
    };
    let count: u64 = digits
        .parse()
        .ok()
        .context("write a number and s, m, h or d, such as 24h")?;
    let seconds = count
        .checked_mul(unit)
        // A century is more than enough, and the sum with the present time cannot overflow.
        .filter(|seconds| (1..=100 * 366 * 24 * 60 * 60).contains(seconds))
        .context("must lie between 1 second and 100 years")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            user: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
            tier: Tier::Premium,
            role: Role::Admin,
            issued_at: 1_700_000_000,
            expires_at: 1_700_086_400,
        }
    }

    #[test]
    fn the_signature_is_hs256_over_header_and_body() {
        // RFC 7515, appendix A.1.1: its header, payload and key give its signature.
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(signed.as_bytes());
        assert_eq!(
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
    }

    #[test]
    fn a_token_carries_its_claims_and_the_first_secret_signs() {
        let token = sign(&claims(), " new-secret-of-16-bytes , old").unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let text = |part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(text(parts[0]), r#"{"alg":"HS256","typ":"JWT"}"#);
        assert_eq!(
            text(parts[1]),
            r#"{"sub":"01900000-0000-7000-8000-000000000001","tier":"premium","role":"admin","iat":1700000000,"exp":1700086400}"#
        );
        assert_eq!(token, sign(&claims(), "new-secret-of-16-bytes").unwrap());
        assert_ne!(token, sign(&claims(), "old").unwrap());
        assert!(sign(&claims(), " , ").is_err());
    }

    #[test]
    fn lifetimes_are_read_with_their_units() {
        let seconds = |text| parse_ttl(text).map(|ttl| ttl.as_secs()).ok();
        assert_eq!(seconds("90"), Some(90));
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("30m"), Some(1800));
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("7d"), Some(604_800));
        for bad in [
            "",
            "h",
            "0h",
            "-1h",
            "1w",
            "1.5h",
            "9999999999999999999d",
            "200000d",
            "1hé",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
