//! The public keys of an issuer, fetched from its JSON Web Key Set and kept.
//!
//! A known key is never refused because the set cannot be fetched at the moment: an issuer that is
//! down must not log everybody out.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use shared::clock::Clock;
use time::OffsetDateTime;
use tokio::sync::Mutex;

/// What may sign a token besides our own secrets.
pub(super) const ALGORITHMS: &[Algorithm] = &[Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// A set older than this is fetched again, so that a withdrawn key stops working.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Two fetches are at least this far apart, so that tokens with made-up key ids cannot turn the
/// API into a flood against the issuer.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A set of some hundred keys; a larger answer is not a key set.
const MAX_SET_BYTES: usize = 512 * 1024;

type Keys = HashMap<String, (Algorithm, Arc<DecodingKey>)>;

#[derive(Debug)]
pub(super) struct Jwks {
    url: String,
    client: reqwest::Client,
    clock: Clock,
    known: RwLock<Known>,
    /// Held while fetching: one fetch at a time, the others wait for its result.
    fetching: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Arc<Keys>,
    fetched_at: Option<OffsetDateTime>,
    tried_at: Option<OffsetDateTime>,
}

/// Why there is no key.
#[derive(Debug)]
pub(super) enum KeyError {
    /// The issuer does not publish it.
    Unknown,
    /// No set could ever be fetched.
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
}

impl Jwks {
    pub(super) fn new(url: String, clock: Clock) -> Result<Self, reqwest::Error> {
        // Several parts of one process may do this; the first one wins and all are the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build()?;
        Ok(Self {
            url,
            client,
            clock,
            known: RwLock::default(),
            fetching: Mutex::default(),
        })
    }

    /// The key of that id, fetched when it is not known or the set is old.
    pub(super) async fn key(
        &self,
        kid: &str,
        algorithm: Algorithm,
    ) -> Result<Arc<DecodingKey>, KeyError> {
        let found = self.find(kid, algorithm);
        let failure = match &found {
            Some(_) if self.is_fresh() => None,
            // Somebody is fetching already, and the old key will do meanwhile.
            Some(_) => match self.fetching.try_lock() {
                Ok(_guard) => self.refresh().await.err(),
                Err(_) => None,
            },
            None => {
                let _guard = self.fetching.lock().await;
                match self.find(kid, algorithm) {
                    Some(key) => return Ok(key),
                    None => self.refresh().await.err(),
                }
            }
        };
        let never_fetched = self.read(|known| known.fetched_at.is_none());
        match (self.find(kid, algorithm), failure) {
            (Some(key), _) => Ok(key),
            (None, Some(cause)) if never_fetched => Err(KeyError::Unreachable(cause)),
            (None, None) if never_fetched => Err(KeyError::Unreachable(
                "the last fetch failed just now".into(),
            )),
            (None, _) => Err(KeyError::Unknown),
        }
    }

    fn find(&self, kid: &str, algorithm: Algorithm) -> Option<Arc<DecodingKey>> {
        self.read(|known| match known.keys.get(kid) {
            Some((of, key)) if *of == algorithm => Some(Arc::clone(key)),
            _ => None,
        })
    }

    fn is_fresh(&self) -> bool {
        let now = self.clock.now();
        self.read(|known| known.fetched_at.is_some_and(|at| now - at < MAX_AGE))
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    async fn refresh(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let now = self.clock.now();
        if self.read(|known| known.tried_at.is_some_and(|at| now - at < MIN_INTERVAL)) {
            return Ok(());
        }
        self.write(|known| known.tried_at = Some(now));
        match self.fetch().await {
            Ok(keys) => {
                tracing::info!(
                    keys.count = keys.len(),
                    "fetched the token issuer's public keys"
                );
                self.write(|known| {
                    known.keys = Arc::new(keys);
                    known.fetched_at = Some(now);
                });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    error = crate::error::chain(&*error),
                    "failed to fetch the token issuer's public keys"
                );
                Err(error)
            }
        }
    }

    async fn fetch(&self) -> Result<Keys, Box<dyn std::error::Error + Send + Sync>> {
        let mut response = self
            .client
            .get(&self.url)
            .send()
            .await?
            .error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_SET_BYTES {
                return Err("the key set is too large".into());
            }
            body.extend_from_slice(&chunk);
        }
        // Key by key, because one of a kind we do not know must not hide the others.
        let set: serde_json::Value = serde_json::from_slice(&body)?;
        let keys = set
            .get("keys")
            .and_then(|keys| keys.as_array())
            .ok_or("there is no key set")?;
        Ok(keys.iter().filter_map(usable).collect())
    }
}

/// A key that may verify signatures with one of the accepted algorithms.
fn usable(json: &serde_json::Value) -> Option<(String, (Algorithm, Arc<DecodingKey>))> {
    let set = serde_json::json!({ "keys": [json] });
    let jwk: Jwk = serde_json::from_value::<JwkSet>(set).ok()?.keys.pop()?;
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    if jwk
        .common
        .key_algorithm
        .is_some_and(|declared| declared != name)
    {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, (algorithm, Arc::new(key))))
}
