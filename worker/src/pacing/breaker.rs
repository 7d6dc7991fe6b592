//! Breakers: what fails again and again is left alone for a while, and then tried by one call.
//!
//! Each (model, kind of failure) has its own. A worker counts what it sees itself; what has tripped is
//! noted in Redis, where all workers look once a second, so a model that works costs no look at all.
//! While Redis is away each worker has its own breakers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::upstream::ErrorClass;

/// Failures in a row that trip a breaker.
const TRIPS_AT: u32 = 5;

/// The longest a breaker stays open, unless it is told to rest longer the first time; each probe that
/// fails doubles the time until then. A probe costs one call of the whole fleet, and a model that works
/// again for a moment only is worth the moment.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How long a probe may take before another one is made.
/// Longer than a first token may take; one that was dropped is given up at once.
pub(super) const PROBE: Duration = Duration::from_secs(30);

/// While somebody probes, others come back after so long: the first token tells.
pub(super) const PROBED: Duration = Duration::from_secs(3);

/// What is remembered at most.
const MOST: usize = 10_000;

/// Which breaker.
pub(super) type Key = (String, ErrorClass);

/// What the fleet knows of those that are not closed: how long they stay open, and how long they were
/// told to.
pub(super) type Known = HashMap<Key, (Duration, Duration)>;

/// The state of one, as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls are made.
    Closed,
    /// None is.
    Open,
    /// One is.
    HalfOpen,
}

impl State {
    /// As it is told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// For the gauge: 0, 1 or 2 in the order of declaration.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }
}

/// Whether a model may be called, as far as its breakers are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// Yes.
    Go,
    /// Not for so long.
    Rest(Duration),
    /// By one call of the fleet, which closes this breaker or opens it again.
    Probe(Key),
}

/// Those of one worker.
#[derive(Debug)]
pub(super) struct Breakers {
    first_rest: Duration,
    known: Mutex<HashMap<Key, Breaker>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// Set while it is not closed.
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Instant,
    rest: Duration,
    probe: Option<Probe>,
}

/// Somebody tries the model.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// This worker.
    mine: bool,
    until: Instant,
}

impl Open {
    /// Until when nobody else may call.
    fn closed_to_all(&self) -> Instant {
        self.probe
            .map_or(self.until, |probe| probe.until.max(self.until))
    }
}

/// Whether failures of a class say something about the next call. What is wrong with a prompt, a key
/// or the account's limit has its own treatment.
pub(super) const fn counts(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::ServerError
            | ErrorClass::Unavailable
            | ErrorClass::Capacity
            | ErrorClass::EmptyAnswer
            | ErrorClass::Connection
            | ErrorClass::Malformed
            | ErrorClass::Timeout
            | ErrorClass::NoEndpoint
            | ErrorClass::UnknownModel
    )
}

impl Breakers {
    pub(super) fn new(first_rest: Duration) -> Self {
        Self {
            first_rest,
            known: Mutex::default(),
        }
    }

    /// Asks about a model. All its breakers must let the call through.
    pub(super) fn ask(&self, model: &str, now: Instant) -> Say {
        let known = self.lock();
        let own = known.iter().filter(|((name, _), _)| name == model);
        let open = own.filter_map(|(key, breaker)| Some((key, breaker.open?)));
        // The one that rests longest decides; those that are over are probed together.
        match open.max_by_key(|(_, open)| open.closed_to_all()) {
            None => Say::Go,
            Some((_, open)) if open.closed_to_all() > now => {
                let rest = open.closed_to_all() - now;
                let is_probed = open.until <= now;
                Say::Rest(if is_probed { rest.min(PROBED) } else { rest })
            }
            Some((key, _)) => Say::Probe(key.clone()),
        }
    }

    /// Somebody probes: this worker, or another one.
    pub(super) fn probing(&self, key: &Key, mine: bool, until: Instant) {
        let mut known = self.lock();
        if let Some(Breaker {
            open: Some(open), ..
        }) = known.get_mut(key)
        {
            open.probe = Some(Probe { mine, until });
        }
    }

    /// This worker's probes of a model said nothing. Returns which they were.
    pub(super) fn released(&self, model: &str) -> Vec<Key> {
        let mut released = Vec::new();
        for (key, breaker) in self.lock().iter_mut() {
            if let Some(open) = &mut breaker.open
                && key.0 == model
                && open.probe.is_some_and(|probe| probe.mine)
            {
                open.probe = None;
                released.push(key.clone());
            }
        }
        released
    }

    /// A call has begun to answer, which ends a probe: it would keep all others waiting for as long as
    /// a reply takes. Returns the breakers that are closed by it.
    pub(super) fn answers(&self, model: &str) -> Vec<Key> {
        let mut closed = Vec::new();
        self.lock().retain(|key, breaker| {
            let stays = key.0 != model || breaker.open.is_none();
            if !stays {
                closed.push(key.clone());
            }
            stays
        });
        closed
    }

    /// A call gave an answer. Returns the breakers that are closed by it.
    pub(super) fn worked(&self, model: &str) -> Vec<Key> {
        let mut closed = Vec::new();
        self.lock().retain(|key, breaker| {
            let stays = key.0 != model;
            if !stays && breaker.open.is_some() {
                closed.push(key.clone());
            }
            stays
        });
        closed
    }

    /// A call failed. Returns the breakers that are opened by it, and for how long: its own after some
    /// failures in a row, and any that this call was the probe of.
    pub(super) fn failed(
        &self,
        model: &str,
        class: ErrorClass,
        now: Instant,
    ) -> Vec<(Key, Duration)> {
        if !counts(class) {
            return Vec::new();
        }
        let mut known = self.lock();
        let own: Key = (model.to_owned(), class);
        if known.len() < MOST || known.contains_key(&own) {
            known.entry(own.clone()).or_default().failures += 1;
        }
        let mut opened = Vec::new();
        for (key, breaker) in known.iter_mut().filter(|(key, _)| key.0 == model) {
            let rest = match breaker.open {
                None if *key == own && breaker.failures >= TRIPS_AT => self.first_rest,
                Some(open) if open.probe.is_some_and(|probe| probe.mine) => {
                    (open.rest * 2).min(LONGEST_REST.max(self.first_rest))
                }
                // Not yet; or the call began before it was opened, and says nothing new.
                None | Some(_) => continue,
            };
            breaker.open = Some(Open {
                until: now + rest,
                rest,
                probe: None,
            });
            opened.push((key.clone(), rest));
        }
        opened
    }

    /// What the fleet knows: all others are closed there.
    pub(super) fn heard(&self, fleet: &Known, now: Instant) {
        let mut known = self.lock();
        known.retain(|key, breaker| breaker.open.is_none() || fleet.contains_key(key));
        for (key, (left, rest)) in fleet {
            let breaker = known.entry(key.clone()).or_default();
            let probe = breaker.open.and_then(|open| open.probe);
            breaker.open = Some(Open {
                until: now + *left,
                rest: *rest,
                probe: probe.filter(|_| left.is_zero()),
            });
        }
    }

    /// Those that are not closed.
    pub(super) fn states(&self, now: Instant) -> Vec<(Key, State)> {
        let known = self.lock();
        let open = known
            .iter()
            .filter_map(|(key, breaker)| Some((key, breaker.open?)));
        let state = |open: Open| {
            if open.until > now {
                State::Open
            } else {
                State::HalfOpen
            }
        };
        open.map(|(key, open)| (key.clone(), state(open))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Breaker>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
