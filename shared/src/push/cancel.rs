//! Cancellations told to the workers. The row is cancelled already; the broadcast only spares the
//! seconds until the worker's next renewal would tell it.

use std::time::Duration;

use futures::StreamExt as _;
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
    let mut command = ::redis::cmd("PUBLISH");
    command
        .arg(channel(redis))
        .arg(generation_id.as_bytes().as_slice());
    redis.command::<i64>(&command).await.map(drop)
}

/// Calls `on_cancel` for every broadcast, for ever, reconnecting as often as needed.
pub async fn listen_for_cancels(redis: Redis, on_cancel: impl Fn(Uuid)) {
    loop {
        if let Err(failure) = listen_once(&redis, &on_cancel).await {
            tracing::debug!(%failure, "not listening for cancellations");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn listen_once(redis: &Redis, on_cancel: &impl Fn(Uuid)) -> Result<(), RedisFailure> {
    let mut pubsub = redis.pubsub().await?;
    pubsub.subscribe(channel(redis)).await?;
    let mut messages = pubsub.on_message();
    while let Some(message) = messages.next().await {
        if let Ok(id) = Uuid::from_slice(message.get_payload_bytes()) {
            on_cancel(id);
        }
    }
    Ok(())
}
