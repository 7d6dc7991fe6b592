//! When which fault was going on, for judging what was seen meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use loadtest::clock::unix_micros;
use tokio::time::Instant;

use crate::fault::{Fault, Mark};
use crate::fleet::LEASE;

/// How long a request may still be sent in vain once a fault is over: pools have to find out.
const AFTERMATH: Duration = Duration::from_secs(5);

/// One fault from its beginning to the end of its healing.
#[derive(Debug, Clone)]
pub(crate) struct Spell {
    pub(crate) fault: Fault,
    /// The one process it was about, if it was about one.
    pub(crate) victim: Option<String>,
    pub(crate) from: Instant,
    pub(crate) to: Option<Instant>,
    from_us: u64,
    to_us: Option<u64>,
}

/// All spells so far.
#[derive(Debug, Default)]
pub(crate) struct Weather(Mutex<Vec<Spell>>);

impl Weather {
    fn spells(&self) -> MutexGuard<'_, Vec<Spell>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a spell; the faults come one at a time.
    pub(crate) fn begin(&self, fault: Fault) {
        self.spells().push(Spell {
            fault,
            victim: None,
            from: Instant::now(),
            to: None,
            from_us: unix_micros(),
            to_us: None,
        });
    }

    /// The present fault is about this process.
    pub(crate) fn about(&self, process: &str) {
        if let Some(spell) = self.spells().last_mut() {
            spell.victim = Some(process.to_owned());
        }
    }

    /// The present fault is about all of them after all.
    pub(crate) fn about_everybody(&self) {
        if let Some(spell) = self.spells().last_mut() {
            spell.victim = None;
        }
    }

    /// The present fault, or the last one.
    pub(crate) fn now(&self) -> Option<Fault> {
        self.spells().last().map(|spell| spell.fault)
    }

    /// Everything is healed.
    pub(crate) fn end(&self) {
        if let Some(spell) = self.spells().last_mut() {
            spell.to = Some(Instant::now());
            spell.to_us = Some(unix_micros());
        }
    }

    /// Whether the API was allowed to say that it cannot serve: a fault that takes its database
    /// away was going on between these two moments, or had just ended.
    pub(crate) fn excuses_refusal(&self, sent: Instant, answered: Instant) -> bool {
        self.spells().iter().any(|spell| {
            spell.fault.is(Mark::Refuses)
                && spell.from <= answered
                && spell.to.is_none_or(|to| sent <= to + AFTERMATH)
        })
    }

    /// For how long some worker has been able to look for lost work. None while none is.
    pub(crate) fn swept_for(&self, now: Instant) -> Option<Duration> {
        let spells = self.spells();
        let blind = spells
            .iter()
            .rev()
            .find(|spell| spell.fault.is(Mark::Blinds));
        match blind {
            None => Some(Duration::MAX),
            Some(spell) => spell.to.map(|to| now.saturating_duration_since(to)),
        }
    }

    /// The spells that kept a worker from the database or from an answer of the model about this
    /// time, so that what it then asked for was in vain.
    pub(crate) fn disturbed(&self, worker: &str, at_us: u64) -> bool {
        let lease_us = u64::try_from((LEASE * 2).as_micros()).unwrap_or(u64::MAX);
        self.spells().iter().any(|spell| {
            spell.fault.is(Mark::Disturbs)
                && spell.victim.as_deref().is_none_or(|name| name == worker)
                && spell.from_us <= at_us
                && spell.to_us.is_none_or(|to| at_us <= to + lease_us)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A spell of so many seconds after `start`.
    fn spell(fault: Fault, start: Instant, from: u64, to: Option<u64>) -> Spell {
        let at = |seconds| start + Duration::from_secs(seconds);
        Spell {
            fault,
            victim: None,
            from: at(from),
            to: to.map(at),
            from_us: 0,
            to_us: None,
        }
    }

    #[test]
    fn a_fault_of_the_database_excuses_what_it_overlaps_and_no_other_does() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let weather = Weather::default();
        weather
            .spells()
            .push(spell(Fault::RedisKill, start, 1, Some(2)));
        assert!(!weather.excuses_refusal(at(0), at(2)));
        assert_eq!(weather.swept_for(at(2)), Some(Duration::MAX));
        weather
            .spells()
            .push(spell(Fault::PostgresDown, start, 4, None));
        assert!(weather.excuses_refusal(at(0), at(5)));
        assert!(!weather.excuses_refusal(at(0), at(3)));
        assert_eq!(weather.swept_for(at(5)), None);
        weather.spells()[1].to = Some(at(6));
        assert_eq!(weather.swept_for(at(7)), Some(Duration::from_secs(1)));
        let after = at(6) + AFTERMATH;
        assert!(weather.excuses_refusal(after, after));
        let later = after + Duration::from_secs(1);
        assert!(!weather.excuses_refusal(later, later));
    }

    #[test]
    fn only_the_victim_is_disturbed() {
        let weather = Weather::default();
        weather.begin(Fault::WorkerFreeze);
        weather.about("worker-2");
        let now = unix_micros();
        assert!(weather.disturbed("worker-2", now));
        assert!(!weather.disturbed("worker-1", now));
        assert!(!weather.disturbed("worker-2", now - 10_000_000));
    }
}
