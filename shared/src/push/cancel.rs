//! Cancellations told to the workers. The row is cancelled already; the broadcast only spares the
//! seconds until the worker's next renewal would tell it.

use uuid::Uuid;

use crate::redis::{Redis, RedisFailure};

fn channel(redis: &Redis) -> String {
    redis.key("cancel")
}

/// Tells all workers that a generation was cancelled.
///
/// # Errors
/// When Redis is away; the worker learns it at its next renewal.
pub async fn broadcast_cancel(redis: &Redis, generation_id: Uuid) -> Result<(), RedisFailure> {
    super::broadcast::tell(redis, &channel(redis), generation_id.as_bytes()).await
}

/// Calls `on_cancel` for every broadcast, for ever, reconnecting as often as needed.
pub async fn listen_for_cancels(redis: Redis, on_cancel: impl Fn(Uuid)) {
    let hear = |payload: &[u8]| {
        if let Ok(id) = Uuid::from_slice(payload) {
            on_cancel(id);
        }
    };
    super::broadcast::listen(&redis, &channel(&redis), hear).await;
}
