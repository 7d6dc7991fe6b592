//! The arithmetic of the shares, and a worker that fills its places from queues of any length.

use std::collections::HashMap;

use proptest::prelude::*;
use shared::domain::Priority::{self, Background, Premium, Standard};

use super::*;

fn most(shares: &Shares, queue: Priority) -> u32 {
    shares.room(&[queue]).map_or(0, |room| room.order[0].1)
}

#[test]
fn each_queue_has_its_share_and_premium_all() {
    for (places, expected) in [
        (1, [1, 1, 1]),
        (2, [2, 1, 1]),
        (3, [3, 2, 1]),
        (10, [10, 9, 5]),
        (64, [64, 57, 32]),
        (100, [100, 90, 50]),
    ] {
        let shares = Shares::new(places, 90, 50);
        let found = [Premium, Standard, Background].map(|queue| most(&shares, queue));
        assert_eq!(found, expected, "{places}");
    }
    // Background is a part of what premium leaves.
    assert_eq!(most(&Shares::new(10, 40, 80), Background), 4);
}

#[test]
fn what_is_full_is_not_asked_and_a_freed_place_can_be_taken_again() {
    let shares = Shares::new(10, 90, 50);
    let mut background: Vec<Place> = (0..5).map(|_| shares.take(Background)).collect();
    let order = |shares: &Shares| {
        let room = shares.room(Priority::ALL).unwrap();
        room.order
    };
    assert_eq!(order(&shares), [(Premium, 5), (Standard, 4)]);
    let standard: Vec<Place> = (0..4).map(|_| shares.take(Standard)).collect();
    assert_eq!(order(&shares), [(Premium, 1)]);
    let premium = shares.take(Premium);
    assert!(shares.room(Priority::ALL).is_none());
    drop(premium);
    background.pop();
    assert_eq!(
        order(&shares),
        [(Premium, 2), (Standard, 1), (Background, 1)]
    );
    assert!(shares.room(&[]).is_none(), "nothing is open");
    drop(standard);
    drop(background);
    assert_eq!(
        order(&shares),
        [(Premium, 10), (Standard, 9), (Background, 5)]
    );
}

#[test]
fn a_lower_queue_is_owed_a_start_for_eight_of_those_above_it() {
    let shares = Shares::new(1, 90, 50);
    let first = |shares: &Shares| shares.room(Priority::ALL).unwrap().order[0];
    let mut starts = Vec::new();
    for _ in 0..30 {
        let (queue, _) = first(&shares);
        starts.push(queue);
        drop(shares.take(queue));
    }
    let letters: String = starts.iter().map(|queue| &queue.as_str()[..1]).collect();
    assert_eq!(letters, "ppppppppsb".repeat(3));
    // Who had nothing to start is owed nothing.
    for _ in 0..20 {
        drop(shares.take(Premium));
    }
    assert_ne!(first(&shares).0, Premium);
    shares.had_none([Standard, Background]);
    assert_eq!(first(&shares), (Premium, 1));
}

#[test]
fn who_has_its_share_is_owed_nothing() {
    let shares = Shares::new(100, 90, 2);
    let _both = [shares.take(Background), shares.take(Background)];
    for _ in 0..100 {
        drop(shares.take(Premium));
    }
    let room = shares.room(Priority::ALL).unwrap();
    assert_eq!(room.order, [(Standard, 12), (Premium, 98)]);
}

/// Fills the free places as the fetcher does. Returns what was started.
fn fill(shares: &Arc<Shares>, queues: &mut HashMap<Priority, u32>) -> Vec<Place> {
    let mut started = Vec::new();
    while let Some(room) = shares.room(Priority::ALL) {
        let Some(at) = room.order.iter().position(|(queue, _)| queues[queue] > 0) else {
            shares.had_none(room.order.iter().map(|(queue, _)| *queue));
            return started;
        };
        shares.had_none(room.order[..at].iter().map(|(queue, _)| *queue));
        let waiting = queues.get_mut(&room.order[at].0).unwrap();
        for _ in 0..room.count().min(*waiting) {
            *waiting -= 1;
            started.push(shares.take(room.order[at].0));
        }
    }
    started
}

proptest! {
    /// Whatever waits and whatever ends, no share is exceeded, no place is free that anybody may take,
    /// and each queue that has work and room goes on.
    #[test]
    fn shares_hold_for_any_worker(
        places in 1_u32..200, standard in 1_u32..=100, background in 1_u32..=100,
        rounds in proptest::collection::vec((0_u32..80, 0_u32..80, 0_u32..80, 0_usize..200), 1..30),
    ) {
        let shares = Shares::new(places, standard, background);
        let mut queues = HashMap::from([(Premium, 0), (Standard, 0), (Background, 0)]);
        let mut running: Vec<Place> = Vec::new();
        for (premium, standard, background, ended) in rounds {
            for (queue, more) in [(Premium, premium), (Standard, standard), (Background, background)] {
                *queues.get_mut(&queue).unwrap() += more;
            }
            running.drain(..ended.min(running.len()));
            running.extend(fill(&shares, &mut queues));
            let taken = *shares.lock();
            prop_assert_eq!(taken.all() as usize, running.len());
            prop_assert!(taken.all() <= places);
            // A single place is everybody's.
            prop_assert!(taken.lower() <= shares.standard);
            prop_assert!(taken.background <= shares.background);
            prop_assert!(queues[&Premium] == 0 || taken.all() == places);
            let lower_full = taken.all() == places || taken.lower() == shares.standard;
            prop_assert!(queues[&Standard] == 0 || lower_full);
            prop_assert!(queues[&Background] == 0 || lower_full || taken.background == shares.background);
        }
    }

    /// A flood of better work never holds a lower queue up for more than it is owed.
    #[test]
    fn no_flood_starves_a_lower_queue(places in 1_u32..100, ending in 1_usize..20) {
        let shares = Shares::new(places, 90, 50);
        let mut queues = HashMap::from([(Premium, 1_000_000), (Standard, 1_000_000), (Background, 1_000_000)]);
        let mut running = fill(&shares, &mut queues);
        // The first batch is taken before anybody is owed anything.
        let first = *shares.lock();
        let mut starts = HashMap::from([(Premium, 0_u32), (Standard, 0), (Background, 0)]);
        for _ in 0..400 {
            running.drain(..ending.min(running.len()));
            for place in fill(&shares, &mut queues) {
                *starts.get_mut(&place.queue).unwrap() += 1;
                running.push(place);
            }
        }
        let slack = places + OWED_PER + first.all();
        // What starts while a queue has all of its share counts for nothing.
        let owed = |above: u32| above / (2 * OWED_PER);
        prop_assert!(starts[&Standard] + slack >= owed(starts[&Premium]), "{starts:?}");
        let above = starts[&Premium] + starts[&Standard];
        prop_assert!(starts[&Background] + slack >= owed(above), "{starts:?}");
        prop_assert!(starts[&Premium] + slack >= starts[&Standard], "better work is still better: {starts:?}");
    }
}
