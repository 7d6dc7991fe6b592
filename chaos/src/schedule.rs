//! The order of the faults: a pure function of the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt, SeedableRng};

use crate::fault::Fault;

/// A fault that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// Decides who is hit, how long, how hard.
    pub(crate) dice: u64,
    /// Calm before it.
    pub(crate) pause: Duration,
}

/// An endless series. Without a single fault asked for, they come in decks: each deck has every fault
/// once, so a run that is long enough has seen all of them.
pub(crate) fn schedule(seed: u64, only: Option<Fault>) -> impl Iterator<Item = Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut deck = Vec::new();
    std::iter::from_fn(move || {
        if deck.is_empty() {
            deck = only.map_or_else(|| Fault::ALL.to_vec(), |fault| vec![fault]);
            deck.shuffle(&mut random);
        }
        Some(Planned {
            fault: deck.pop()?,
            dice: random.random(),
            pause: Duration::from_millis(random.random_range(500..2_500)),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn first(seed: u64, count: usize) -> Vec<Planned> {
        schedule(seed, None).take(count).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
        assert_eq!(first(7, 300), first(7, 300));
        assert_ne!(first(7, 300), first(8, 300));
    }

    #[test]
    fn every_deck_has_every_fault_once() {
        let size = Fault::ALL.len();
        for deck in first(3, 4 * size).chunks(size) {
            let names: HashSet<&str> = deck.iter().map(|one| one.fault.name()).collect();
            assert_eq!(names.len(), size);
        }
    }

    #[test]
    fn one_fault_alone_is_repeated_with_other_dice() {
        let plans: Vec<Planned> = schedule(1, Some(Fault::RedisFlush)).take(9).collect();
        assert!(plans.iter().all(|one| one.fault == Fault::RedisFlush));
        let dice: HashSet<u64> = plans.iter().map(|one| one.dice).collect();
        assert_eq!(dice.len(), 9);
    }
}
