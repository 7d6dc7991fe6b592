//! How the upstreams are as the fleet sees them, for operators. Each worker writes down what it knows every few
//! seconds, and whoever asks reads what all of them have written: nobody else knows which keys were refused.

use std::collections::BTreeMap;
use std::time::Duration;

use ::redis::{cmd, pipe};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::timestamp;
use crate::redis::{Redis, RedisFailure};

/// The index of those who have written, by when.
const WRITERS: &str = "upstreams";
/// What has not been written anew for so long says nothing any more.
const FRESH: Duration = Duration::from_secs(20);

/// One bucket of an account, as all workers share it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    /// Whose: the first 8 hex digits of the SHA-256 of the upstream's address.
    pub account: String,
    /// The models that share it: `free` or `paid`.
    pub models: String,
    /// Calls that are let through in any minute; none where there is no limit.
    pub calls_per_minute: Option<u32>,
    /// Until the next call would be let through if nobody stood in line.
    pub next_call_seconds: f64,
    /// Generations that stand in line.
    pub waiting: u64,
    /// How long nothing is let through, because the upstream said so.
    pub closed_seconds: f64,
    /// Calls that the upstream still allows today, where it has said so.
    pub left_today: Option<u64>,
}

/// One key of one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// The first 8 hex digits of its SHA-256.
    pub label: String,
    /// Who was refused; every worker finds out for itself.
    #[serde(default)]
    pub worker: String,
    /// How long it is not used at all.
    pub rests_seconds: f64,
    /// How long it is not used for models that cost something.
    pub rests_for_paid_seconds: f64,
}

/// A model that is left alone by the whole fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Breaker {
    /// The model.
    pub model: String,
    /// The kind of failure.
    pub error: String,
    /// `open`, or `half_open`: one call finds out.
    pub state: String,
    /// Until that call may be made.
    pub seconds_left: f64,
}

/// What the account has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Credits {
    /// Credits bought less credits used.
    #[schema(value_type = String)]
    pub left: Decimal,
    /// When the upstream said so.
    #[serde(with = "timestamp")]
    pub read_at: OffsetDateTime,
}

/// What one worker knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it was written, by the worker's clock.
    #[serde(with = "timestamp")]
    pub at: OffsetDateTime,
    /// Both buckets.
    pub buckets: Vec<Bucket>,
    /// Its keys.
    pub keys: Vec<Key>,
    /// The models that are left alone.
    pub breakers: Vec<Breaker>,
    /// What the account has left, if it was this worker that asked last.
    pub credits: Option<Credits>,
}

/// What all of them know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Upstreams {
    /// Workers that have written of late; without any, nothing is known.
    pub workers: usize,
    /// The models that are left alone, by name.
    pub breakers: Vec<Breaker>,
    /// The account's buckets.
    pub buckets: Vec<Bucket>,
    /// The keys by worker.
    pub keys: Vec<Key>,
    /// What the account has left, as it was read last.
    pub credits: Option<Credits>,
}

/// Writes down what a worker knows, until it does so again.
///
/// # Errors
/// When Redis is away.
pub async fn write(redis: &Redis, worker: &str, report: &Report) -> Result<(), RedisFailure> {
    let text = serde_json::to_string(report).unwrap_or_default();
    let now = report.at.unix_timestamp();
    let fresh = FRESH.as_secs();
    let oldest = now - i64::try_from(fresh).unwrap_or(i64::MAX);
    let mut pipeline = pipe();
    pipeline
        .set_ex(redis.key(format_args!("{WRITERS}:{worker}")), text, fresh)
        .ignore()
        .zadd(redis.key(WRITERS), worker, now)
        .ignore()
        .zrembyscore(redis.key(WRITERS), "-inf", oldest)
        .ignore()
        .expire(redis.key(WRITERS), i64::try_from(fresh).unwrap_or(i64::MAX))
        .ignore();
    redis.pipeline(&pipeline).await
}

/// Reads what all workers have written of late.
///
/// # Errors
/// When Redis is away.
pub async fn read(redis: &Redis) -> Result<Upstreams, RedisFailure> {
    let mut all = cmd("ZRANGE");
    all.arg(redis.key(WRITERS)).arg(0).arg(-1);
    let workers: Vec<String> = redis.command(&all).await?;
    if workers.is_empty() {
        return Ok(Upstreams::default());
    }
    let mut texts = cmd("MGET");
    for worker in &workers {
        texts.arg(redis.key(format_args!("{WRITERS}:{worker}")));
    }
    let texts: Vec<Option<String>> = redis.command(&texts).await?;
    let reports = workers.into_iter().zip(texts).filter_map(|(worker, text)| {
        // One that another version wrote may not be readable.
        Some((worker, serde_json::from_str(&text?).ok()?))
    });
    Ok(together(reports.collect()))
}

/// What is the fleet's is taken from whoever wrote last.
fn together(mut reports: Vec<(String, Report)>) -> Upstreams {
    reports.sort_by_key(|(_, report)| report.at);
    let mut upstreams = Upstreams {
        workers: reports.len(),
        ..Upstreams::default()
    };
    let mut buckets = BTreeMap::new();
    for (worker, report) in reports {
        for bucket in report.buckets {
            buckets.insert((bucket.account.clone(), bucket.models.clone()), bucket);
        }
        upstreams
            .keys
            .extend(report.keys.into_iter().map(|key| Key {
                worker: worker.clone(),
                ..key
            }));
        let newer = report.credits.filter(|new| {
            let known = upstreams.credits.as_ref();
            known.is_none_or(|known| known.read_at <= new.read_at)
        });
        upstreams.credits = newer.or(upstreams.credits);
        upstreams.breakers = report.breakers;
    }
    upstreams.buckets = buckets.into_values().collect();
    upstreams
        .keys
        .sort_by(|one, other| (&one.label, &one.worker).cmp(&(&other.label, &other.worker)));
    upstreams
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn report(at: OffsetDateTime, waiting: u64, credits: Option<i64>) -> Report {
        Report {
            at,
            buckets: vec![Bucket {
                account: "a".to_owned(),
                models: "free".to_owned(),
                calls_per_minute: Some(20),
                next_call_seconds: 0.5,
                waiting,
                closed_seconds: 0.0,
                left_today: None,
            }],
            keys: vec![Key {
                label: "54cbd2d9".to_owned(),
                worker: String::new(),
                rests_seconds: 0.0,
                rests_for_paid_seconds: 1.0,
            }],
            breakers: Vec::new(),
            credits: credits.map(|left| Credits {
                left: left.into(),
                read_at: at,
            }),
        }
    }

    #[test]
    fn whoever_wrote_last_is_believed_and_every_worker_has_its_own_keys() {
        let (early, late) = (
            datetime!(2026-11-01 08:00 UTC),
            datetime!(2026-11-01 08:01 UTC),
        );
        let both = together(vec![
            ("b".to_owned(), report(late, 2, None)),
            ("a".to_owned(), report(early, 7, Some(3))),
        ]);
        assert_eq!((both.workers, both.buckets.len()), (2, 1));
        assert_eq!(both.buckets[0].waiting, 2);
        assert_eq!(both.credits.unwrap().left, 3.into());
        let workers: Vec<_> = both.keys.iter().map(|key| key.worker.as_str()).collect();
        assert_eq!(workers, ["a", "b"]);
        assert_eq!(together(Vec::new()), Upstreams::default());
    }

    #[tokio::test]
    async fn what_workers_write_is_read_and_what_is_old_is_forgotten() {
        let env = crate::testing::TestEnv::new().await;
        let redis = env.redis();
        assert_eq!(read(&redis).await.unwrap(), Upstreams::default());
        let now = crate::clock::Clock::system().now();
        let long_ago = now - time::Duration::minutes(1);
        write(&redis, "gone", &report(long_ago, 9, None))
            .await
            .unwrap();
        write(&redis, "here", &report(now, 1, Some(5)))
            .await
            .unwrap();
        let known = read(&redis).await.unwrap();
        assert_eq!(known.workers, 1);
        assert_eq!(known.keys[0].worker, "here");
        assert_eq!(known.buckets[0].waiting, 1);
    }
}
