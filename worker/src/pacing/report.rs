//! What this worker knows of the upstream, written down for operators.

use std::sync::PoisonError;
use std::time::Instant;

use shared::redis::RedisFailure;
use shared::upstreams::{self, Breaker, Bucket, Key, Report};

use super::{Pacing, Side, notes};
use crate::context::Context;

/// Writes it down.
pub(super) async fn report(context: &Context) -> Result<(), RedisFailure> {
    let pacing = &context.pacing;
    let mut buckets = Vec::new();
    for (models, side) in [("free", &pacing.free), ("paid", &pacing.paid)] {
        buckets.push(bucket(pacing, models, side).await?);
    }
    let open = notes::open_breakers(&pacing.redis).await?;
    let breakers = open.into_iter().map(|breaker| Breaker {
        state: breaker.state.name().to_owned(),
        error: breaker.error.to_string(),
        model: breaker.model,
        seconds_left: breaker.seconds_left,
    });
    let keys = context.upstream.key_rests(Instant::now());
    let keys = keys.into_iter().map(|(label, all, paid)| Key {
        label,
        worker: String::new(),
        rests_seconds: all.as_secs_f64(),
        rests_for_paid_seconds: paid.max(all).as_secs_f64(),
    });
    let known = || {
        pacing
            .credits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    // Nothing is held while Redis is written to.
    let credits = known().clone();
    let report = Report {
        at: context.clock.now(),
        buckets,
        keys: keys.collect(),
        breakers: breakers.collect(),
        credits,
    };
    context.upstream.prices().write(&context.redis).await?;
    upstreams::write(&context.redis, &context.config.queue.name, &report).await
}

async fn bucket(pacing: &Pacing, models: &str, side: &Side) -> Result<Bucket, RedisFailure> {
    let state = side.bucket.state(&pacing.redis).await?;
    let slack = side.limit.map(super::Limit::slack).unwrap_or_default();
    let next = state.arrival.saturating_sub(slack).max(state.closed);
    Ok(Bucket {
        account: pacing.account.clone(),
        models: models.to_owned(),
        calls_per_minute: side.limit.map(super::Limit::calls),
        next_call_seconds: next.as_secs_f64(),
        waiting: state.waiting,
        closed_seconds: state.closed.as_secs_f64(),
        left_today: state.left,
    })
}
