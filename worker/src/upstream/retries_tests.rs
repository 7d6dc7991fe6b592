//! A day of outages in memory: what is counted are calls, and the clock is the test's.

use std::collections::BinaryHeap;

use super::super::backoff::later;
use super::*;

const PATIENCE: Duration = Duration::from_mins(10);

/// What happens when, soonest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Try {
    at: std::cmp::Reverse<Duration>,
    round: u32,
    accepted: Duration,
}

struct Day {
    /// Generations that come in a second.
    rate: u32,
    /// From when to when the upstream is away.
    outage: (Duration, Duration),
    end: Duration,
}

struct Seen {
    /// Tries in each second.
    tries: Vec<u32>,
    answered: u32,
    given_up: u32,
}

impl Day {
    fn play(&self) -> Seen {
        let epoch = Instant::now();
        let retries = Retries::new(epoch);
        let mut agenda = BinaryHeap::new();
        let gap = Duration::from_secs(1) / self.rate;
        for number in 0..u32::try_from(self.end.as_secs()).unwrap() * self.rate {
            let at = gap * number;
            agenda.push(Try {
                at: std::cmp::Reverse(at),
                round: 1,
                accepted: at,
            });
        }
        let mut seen = Seen {
            tries: vec![0; usize::try_from(self.end.as_secs()).unwrap()],
            answered: 0,
            given_up: 0,
        };
        while let Some(Try {
            at,
            round,
            accepted,
        }) = agenda.pop()
        {
            let Some(count) = seen.tries.get_mut(usize::try_from(at.0.as_secs()).unwrap()) else {
                break;
            };
            *count += 1;
            let now = epoch + at.0;
            if round == 1 {
                retries.begin(now);
            }
            if !(self.outage.0..self.outage.1).contains(&at.0) {
                seen.answered += 1;
                continue;
            }
            let patience = PATIENCE.saturating_sub(at.0.saturating_sub(accepted));
            match retries.reserve(now, later(round), patience) {
                Some(wait) => agenda.push(Try {
                    at: std::cmp::Reverse(at.0 + wait),
                    round: round + 1,
                    accepted,
                }),
                None => seen.given_up += 1,
            }
        }
        seen
    }
}

#[test]
fn no_storm_follows_an_outage_of_ten_minutes() {
    let day = Day {
        rate: 20,
        outage: (Duration::from_secs(120), Duration::from_secs(720)),
        end: Duration::from_secs(1_500),
    };
    let seen = day.play();
    let after = &seen.tries[720..];
    let most = after.iter().max().copied().unwrap();
    assert!(
        most < day.rate * 3 / 2,
        "{most} tries in a second, {after:?}"
    );
    let during = seen.tries[120..720].iter().max().copied().unwrap();
    assert!(during < day.rate * 3 / 2, "{during} tries in a second");
    // The budget is used: whoever has time left is answered while the others come.
    assert!(
        after[..60].iter().sum::<u32>() > day.rate * 60 * 5 / 4,
        "{after:?}"
    );
    assert!(seen.given_up > 0 && seen.answered > 20 * 900);
}

#[test]
fn a_short_silence_costs_nobody_the_reply() {
    let day = Day {
        rate: 20,
        outage: (Duration::from_secs(60), Duration::from_secs(67)),
        end: Duration::from_secs(300),
    };
    let seen = day.play();
    assert_eq!((seen.given_up, seen.answered), (0, 300 * 20));
}

#[test]
fn where_little_happens_nobody_waits_for_the_share() {
    let now = Instant::now();
    let retries = Retries::new(now);
    let after = Duration::from_millis(300);
    for _ in 0..AT_LEAST {
        assert_eq!(retries.reserve(now, after, PATIENCE), Some(after));
    }
    let next = retries.reserve(now, after, PATIENCE).unwrap();
    assert!((1.0..2.0).contains(&next.as_secs_f64()), "{next:?}");
}

#[test]
fn nothing_is_given_out_beyond_the_deadline() {
    let now = Instant::now();
    let retries = Retries::new(now);
    let after = Duration::from_secs(5);
    assert_eq!(retries.reserve(now, after, after), None);
    let whole = AT_LEAST * 10;
    let given = (0..100)
        .filter_map(|_| retries.reserve(now, Duration::ZERO, Duration::from_secs(10)))
        .count();
    assert!(given <= whole as usize, "{given}");
}
