//! Breakers by a clock that the test turns.

use super::*;

const REST: Duration = Duration::from_secs(2);
const MODEL: &str = "some/model";
use ErrorClass::{ContentPolicy, KeyRefused, PlatformLimit, ServerError, Timeout};

fn key(class: ErrorClass) -> Key {
    (MODEL.to_owned(), class)
}

/// One that has just tripped.
fn tripped(now: Instant) -> Breakers {
    let breakers = Breakers::new(REST);
    for _ in 1..TRIPS_AT {
        assert!(breakers.failed(MODEL, ServerError, now).is_empty());
        assert_eq!(breakers.ask(MODEL, now), Say::Go);
    }
    let opened = breakers.failed(MODEL, ServerError, now);
    assert_eq!(opened, [(key(ServerError), REST)]);
    breakers
}

#[test]
fn failures_in_a_row_open_it_and_a_success_among_them_does_not() {
    let now = Instant::now();
    let breakers = tripped(now);
    assert_eq!(breakers.ask(MODEL, now), Say::Rest(REST));
    assert_eq!(breakers.ask("another/model", now), Say::Go);
    let breakers = Breakers::new(REST);
    for number in 0..50 {
        if number % 4 == 3 {
            assert!(breakers.worked(MODEL).is_empty());
        }
        assert!(breakers.failed(MODEL, ServerError, now).is_empty());
    }
    assert_eq!(breakers.ask(MODEL, now), Say::Go);
}

#[test]
fn each_kind_of_failure_is_counted_alone_and_some_are_not() {
    let now = Instant::now();
    let breakers = Breakers::new(REST);
    for _ in 1..TRIPS_AT {
        assert!(breakers.failed(MODEL, ServerError, now).is_empty());
        assert!(breakers.failed(MODEL, Timeout, now).is_empty());
    }
    for _ in 0..100 {
        for class in [ContentPolicy, KeyRefused, PlatformLimit] {
            assert!(breakers.failed(MODEL, class, now).is_empty());
        }
    }
    assert_eq!(breakers.failed(MODEL, Timeout, now), [(key(Timeout), REST)]);
}

#[test]
fn half_open_it_lets_one_call_through_which_decides() {
    let now = Instant::now();
    let breakers = tripped(now);
    let over = now + REST;
    assert_eq!(breakers.ask(MODEL, over), Say::Probe(key(ServerError)));
    breakers.probing(&key(ServerError), true, over + PROBE);
    assert_eq!(
        breakers.ask(MODEL, over),
        Say::Rest(PROBED),
        "one is enough"
    );
    assert_eq!(breakers.worked(MODEL), [key(ServerError)]);
    assert_eq!(breakers.ask(MODEL, over), Say::Go);
    assert!(breakers.states(over).is_empty());
}

#[test]
fn a_probe_that_fails_doubles_the_rest_up_to_a_limit() {
    let mut now = Instant::now();
    let breakers = tripped(now);
    let mut rest = REST;
    for expected in [4, 5, 5, 5] {
        now += rest;
        assert!(matches!(breakers.ask(MODEL, now), Say::Probe(_)));
        breakers.probing(&key(ServerError), true, now + PROBE);
        // A probe that fails in another way is no better.
        let opened = breakers.failed(MODEL, Timeout, now);
        rest = Duration::from_secs(expected);
        assert!(opened.contains(&(key(ServerError), rest)), "{opened:?}");
    }
}

#[test]
fn what_began_before_it_opened_says_nothing_new() {
    let now = Instant::now();
    let breakers = tripped(now);
    let later = now + REST / 2;
    assert!(breakers.failed(MODEL, ServerError, later).is_empty());
    assert_eq!(breakers.ask(MODEL, later), Say::Rest(REST / 2));
    // Nor does it while another worker probes.
    let over = now + REST;
    breakers.probing(&key(ServerError), false, over + REST);
    assert!(breakers.failed(MODEL, ServerError, over).is_empty());
    assert_eq!(breakers.ask(MODEL, over), Say::Rest(REST));
}

#[test]
fn a_probe_that_says_nothing_is_left_to_the_next() {
    let now = Instant::now();
    let breakers = tripped(now);
    let over = now + REST;
    breakers.probing(&key(ServerError), true, over + PROBE);
    assert_eq!(breakers.released(MODEL), [key(ServerError)]);
    assert_eq!(breakers.ask(MODEL, over), Say::Probe(key(ServerError)));
    breakers.probing(&key(ServerError), false, over + PROBE);
    assert!(breakers.released(MODEL).is_empty(), "another worker's");
}

#[test]
fn the_fleet_opens_and_closes_it() {
    let now = Instant::now();
    let breakers = Breakers::new(REST);
    let fleet: Known = [(key(Timeout), (REST, REST))].into();
    breakers.heard(&fleet, now);
    assert_eq!(breakers.ask(MODEL, now), Say::Rest(REST));
    assert_eq!(breakers.states(now), [(key(Timeout), State::Open)]);
    let over = now + REST;
    assert_eq!(breakers.states(over), [(key(Timeout), State::HalfOpen)]);
    breakers.heard(&[(key(Timeout), (Duration::ZERO, REST))].into(), over);
    breakers.probing(&key(Timeout), true, over + PROBE);
    let opened = breakers.failed(MODEL, Timeout, over);
    assert_eq!(opened, [(key(Timeout), REST * 2)]);
    breakers.heard(&Known::new(), over);
    assert_eq!(breakers.ask(MODEL, over), Say::Go);
}

#[test]
fn the_first_text_ends_a_probe_and_forgives_no_failure_of_what_is_closed() {
    let now = Instant::now();
    let breakers = tripped(now);
    let later = now + REST;
    assert_eq!(breakers.ask(MODEL, later), Say::Probe(key(ServerError)));
    breakers.probing(&key(ServerError), true, later + PROBE);
    assert_eq!(breakers.ask(MODEL, later), Say::Rest(PROBED));
    assert_eq!(breakers.answers(MODEL), [key(ServerError)]);
    assert_eq!(breakers.ask(MODEL, later), Say::Go);

    // What fails in the midst of each answer trips as well.
    let breakers = Breakers::new(REST);
    for _ in 1..TRIPS_AT {
        assert!(breakers.failed(MODEL, ServerError, now).is_empty());
        assert!(breakers.answers(MODEL).is_empty());
    }
    assert!(!breakers.failed(MODEL, ServerError, now).is_empty());
}
