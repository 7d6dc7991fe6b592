//! Rate limits per person for the whole fleet: GCRA in Redis, by Redis's clock.
//!
//! The generic cell rate algorithm keeps one number per person, the theoretical arrival time, and
//! allows a burst of the whole limit that refills evenly over the period. When Redis is away the
//! request is allowed: a limit protects the service, a refusal would break it.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::Script;

use crate::redis::{Redis, RedisFailure};

/// So many per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Names the limit in keys and in the `RateLimit-Policy` header.
    pub name: &'static str,
    /// Requests per period, which may come all at once.
    pub count: u32,
    /// The period.
    pub period: Duration,
}

/// What a limit says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may pass.
    pub allowed: bool,
    /// Requests that could follow at once.
    pub remaining: u32,
    /// Until the whole burst is available again.
    pub reset: Duration,
    /// Until the next request may pass; zero when this one passed.
    pub retry_after: Duration,
}

static GCRA: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local count, period, counts = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
          local time = redis.call('TIME')
          local now = time[1] * 1000000 + time[2]
          local step = period / count
          local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
          local allowed = arrival + step - now <= period
          if allowed and counts then
              arrival = arrival + step
              redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1)
          end
          local remaining = math.floor((period - (arrival - now)) / step + 0.000001)
          local wait = 0
          if not allowed then wait = arrival + step - now - period end
          return { allowed and 1 or 0, remaining, math.ceil(arrival - now), math.ceil(wait) }",
    )
});

/// Counts one request of `who` against the limit.
///
/// # Errors
/// When Redis is away; the caller lets the request pass.
pub async fn check(
    redis: &Redis,
    limit: &Limit,
    who: impl std::fmt::Display,
) -> Result<Verdict, RedisFailure> {
    ask(redis, limit, who, true).await
}

/// What the limit would say to a request of `who`, which does not count.
///
/// # Errors
/// When Redis is away.
pub async fn peek(
    redis: &Redis,
    limit: &Limit,
    who: impl std::fmt::Display,
) -> Result<Verdict, RedisFailure> {
    ask(redis, limit, who, false).await
}

async fn ask(
    redis: &Redis,
    limit: &Limit,
    who: impl std::fmt::Display,
    counts: bool,
) -> Result<Verdict, RedisFailure> {
    let mut invocation = GCRA.key(redis.key(format_args!("limit:{}:{who}", limit.name)));
    invocation
        .arg(limit.count)
        .arg(u64::try_from(limit.period.as_micros()).unwrap_or(u64::MAX))
        .arg(u8::from(counts));
    let (allowed, remaining, reset, wait): (u8, i64, u64, u64) = redis.script(&invocation).await?;
    Ok(Verdict {
        allowed: allowed == 1,
        remaining: u32::try_from(remaining.max(0)).unwrap_or(u32::MAX),
        reset: Duration::from_micros(reset),
        retry_after: Duration::from_micros(wait),
    })
}
