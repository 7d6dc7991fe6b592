//! A bucket of the whole fleet in Redis, by Redis's clock, and the line of those who wait for it.
//!
//! The bucket is one number, the theoretical arrival time of the next call. The line is in the order
//! in which generations were accepted: who comes later is told a later time and gets nothing that
//! somebody before them waits for. A place in the line is no promise of the limit: whoever comes for it
//! is let through by the bucket alone, so no delay on the way can exceed the limit.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;
use shared::redis::{Redis, RedisFailure};
use uuid::Uuid;

use super::Limit;

/// Who has not come so long after their time has lost the place, because they were cancelled or found
/// another model.
const GRACE: Duration = Duration::from_secs(10);

/// What nobody has asked for for so long is forgotten.
const LIFETIME: Duration = Duration::from_hours(25);

/// A script that knows what time it is in microseconds: by Redis's clock, or a test's.
fn timed(body: &str) -> Script {
    let clock = r"local now = tonumber(ARGV[#ARGV])
                  if not now then
                      local time = redis.call('TIME')
                      now = time[1] * 1000000 + time[2]
                  end
                  local day = 86400000000
                  local tomorrow = string.format('%.0f', (math.floor(now / day) + 1) * day)";
    Script::new(&format!("{clock}\n{body}"))
}

/// Lets a call through, or says how long to wait and behind how many.
static ADMIT: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"local bucket, line, due = KEYS[1], KEYS[2], KEYS[3]
          local id, order, gap, slack = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
          local known, longest, grace, lifetime = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
          local state = redis.call('HMGET', bucket, 'arrival', 'closed', 'left')
          local arrival = math.max(tonumber(state[1] or '0'), now + known)
          local start = math.max(now, tonumber(state[2] or '0'))
          local left = tonumber(state[3] or '-1')
          for _, gone in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now - grace, 'LIMIT', 0, 100)) do
              redis.call('ZREM', line, gone)
              redis.call('ZREM', due, gone)
          end
          local ahead = redis.call('ZCOUNT', line, '-inf', '(' .. ARGV[2])
          local at = math.max(start, math.max(arrival, start) + ahead * gap - slack)
          if at <= now then
              arrival = math.max(arrival, now) + gap
              redis.call('HSET', bucket, 'arrival', string.format('%.0f', arrival))
              if left > 1 then
                  redis.call('HINCRBY', bucket, 'left', -1)
              elseif left >= 0 then
                  redis.call('HSET', bucket, 'closed', tomorrow)
                  redis.call('HDEL', bucket, 'left')
              end
              redis.call('ZREM', line, id)
              redis.call('ZREM', due, id)
          elseif longest < 0 or at - now <= longest then
              redis.call('ZADD', line, order, id)
              redis.call('ZADD', due, string.format('%.0f', at), id)
              redis.call('PEXPIRE', line, lifetime)
              redis.call('PEXPIRE', due, lifetime)
          else
              redis.call('ZREM', line, id)
              redis.call('ZREM', due, id)
          end
          redis.call('PEXPIRE', bucket, lifetime)
          return { math.max(at - now, 0), ahead, math.max(arrival - now, 0) }",
    )
});

/// Lets nothing through for so long; never sooner than was said before.
static CLOSE: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"local closed = now + tonumber(ARGV[1])
          if closed > tonumber(redis.call('HGET', KEYS[1], 'closed') or '0') then
              redis.call('HSET', KEYS[1], 'closed', string.format('%.0f', closed))
          end
          redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Notes how many calls are left of the day; none closes the bucket until the next one.
static LEFT: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"local left = tonumber(ARGV[1])
          if left > 0 then
              redis.call('HSET', KEYS[1], 'left', left)
          else
              redis.call('HSET', KEYS[1], 'closed', tomorrow)
              redis.call('HDEL', KEYS[1], 'left')
          end
          redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// How long a bucket is closed for.
static CLOSED: LazyLock<Script> = LazyLock::new(|| {
    timed("return math.max(tonumber(redis.call('HGET', KEYS[1], 'closed') or '0') - now, 0)")
});

/// How far ahead of now the bucket is, how long it is closed for, what is left of the day (-1: nobody said),
/// and how many stand in line.
static STATE: LazyLock<Script> = LazyLock::new(|| {
    timed(
        r"local state = redis.call('HMGET', KEYS[1], 'arrival', 'closed', 'left')
          return { math.max(tonumber(state[1] or '0') - now, 0), math.max(tonumber(state[2] or '0') - now, 0),
                   tonumber(state[3] or '-1'), redis.call('ZCARD', KEYS[2]) }",
    )
});

/// A bucket as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketState {
    /// How far ahead of now it is.
    pub arrival: Duration,
    /// How long nothing is let through.
    pub closed: Duration,
    /// Calls that are left of the day, where the upstream has said so.
    pub left: Option<u64>,
    /// How many stand in line.
    pub waiting: u64,
}

/// One bucket, by its name.
#[derive(Clone, Debug)]
pub struct Bucket {
    name: String,
}

/// A generation that wants to make a call.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which.
    pub id: Uuid,
    /// Its place among those who wait: smaller is sooner.
    pub order: u64,
    /// How far ahead of now the caller knows the bucket to be, in case Redis has forgotten it.
    pub known: Duration,
    /// Do not stand in line for longer than this.
    pub longest: Option<Duration>,
}

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Until the call may be made; zero when it is made now.
    pub wait: Duration,
    /// How many stand in line before it.
    pub ahead: u64,
    /// How far ahead of now the bucket is.
    pub arrival: Duration,
}

impl Bucket {
    /// The bucket of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    fn key(&self, redis: &Redis, part: &str) -> String {
        redis.key(format_args!("pacing:{}{part}", self.name))
    }

    /// The keys of the bucket and of its line.
    pub(super) fn keys(&self, redis: &Redis) -> (String, String) {
        (self.key(redis, ""), self.key(redis, ":line"))
    }

    /// Asks for one call.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn admit(
        &self,
        redis: &Redis,
        limit: Limit,
        request: &Request,
    ) -> Result<Verdict, RedisFailure> {
        self.admit_at(redis, limit, request, None).await
    }

    async fn admit_at(
        &self,
        redis: &Redis,
        limit: Limit,
        request: &Request,
        clock: Option<u64>,
    ) -> Result<Verdict, RedisFailure> {
        let longest = request
            .longest
            .map_or(-1, |longest| signed(micros(longest)));
        let mut invocation = ADMIT.key(self.key(redis, ""));
        invocation
            .key(self.key(redis, ":line"))
            .key(self.key(redis, ":due"))
            .arg(request.id.as_bytes().as_slice())
            .arg(request.order)
            .arg(micros(limit.gap()))
            .arg(micros(limit.slack()))
            .arg(micros(request.known))
            .arg(longest)
            .arg(micros(GRACE))
            .arg(lifetime_ms())
            .arg(moment(clock));
        let (wait, ahead, arrival): (u64, u64, u64) = redis.script(&invocation).await?;
        Ok(Verdict {
            wait: Duration::from_micros(wait),
            ahead,
            arrival: Duration::from_micros(arrival),
        })
    }

    /// Closes it for everybody.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn close(&self, redis: &Redis, time: Duration) -> Result<(), RedisFailure> {
        self.close_at(redis, time, None).await
    }

    async fn close_at(
        &self,
        redis: &Redis,
        time: Duration,
        clock: Option<u64>,
    ) -> Result<(), RedisFailure> {
        let mut invocation = CLOSE.key(self.key(redis, ""));
        invocation
            .arg(micros(time))
            .arg(lifetime_ms())
            .arg(moment(clock));
        redis.script(&invocation).await
    }

    /// Notes how many calls the upstream still allows today, by UTC.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn left_today(&self, redis: &Redis, calls: u32) -> Result<(), RedisFailure> {
        self.left_at(redis, calls, None).await
    }

    async fn left_at(
        &self,
        redis: &Redis,
        calls: u32,
        clock: Option<u64>,
    ) -> Result<(), RedisFailure> {
        let mut invocation = LEFT.key(self.key(redis, ""));
        invocation.arg(calls).arg(lifetime_ms()).arg(moment(clock));
        redis.script(&invocation).await
    }

    /// How it is.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn state(&self, redis: &Redis) -> Result<BucketState, RedisFailure> {
        let mut invocation = STATE.key(self.key(redis, ""));
        invocation.key(self.key(redis, ":line")).arg(moment(None));
        let (arrival, closed, left, waiting): (u64, u64, i64, u64) =
            redis.script(&invocation).await?;
        Ok(BucketState {
            arrival: Duration::from_micros(arrival),
            closed: Duration::from_micros(closed),
            left: u64::try_from(left).ok(),
            waiting,
        })
    }

    /// How long it is closed for.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn closed(&self, redis: &Redis) -> Result<Duration, RedisFailure> {
        let mut invocation = CLOSED.key(self.key(redis, ""));
        invocation.arg(moment(None));
        Ok(Duration::from_micros(redis.script(&invocation).await?))
    }
}

/// A test's clock, or the empty text.
fn moment(clock: Option<u64>) -> String {
    clock.map(|clock| clock.to_string()).unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn lifetime_ms() -> u64 {
    u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
