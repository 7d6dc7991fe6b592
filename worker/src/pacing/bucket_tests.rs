//! The bucket's script on a real Redis, with a clock that the test turns: days pass in a second.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use shared::testing::TestEnv;

use super::*;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
/// A day's first moment, in microseconds since the epoch.
const START: u64 = 20_000 * 86_400 * SECOND;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// Nothing, for so many milliseconds.
    Pass(u64),
    /// Somebody new asks.
    Come,
    /// Somebody new asks who was accepted so many seconds ago.
    ComeLate(u64),
    /// Whoever waited longest for their time asks again, so many milliseconds late.
    Return(u64),
    /// One of those who wait goes away.
    Leave(usize),
    /// The upstream refuses, for so many seconds.
    Close(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..5_000_u64).prop_map(Step::Pass),
        6 => Just(Step::Come),
        1 => (1..120_u64).prop_map(Step::ComeLate),
        4 => prop_oneof![Just(0), 0..3_000_u64].prop_map(Step::Return),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (1..20_u64).prop_map(Step::Close),
    ];
    proptest::collection::vec(step, 1..80)
}

struct Play<'a> {
    redis: &'a Redis,
    bucket: Bucket,
    limit: Limit,
    now: u64,
    /// When to come again: (time, order) of each that waits.
    waiting: BTreeMap<(u64, u64), Uuid>,
    calls: Vec<u64>,
    closed_until: u64,
    orders: u64,
}

impl Play<'_> {
    async fn ask(&mut self, id: Uuid, order: u64) -> Verdict {
        let request = Request {
            id,
            order,
            known: Duration::ZERO,
            longest: None,
        };
        let clock = Some(self.now);
        let asked = self
            .bucket
            .admit_at(self.redis, self.limit, &request, clock);
        let verdict = asked.await.unwrap();
        if verdict.wait.is_zero() {
            assert!(
                self.now >= self.closed_until,
                "a closed bucket let a call through"
            );
            self.calls.push(self.now);
        } else {
            let at = self.now + micros(verdict.wait);
            self.waiting.insert((at, order), id);
        }
        verdict
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(ms) => self.now += ms * 1_000,
            Step::Come | Step::ComeLate(_) => {
                self.orders += 1_000;
                let late = if let Step::ComeLate(seconds) = *step {
                    seconds
                } else {
                    0
                };
                // Orders are moments: those of the past are before those of now.
                let order = (self.now / 1_000 + self.orders).saturating_sub(late * 1_000);
                self.ask(Uuid::new_v4(), order).await;
            }
            Step::Return(late) => {
                if let Some(((at, order), id)) = self.waiting.pop_first() {
                    self.now = self.now.max(at + late * 1_000);
                    self.ask(id, order).await;
                }
            }
            Step::Leave(which) => {
                let place = which.checked_rem(self.waiting.len());
                if let Some(key) = place.and_then(|place| self.waiting.keys().nth(place).copied()) {
                    self.waiting.remove(&key);
                }
            }
            Step::Close(seconds) => {
                let time = Duration::from_secs(seconds);
                let closing = self.bucket.close_at(self.redis, time, Some(self.now));
                closing.await.unwrap();
                self.closed_until = self.closed_until.max(self.now + seconds * SECOND);
            }
        }
    }
}

async fn check(redis: &Redis, calls: u32, steps: &[Step]) -> TestCaseResult {
    let mut play = Play {
        redis,
        bucket: Bucket::new(Uuid::new_v4().to_string()),
        limit: Limit::per_minute(calls).unwrap(),
        now: START,
        waiting: BTreeMap::new(),
        calls: Vec::new(),
        closed_until: 0,
        orders: 0,
    };
    for step in steps {
        play.step(step).await;
    }
    // Everybody who comes when told is served in the end.
    let waiting = u64::try_from(play.waiting.len()).unwrap();
    let gap = micros(play.limit.gap());
    // Who left without a word is waited for as well.
    let left = steps.iter().filter(|step| matches!(step, Step::Leave(_)));
    let left = u64::try_from(left.count()).unwrap();
    let end = play.now.max(play.closed_until)
        + MINUTE
        + (waiting + 1) * gap
        + micros(GRACE) * (waiting + left + 1);
    while !play.waiting.is_empty() {
        play.step(&Step::Return(0)).await;
        prop_assert!(play.now <= end, "{} still wait", play.waiting.len());
    }
    for (place, from) in play.calls.iter().enumerate() {
        let window = &play.calls[place..];
        let count = window.iter().take_while(|at| **at < from + MINUTE).count();
        prop_assert!(
            count <= calls as usize,
            "{count} calls in a minute, of {calls}"
        );
    }
    Ok(())
}

#[test]
fn no_schedule_makes_more_calls_in_any_minute_than_the_limit() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let env = runtime.block_on(TestEnv::new());
    let redis = {
        let _entered = runtime.enter();
        env.redis()
    };
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&(1..40_u32, steps()), |(calls, steps)| {
        runtime.block_on(check(&redis, calls, &steps))
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// Asks for everybody once, then lets them come when they were told, and says in which order they
/// were let through.
async fn served(play: &mut Play<'_>, orders: &[u64]) -> Vec<u64> {
    let mut of = BTreeMap::new();
    let mut served = Vec::new();
    for order in orders {
        let id = Uuid::new_v4();
        of.insert(id, *order);
        if play.ask(id, *order).await.wait.is_zero() {
            served.push(*order);
        }
    }
    while let Some(((at, order), id)) = play.waiting.pop_first() {
        play.now = play.now.max(at);
        if play.ask(id, order).await.wait.is_zero() {
            served.push(of[&id]);
        }
    }
    served
}

fn play(redis: &Redis, calls: u32) -> Play<'_> {
    Play {
        redis,
        bucket: Bucket::new("account:free"),
        limit: Limit::per_minute(calls).unwrap(),
        now: START,
        waiting: BTreeMap::new(),
        calls: Vec::new(),
        closed_until: 0,
        orders: 0,
    }
}

#[tokio::test]
async fn a_crowd_is_served_in_the_order_it_was_accepted_and_never_at_once() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let mut play = play(&redis, 20);
    let crowd: Vec<u64> = (1..=60).collect();
    assert_eq!(served(&mut play, &crowd).await, crowd);
    let gap = micros(play.limit.gap());
    let apart = play.calls.windows(2).map(|pair| pair[1] - pair[0]);
    let at_once = apart.filter(|time| *time < gap).count();
    assert_eq!(at_once, 1, "the burst of the beginning, and no herd later");
}

#[tokio::test]
async fn whoever_was_accepted_before_is_served_before() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let mut play = play(&redis, 20);
    let order = served(&mut play, &[1, 2, 10, 20, 30, 5]).await;
    assert_eq!(order, [1, 2, 5, 10, 20, 30]);
}

#[tokio::test]
async fn who_does_not_come_keeps_the_others_waiting_for_a_moment_only() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let mut play = play(&redis, 20);
    for order in 1..=2 {
        assert!(play.ask(Uuid::new_v4(), order).await.wait.is_zero());
    }
    let gone = play.ask(Uuid::new_v4(), 3).await;
    play.waiting.clear();
    let next = play.ask(Uuid::new_v4(), 4).await;
    assert_eq!((gone.ahead, next.ahead), (0, 1));
    play.waiting.clear();
    play.now += micros(gone.wait) + micros(GRACE) + 1;
    let later = play.ask(Uuid::new_v4(), 5).await;
    assert!(later.wait.is_zero(), "{later:?}");
}

#[tokio::test]
async fn who_has_a_choice_does_not_stand_in_a_long_line() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let mut play = play(&redis, 20);
    let crowd: Vec<u64> = (1..=12).collect();
    for order in &crowd {
        play.ask(Uuid::new_v4(), *order).await;
    }
    let request = |longest| Request {
        id: Uuid::new_v4(),
        order: 100,
        known: Duration::ZERO,
        longest: Some(Duration::from_secs(longest)),
    };
    let ask = |longest| {
        let request = request(longest);
        let (bucket, limit, now) = (play.bucket.clone(), play.limit, play.now);
        let redis = &redis;
        async move {
            let asked = bucket.admit_at(redis, limit, &request, Some(now));
            asked.await.unwrap()
        }
    };
    assert_eq!(ask(15).await.ahead, 10);
    assert_eq!(ask(15).await.ahead, 10, "the first did not stay");
    ask(600).await;
    let behind = Request {
        order: 101,
        ..request(600)
    };
    let asked = play
        .bucket
        .admit_at(&redis, play.limit, &behind, Some(play.now));
    assert_eq!(asked.await.unwrap().ahead, 11, "the third did");
}

#[tokio::test]
async fn the_last_call_of_a_day_closes_the_bucket_until_the_next() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let mut play = play(&redis, 1_000);
    let day = 86_400 * SECOND;
    play.now = START + day - 3_600 * SECOND;
    let left = play.bucket.left_at(&redis, 2, Some(play.now));
    left.await.unwrap();
    for order in 1..=2 {
        assert!(play.ask(Uuid::new_v4(), order).await.wait.is_zero());
    }
    let refused = play.ask(Uuid::new_v4(), 3).await;
    assert_eq!(refused.wait, Duration::from_hours(1));
    play.now = START + day;
    assert!(play.ask(Uuid::new_v4(), 4).await.wait.is_zero());
    // None left is said at any time of the day.
    play.now += 7 * SECOND;
    let left = play.bucket.left_at(&redis, 0, Some(play.now));
    left.await.unwrap();
    let refused = play.ask(Uuid::new_v4(), 5).await;
    assert_eq!(micros(refused.wait), day - 7 * SECOND);
}

#[tokio::test]
async fn a_redis_that_has_forgotten_is_reminded() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let bucket = Bucket::new("account:free");
    let limit = Limit::per_minute(20).unwrap();
    let known = Duration::from_secs(30);
    let request = Request {
        id: Uuid::new_v4(),
        order: 1,
        known,
        longest: None,
    };
    let verdict = bucket.admit(&redis, limit, &request).await.unwrap();
    assert_eq!(micros(verdict.wait), micros(known) - micros(limit.slack()));
    let unknowing = Request {
        known: Duration::ZERO,
        id: Uuid::new_v4(),
        ..request
    };
    let verdict = bucket.admit(&redis, limit, &unknowing).await.unwrap();
    assert!(
        verdict.wait.is_zero(),
        "what was told is not kept until a call is made"
    );
}
