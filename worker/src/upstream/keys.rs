//! Several API keys: the first that works is used, one that was refused rests for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// How long this process leaves a refused key alone. A key that was topped up or enabled again
/// works without a restart, and a dead one costs one refused call in this time.
pub(super) const BENCH: Duration = Duration::from_mins(5);

/// What a key was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Everything.
    All,
    /// Models that cost something; free ones may still be served.
    Paid,
}

/// One key and what became of it.
#[derive(Debug)]
pub(super) struct Key {
    secret: Option<SecretString>,
    label: String,
    bench: Mutex<Bench>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bench {
    all_until: Option<Instant>,
    paid_until: Option<Instant>,
}

impl Key {
    fn new(secret: SecretString) -> Self {
        let digest = Sha256::digest(secret.expose_secret().as_bytes());
        let label = digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            secret: Some(secret),
            label,
            bench: Mutex::default(),
        }
    }

    /// What stands for the key in logs and in the ledger: the first 8 hex digits of its SHA-256.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// The key itself; none where the upstream wants none.
    pub(super) fn secret(&self) -> Option<&str> {
        self.secret.as_ref().map(|secret| secret.expose_secret())
    }

    /// Leaves the key alone for [`BENCH`]. Every worker process learns it for itself.
    pub(super) fn bench(&self, refusal: Refusal, now: Instant) {
        let mut bench = self.bench.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal {
            Refusal::All => bench.all_until = Some(now + BENCH),
            Refusal::Paid => bench.paid_until = Some(now + BENCH),
        }
        tracing::error!(key.label = %self.label, ?refusal, bench_s = BENCH.as_secs(), "upstream refused an API key");
    }

    fn usable(&self, free_model: bool, now: Instant) -> bool {
        let bench = *self.bench.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |until: Option<Instant>| until.is_none_or(|until| until <= now);
        over(bench.all_until) && (free_model || over(bench.paid_until))
    }
}

/// All keys of this process.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// The keys in the operator's order; the same key twice is one. Without any, requests go out
    /// without a key.
    pub(super) fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        let mut keys: Vec<Key> = Vec::new();
        for key in secrets.into_iter().map(Key::new) {
            if keys.iter().all(|known| known.secret() != key.secret()) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            keys.push(Key {
                secret: None,
                label: "none".to_owned(),
                bench: Mutex::default(),
            });
        }
        Self(keys)
    }

    /// A key for questions that cost nothing: one that works, if there is any.
    pub(super) fn any(&self) -> Option<&Key> {
        self.choose(true, Instant::now()).or(self.0.first())
    }

    /// The first key that was not refused for this kind of model.
    pub(super) fn choose(&self, free_model: bool, now: Instant) -> Option<&Key> {
        self.0.iter().find(|key| key.usable(free_model, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str]) -> Keys {
        Keys::new(secrets.iter().map(|secret| SecretString::from(*secret)))
    }

    #[test]
    fn a_refused_key_rests_and_comes_back() {
        let keys = keys(&["one", "two", "one"]);
        let now = Instant::now();
        let first = keys.choose(true, now).unwrap();
        assert_eq!(first.secret(), Some("one"));
        first.bench(Refusal::All, now);
        let second = keys.choose(true, now).unwrap();
        assert_eq!(second.secret(), Some("two"));
        second.bench(Refusal::All, now);
        assert!(keys.choose(true, now).is_none());
        assert!(keys.choose(false, now).is_none());
        assert_eq!(
            keys.choose(false, now + BENCH).unwrap().secret(),
            Some("one")
        );
    }

    #[test]
    fn a_key_without_credit_still_serves_free_models() {
        let keys = keys(&["one"]);
        let now = Instant::now();
        keys.choose(false, now).unwrap().bench(Refusal::Paid, now);
        assert!(keys.choose(false, now).is_none());
        assert!(keys.choose(true, now).is_some());
    }

    #[test]
    fn a_label_is_the_start_of_the_sha256_and_not_of_the_key() {
        let keys = keys(&["sk-or-v1-secret"]);
        let key = keys.choose(true, Instant::now()).unwrap();
        assert_eq!(key.label(), "54cbd2d9");
        assert!(!format!("{keys:?}").contains("sk-or"));
    }

    #[test]
    fn without_keys_requests_go_without_one() {
        let keys = keys(&[]);
        let key = keys.choose(false, Instant::now()).unwrap();
        assert_eq!((key.secret(), key.label()), (None, "none"));
    }
}
