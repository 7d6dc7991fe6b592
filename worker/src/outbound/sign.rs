//! Signatures of Standard Webhooks (standardwebhooks.com, version 1 of the specification, symmetric).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::Sha256;
use uuid::Uuid;

/// What the specification allows.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// None is set.
    #[error("is required for http")]
    None,
    /// It is no base64.
    #[error("each secret must be base64, after whsec_")]
    NotBase64,
    /// It is too short to be safe, or longer than the specification allows.
    #[error("each secret must have 24 to 64 bytes before it is written as base64")]
    Length,
}

/// The secrets that sign. While one is rotated, each gives a signature and a receiver accepts any.
#[derive(Debug)]
pub struct SigningKeys(Vec<SecretBox<Vec<u8>>>);

impl Clone for SigningKeys {
    fn clone(&self) -> Self {
        let keys = self.0.iter();
        Self(
            keys.map(|key| SecretBox::new(Box::new(key.expose_secret().clone())))
                .collect(),
        )
    }
}

impl SigningKeys {
    /// Reads secrets as `whsec_` and base64; the prefix may be missing.
    ///
    /// # Errors
    /// When there is none or one cannot be used.
    pub fn new(secrets: &[SecretString]) -> Result<Self, SigningError> {
        if secrets.is_empty() {
            return Err(SigningError::None);
        }
        let read = |secret: &SecretString| {
            let text = secret.expose_secret();
            let key = STANDARD
                .decode(text.strip_prefix("whsec_").unwrap_or(text))
                .map_err(|_| SigningError::NotBase64)?;
            if !LENGTHS.contains(&key.len()) {
                return Err(SigningError::Length);
            }
            Ok(SecretBox::new(Box::new(key)))
        };
        Ok(Self(secrets.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// The value of `webhook-signature`; `timestamp` is in seconds since 1970.
    #[must_use]
    pub fn sign(&self, id: Uuid, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().filter_map(|key| {
            // A key of any length will do for HMAC.
            let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            let signature = STANDARD.encode(mac.finalize().into_bytes());
            Some(format!("v1,{signature}"))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str]) -> Result<SigningKeys, SigningError> {
        let secrets: Vec<SecretString> = secrets.iter().map(|text| (*text).into()).collect();
        SigningKeys::new(&secrets)
    }

    #[test]
    fn a_secret_must_be_fit_to_sign() {
        assert_eq!(keys(&[]).unwrap_err(), SigningError::None);
        assert_eq!(keys(&["whsec_???"]).unwrap_err(), SigningError::NotBase64);
        assert_eq!(keys(&["whsec_c2hvcnQ="]).unwrap_err(), SigningError::Length);
        let long = STANDARD.encode([7; 65]);
        assert_eq!(keys(&[&long]).unwrap_err(), SigningError::Length);
        assert!(!format!("{:?}", keys(&[&STANDARD.encode([7; 64])])).contains('7'));
    }

    /// Made with the reference library, `standardwebhooks` 1.1.0 of PyPI: `Webhook(secret).sign(id, time, body)`.
    #[test]
    fn signatures_are_those_of_the_reference_library() {
        let first = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let second = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";
        let id = "0193a2b4-5c6d-7e8f-9a0b-1c2d3e4f5a6b".parse().unwrap();
        for (body, by_first, by_second) in [
            (
                r#"{"test": 2432232314}"#,
                "v1,phfKjXQGAk2dpm+I7oT+XzTSCFlUbkeNjaAKhNBxGSc=",
                "v1,zB+5erXaeZoOM01cr8pT8TCvMYrsuIMYymE8NBn579g=",
            ),
            (
                r#"{"text":"Halo, apa kabar? é世😀\n"}"#,
                "v1,ulCe+Qg8n4JIwYdP5hwy0i19nJzJjgfO+kmCklB27CI=",
                "v1,OqAzL7eI4Rz14nqDEDVPh7jxXr44HPOr1lb7P77rHbE=",
            ),
            (
                "",
                "v1,u8tNkiHbC0shldPDlaYDNILDYS/us0OZVAzl9hwgA3o=",
                "v1,OhDacJqQstMfRzE0b5m6JevscD41vryDMIgRoAQxl1w=",
            ),
        ] {
            let sign = |secrets: &[&str]| {
                let keys = keys(secrets).unwrap();
                keys.sign(id, 1_614_265_330, body.as_bytes())
            };
            assert_eq!(sign(&[first]), by_first, "{body}");
            assert_eq!(sign(&[second.strip_prefix("whsec_").unwrap()]), by_second);
            // While one is rotated.
            assert_eq!(sign(&[second, first]), format!("{by_second} {by_first}"));
        }
    }
}
