//! Limits per person, counted in Redis by Redis's clock.
//!
//! Periods are long, so that the time a test takes is nothing beside the time in which one more
//! request becomes possible; and time is made to pass by moving what Redis keeps into the past.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod common;

use std::time::{Duration, Instant};

use common::{in_time, proxy};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use redis::cmd;
use secrecy::ExposeSecret as _;
use shared::limits::{Limit, Verdict, check};
use shared::redis::{Redis, RedisConfig, RedisFailure};
use shared::testing::TestEnv;

const HOUR: Duration = Duration::from_hours(1);

fn limit(count: u32, period: Duration) -> Limit {
    Limit {
        name: "messages",
        count,
        period,
    }
}

/// Makes time pass for one person: the moment that Redis keeps is that much longer ago.
async fn pass(redis: &Redis, limit: &Limit, who: &str, micros: u64) {
    let key = redis.key(format_args!("limit:{}:{who}", limit.name));
    let arrival: Option<f64> = redis.command(cmd("GET").arg(&key)).await.unwrap();
    if let Some(arrival) = arrival {
        let moved = format!("{:.0}", arrival - micros as f64);
        redis
            .command::<()>(cmd("SET").arg(&key).arg(moved).arg("KEEPTTL"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn exactly_the_limit_passes_at_once() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    for count in [1, 2, 7, 200] {
        let limit = limit(count, HOUR);
        let who = count.to_string();
        let began = Instant::now();
        for number in 1..=count {
            let verdict = check(&redis, &limit, &who).await.unwrap();
            let expected = Verdict {
                allowed: true,
                remaining: count - number,
                reset: verdict.reset,
                retry_after: Duration::ZERO,
            };
            assert_eq!(verdict, expected, "{number} of {count}");
            // Each request takes its share of the period.
            let full = HOUR * number / count;
            assert!(
                verdict.reset <= full + Duration::from_micros(1),
                "{:?} of {full:?}",
                verdict.reset
            );
            assert!(
                verdict.reset + began.elapsed() >= full,
                "{:?} of {full:?}",
                verdict.reset
            );
        }
        for _ in 0..3 {
            let refused = check(&redis, &limit, &who).await.unwrap();
            assert!(!refused.allowed && refused.remaining == 0, "{refused:?}");
            let step = HOUR / count;
            assert!(
                refused.retry_after <= step + Duration::from_micros(1),
                "{refused:?}"
            );
            assert!(refused.retry_after + began.elapsed() >= step, "{refused:?}");
            assert!(
                refused.reset <= HOUR,
                "a refused request costs nothing: {refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn people_and_limits_do_not_touch_each_other() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let messages = limit(1, HOUR);
    let conversations = Limit {
        name: "conversations",
        ..messages
    };
    assert!(check(&redis, &messages, "ana").await.unwrap().allowed);
    assert!(!check(&redis, &messages, "ana").await.unwrap().allowed);
    assert!(check(&redis, &messages, "budi").await.unwrap().allowed);
    assert!(check(&redis, &conversations, "ana").await.unwrap().allowed);
    let elsewhere = TestEnv::new().await;
    assert!(
        check(&elsewhere.redis(), &messages, "ana")
            .await
            .unwrap()
            .allowed
    );
    // What Redis forgets is forgiven.
    env.wipe_redis().await;
    assert!(check(&redis, &messages, "ana").await.unwrap().allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_through_several_processes_pass_as_often_as_one() {
    let env = TestEnv::new().await;
    let replicas = [env.redis(), env.redis(), env.redis()];
    let limit = limit(20, HOUR);
    let checks = (0..90).map(|number| check(&replicas[number % 3], &limit, "ana"));
    let verdicts = futures::future::join_all(checks).await;
    let allowed = verdicts
        .into_iter()
        .filter(|verdict| verdict.as_ref().unwrap().allowed);
    assert_eq!(allowed.count(), 20);
}

/// What Redis keeps goes when it means nothing any more.
#[tokio::test]
async fn a_full_bucket_leaves_no_key_behind() {
    let env = TestEnv::new().await;
    let redis = env.redis();
    let limit = limit(10, HOUR);
    check(&redis, &limit, "ana").await.unwrap();
    let key = redis.key("limit:messages:ana");
    let left: i64 = redis.command(cmd("PTTL").arg(&key)).await.unwrap();
    let step = i64::try_from((HOUR / 10).as_millis()).unwrap();
    assert!((1..=step + 1).contains(&left), "{left} ms");
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    Request,
    /// Half as long passes as it takes for so many more requests to become possible.
    HalfSteps(u32),
}

/// The algorithm on paper, in half-steps, with no time but what the test lets pass.
#[derive(Debug)]
struct Paper {
    count: u32,
    /// Half-steps until the whole burst is there again.
    debt: u32,
}

impl Paper {
    fn request(&mut self) -> (bool, u32, u32) {
        let allowed = self.debt + 2 <= 2 * self.count;
        if allowed {
            self.debt += 2;
        }
        (allowed, (2 * self.count - self.debt) / 2, self.debt)
    }
}

async fn play(redis: &Redis, count: u32, step: Duration, events: &[Happens]) -> TestCaseResult {
    let who = uuid::Uuid::new_v4().to_string();
    let limit = limit(count, step * count);
    let half = u64::try_from(step.as_micros() / 2).unwrap();
    let mut paper = Paper { count, debt: 0 };
    let began = Instant::now();
    for event in events {
        match event {
            Happens::HalfSteps(halves) => {
                pass(redis, &limit, &who, half * u64::from(*halves)).await;
                paper.debt = paper.debt.saturating_sub(*halves);
            }
            Happens::Request => {
                let (allowed, remaining, debt) = paper.request();
                let verdict = check(redis, &limit, &who).await.unwrap();
                prop_assert_eq!(
                    (verdict.allowed, verdict.remaining),
                    (allowed, remaining),
                    "{:?}",
                    verdict
                );
                let reset = Duration::from_micros(half * u64::from(debt));
                prop_assert!(
                    verdict.reset <= reset + Duration::from_micros(1),
                    "{:?} of {:?}",
                    verdict,
                    reset
                );
                prop_assert!(
                    verdict.reset + began.elapsed() >= reset,
                    "{:?} of {:?}",
                    verdict,
                    reset
                );
                let wait = (debt + 2).saturating_sub(2 * count);
                let wait = if allowed {
                    Duration::ZERO
                } else {
                    Duration::from_micros(half * u64::from(wait))
                };
                prop_assert!(
                    verdict.retry_after <= wait + Duration::from_micros(1),
                    "{:?}",
                    verdict
                );
                prop_assert!(
                    verdict.retry_after + began.elapsed() >= wait,
                    "{:?}",
                    verdict
                );
            }
        }
    }
    Ok(())
}

#[test]
fn any_sequence_is_decided_as_on_paper() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let env = runtime.block_on(TestEnv::new());
    let redis = runtime.block_on(async { env.redis() });
    let event = prop_oneof![
        4 => Just(Happens::Request),
        1 => (1..12_u32).prop_map(Happens::HalfSteps),
    ];
    let events = proptest::collection::vec(event, 1..60);
    // A step far above the time of a case, which is what the paper leaves out.
    let steps = 600..100_000_u64;
    let config = Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&(1..30_u32, steps, events), |(count, step, events)| {
            runtime.block_on(play(&redis, count, Duration::from_secs(step), &events))
        })
        .unwrap();
    runtime.block_on(async { drop((redis, env)) });
}

/// A limit protects the service; the caller lets the request pass, and must learn soon that it may.
#[tokio::test]
async fn without_redis_there_is_an_error_and_no_waiting() {
    let silent = proxy::silent().await;
    let nobody = proxy::nobody().await;
    for address in [nobody, silent.address] {
        let config = RedisConfig {
            url: format!("redis://{address}").into(),
            prefix: "test".to_owned(),
            authorities: None,
        };
        let redis = Redis::connect_lazy(&config).unwrap();
        let limit = limit(1, HOUR);
        let failure = in_time("a check fails", check(&redis, &limit, "ana")).await;
        assert!(
            matches!(
                failure,
                Err(RedisFailure::Command(_) | RedisFailure::Timeout)
            ),
            "{failure:?}"
        );
        // Nobody else has to find out for themselves, however long it is away.
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            let failure = check(&redis, &limit, "ana").await;
            assert!(
                matches!(failure, Err(RedisFailure::BackingOff)),
                "{failure:?}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn limits_work_again_once_redis_is_back() {
    let env = TestEnv::new().await;
    let mut config = env.redis_config();
    let url = config.url.expose_secret().to_owned();
    let nobody = proxy::nobody().await;
    config.url = proxy::url_at(&url, nobody).into();
    let redis = Redis::connect_lazy(&config).unwrap();
    let limit = limit(1, HOUR);
    assert!(check(&redis, &limit, "ana").await.is_err());
    // It comes back at the same address.
    let _back = proxy::forward(nobody, proxy::server_of(&url)).await;
    let verdict = common::until("redis answers", async || {
        check(&redis, &limit, "ana").await.ok()
    })
    .await;
    assert!(verdict.allowed);
}
