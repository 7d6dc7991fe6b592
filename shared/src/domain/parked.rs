//! What waits in Postgres before it may wait in a queue.

super::named_enum! {
    /// What a parked generation waits for.
    pub enum WaitsFor {
        /// The end of those before it in its conversation.
        Turn = "turn",
        /// A place of its person.
        Place = "place",
    }
}

/// Why a generation cannot be claimed yet, and what is before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parked {
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// Generations of its person that come before it and that no queue holds: parked ones, at most 1000
    /// of them, and running ones that it waits for.
    pub ahead: i64,
    /// How often the time that one generation takes passes until its own has passed, too.
    pub rounds: f64,
}

/// What is before a parked generation, as the rows have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Parked ones of its person that wait longer.
    pub parked: i64,
    /// Running ones of its person that it waits for.
    pub running: i64,
    /// Unfinished ones before it in its conversation.
    pub turns: i64,
}

impl Parked {
    /// With so much before it, and so many `places` of its person.
    #[must_use]
    pub fn behind(waits_for: WaitsFor, before: Before, places: i64) -> Self {
        // A place frees each time that one of those who have the places ends.
        let for_a_place = (before.parked + 1) as f64 / places.max(1) as f64;
        let rounds = match waits_for {
            WaitsFor::Turn => (before.turns as f64).max(for_a_place),
            WaitsFor::Place => for_a_place,
        };
        Self {
            waits_for,
            ahead: before.parked + before.running,
            rounds: 1.0 + rounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_its_turn_waits_for_each_before_it() {
        let before = Before {
            parked: 2,
            running: 1,
            turns: 3,
        };
        let parked = Parked::behind(WaitsFor::Turn, before, 8);
        assert_eq!((parked.ahead, parked.rounds), (3, 4.0));
        // All places are one: the rest of its person's come first, too.
        let parked = Parked::behind(WaitsFor::Turn, before, 1);
        assert_eq!((parked.ahead, parked.rounds), (3, 4.0));
        let more = Before {
            parked: 9,
            ..before
        };
        assert_eq!(Parked::behind(WaitsFor::Turn, more, 1).rounds, 11.0);
    }

    #[test]
    fn what_waits_for_a_place_shares_all_of_them() {
        let before = Before {
            parked: 7,
            running: 4,
            turns: 0,
        };
        let parked = Parked::behind(WaitsFor::Place, before, 4);
        assert_eq!((parked.ahead, parked.rounds), (11, 3.0));
    }
}
