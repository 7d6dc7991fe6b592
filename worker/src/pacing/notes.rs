//! What the fleet knows of breakers that are not closed, in Redis, by Redis's clock.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, cmd, pipe};
use serde::Serialize;
use shared::redis::{Redis, RedisFailure};

use super::breaker::{Key, Known, PROBE, State};
use crate::upstream::ErrorClass;

/// What nobody has probed for so long, because nobody asks for the model any more, is closed.
const FORGOTTEN_MS: u64 = 3_600_000;

static TRIP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
          local until_us = time[1] * 1000000 + time[2] + tonumber(ARGV[2])
          redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f:%s', until_us, ARGV[2]))
          redis.call('PEXPIRE', KEYS[1], ARGV[3])
          redis.call('DEL', KEYS[2])",
    )
});

static LOOK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local time = redis.call('TIME')
          local now = time[1] * 1000000 + time[2]
          local found, all = {}, redis.call('HGETALL', KEYS[1])
          for i = 1, #all, 2 do
              local until_us, rest = string.match(all[i + 1], '(%d+):(%d+)')
              local left = tonumber(until_us) - now
              if left < -tonumber(ARGV[1]) * 1000 then
                  redis.call('HDEL', KEYS[1], all[i])
              else
                  found[#found + 1] = { all[i], math.max(left, 0), tonumber(rest) }
              end
          end
          return found",
    )
});

/// A breaker that is not closed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpenBreaker {
    /// The model.
    pub model: String,
    /// The kind of failure.
    pub error: ErrorClass,
    /// Open, or half open.
    pub state: State,
    /// Until one call may be made.
    pub seconds_left: f64,
}

/// Those of the whole fleet that are not closed, by model.
///
/// # Errors
/// When Redis is away.
pub async fn open_breakers(redis: &Redis) -> Result<Vec<OpenBreaker>, RedisFailure> {
    let known = look(redis).await?;
    let open = known
        .into_iter()
        .map(|((model, error), (left, _))| OpenBreaker {
            model,
            error,
            state: if left.is_zero() {
                State::HalfOpen
            } else {
                State::Open
            },
            seconds_left: left.as_secs_f64(),
        });
    let mut open: Vec<OpenBreaker> = open.collect();
    open.sort_by(|one, other| {
        (&one.model, one.error.as_str()).cmp(&(&other.model, other.error.as_str()))
    });
    Ok(open)
}

/// One is open for so long.
pub(super) async fn trip(redis: &Redis, key: &Key, rest: Duration) -> Result<(), RedisFailure> {
    let mut invocation = TRIP.key(redis.key("breakers"));
    invocation
        .key(probe_key(redis, key))
        .arg(field(key))
        .arg(u64::try_from(rest.as_micros()).unwrap_or(u64::MAX))
        .arg(FORGOTTEN_MS);
    redis.script(&invocation).await
}

/// These are closed.
pub(super) async fn close(redis: &Redis, keys: &[Key]) -> Result<(), RedisFailure> {
    let mut pipeline = pipe();
    for key in keys {
        pipeline.hdel(redis.key("breakers"), field(key)).ignore();
        pipeline.del(probe_key(redis, key)).ignore();
    }
    redis.pipeline(&pipeline).await
}

/// Whether this worker is the one to probe.
pub(super) async fn probe(redis: &Redis, key: &Key) -> Result<bool, RedisFailure> {
    let mut command = cmd("SET");
    command
        .arg(probe_key(redis, key))
        .arg(1)
        .arg("NX")
        .arg("PX");
    command.arg(u64::try_from(PROBE.as_millis()).unwrap_or(u64::MAX));
    let set: Option<String> = redis.command(&command).await?;
    Ok(set.is_some())
}

/// The probes of these were not made.
pub(super) async fn release(redis: &Redis, keys: &[Key]) -> Result<(), RedisFailure> {
    let mut pipeline = pipe();
    for key in keys {
        pipeline.del(probe_key(redis, key)).ignore();
    }
    redis.pipeline(&pipeline).await
}

/// All that are not closed.
pub(super) async fn look(redis: &Redis) -> Result<Known, RedisFailure> {
    let mut invocation = LOOK.key(redis.key("breakers"));
    invocation.arg(FORGOTTEN_MS);
    let found: Vec<(String, u64, u64)> = redis.script(&invocation).await?;
    let known = found.into_iter().filter_map(|(field, left, rest)| {
        let times = (Duration::from_micros(left), Duration::from_micros(rest));
        Some((read(&field)?, times))
    });
    Ok(known.collect())
}

fn probe_key(redis: &Redis, key: &Key) -> String {
    redis.key(format_args!("probe:{}", field(key)))
}

fn field(key: &Key) -> String {
    format!("{} {}", key.1, key.0)
}

/// None for a kind of failure that this version does not know.
fn read(field: &str) -> Option<Key> {
    let (class, model) = field.split_once(' ')?;
    let class = ErrorClass::ALL
        .iter()
        .find(|known| known.as_str() == class)?;
    Some((model.to_owned(), *class))
}

#[cfg(test)]
mod tests {
    use shared::testing::TestEnv;

    use super::*;

    #[tokio::test]
    async fn what_one_worker_notes_another_reads_and_one_of_them_probes() {
        let env = TestEnv::new().await;
        let redis = env.redis();
        let key: Key = (
            "some/model with blanks:free".to_owned(),
            ErrorClass::Timeout,
        );
        let rest = Duration::from_mins(1);
        trip(&redis, &key, rest).await.unwrap();
        let known = look(&redis).await.unwrap();
        let (left, noted) = known[&key];
        assert!(left <= rest && left > rest / 2 && noted == rest, "{left:?}");
        let shown = open_breakers(&redis).await.unwrap();
        assert_eq!((shown.len(), shown[0].state), (1, State::Open));

        assert!(probe(&redis, &key).await.unwrap());
        assert!(!probe(&redis, &key).await.unwrap(), "one is enough");
        release(&redis, std::slice::from_ref(&key)).await.unwrap();
        assert!(probe(&redis, &key).await.unwrap());
        trip(&redis, &key, Duration::ZERO).await.unwrap();
        assert!(probe(&redis, &key).await.unwrap(), "that probe is over");
        let shown = open_breakers(&redis).await.unwrap();
        assert_eq!(shown[0].state, State::HalfOpen);
        close(&redis, &[key]).await.unwrap();
        assert!(look(&redis).await.unwrap().is_empty());
    }
}
