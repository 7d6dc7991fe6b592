//! Several API keys: the first that works is used, one that was refused rests for a while. Those of a
//! file may change while the process runs.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
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

/// All keys of this process, in the operator's order.
#[derive(Debug)]
pub(super) struct Keys(RwLock<Vec<Arc<Key>>>);

impl Keys {
    /// The keys in the operator's order; the same key twice is one. Without any, requests go out
    /// without a key.
    pub(super) fn new(secrets: impl IntoIterator<Item = SecretString>) -> Self {
        let keys = Self(RwLock::default());
        keys.replace(secrets);
        keys
    }

    /// Takes these from now on; calls that run keep theirs. A key that stays keeps its rest. Returns
    /// the labels of those that came and of those that went.
    pub(super) fn replace(
        &self,
        secrets: impl IntoIterator<Item = SecretString>,
    ) -> (Vec<String>, Vec<String>) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for new in secrets.into_iter().map(Key::new) {
            let same = |known: &&Arc<Key>| known.secret() == new.secret();
            if keys.iter().any(|known| same(&known)) {
                continue;
            }
            let known = current.iter().find(same).cloned();
            keys.push(known.unwrap_or_else(|| Arc::new(new)));
        }
        if keys.is_empty() {
            keys.push(Arc::new(Key {
                secret: None,
                label: "none".to_owned(),
                bench: Mutex::default(),
            }));
        }
        let missing_in = |others: &[Arc<Key>], key: &Arc<Key>| {
            others.iter().all(|other| other.secret() != key.secret())
        };
        let labels = |some: &[Arc<Key>], others: &[Arc<Key>]| {
            let missing = some.iter().filter(|key| missing_in(others, key));
            missing.map(|key| key.label.clone()).collect()
        };
        let changes = (labels(&keys, &current), labels(&current, &keys));
        *current = keys;
        changes
    }

    /// A key for questions that cost nothing: one that works, if there is any.
    pub(super) fn any(&self) -> Option<Arc<Key>> {
        let first = || self.read().first().cloned();
        self.choose(true, Instant::now()).or_else(first)
    }

    /// The key of this label, whatever was refused to it.
    pub(super) fn labelled(&self, label: &str) -> Option<Arc<Key>> {
        self.read().iter().find(|key| key.label == label).cloned()
    }

    /// The first key that was not refused for this kind of model.
    pub(super) fn choose(&self, free_model: bool, now: Instant) -> Option<Arc<Key>> {
        let keys = self.read();
        keys.iter().find(|key| key.usable(free_model, now)).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Key>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn new_keys_are_taken_and_those_that_stay_keep_their_rest() {
        let keys = keys(&["one", "two"]);
        let now = Instant::now();
        let one = keys.choose(true, now).unwrap();
        one.bench(Refusal::All, now);
        let secrets = ["three", "one", "two"].map(SecretString::from);
        let (came, went) = keys.replace(secrets);
        assert_eq!((came.len(), went.len()), (1, 0));
        assert_eq!(keys.choose(true, now).unwrap().secret(), Some("three"));
        let (came, went) = keys.replace(["one", "two"].map(SecretString::from));
        assert_eq!((came.len(), went.len()), (0, 1));
        assert_eq!(
            keys.choose(true, now).unwrap().secret(),
            Some("two"),
            "one still rests"
        );
        let (came, went) = keys.replace(["four"].map(SecretString::from));
        assert_eq!((came.len(), went.len()), (1, 2));
        assert_eq!(one.secret(), Some("one"), "a call that runs keeps its key");
    }
}
