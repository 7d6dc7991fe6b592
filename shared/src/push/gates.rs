//! Pauses told to the workers. The queue's row says it already; the broadcast only spares the second
//! until the worker looks at it by itself.

use super::broadcast;
use crate::redis::{Redis, RedisFailure};

fn channel(redis: &Redis) -> String {
    redis.key("gates")
}

/// Tells all workers that a queue was paused or resumed.
///
/// # Errors
/// When Redis is away; the workers find out within a second.
pub async fn broadcast_gates(redis: &Redis) -> Result<(), RedisFailure> {
    broadcast::tell(redis, &channel(redis), b"").await
}

/// Calls `on_change` for every broadcast, for ever, reconnecting as often as needed.
pub async fn listen_for_gates(redis: Redis, on_change: impl Fn()) {
    broadcast::listen(&redis, &channel(&redis), |_| on_change()).await;
}
