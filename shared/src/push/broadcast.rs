//! Words to all workers. None of them is needed: each only spares the time until a worker looks at
//! the table by itself.

use std::time::Duration;

use futures::StreamExt as _;

use crate::redis::{Redis, RedisFailure};

/// Publishes a word.
pub(super) async fn tell(redis: &Redis, channel: &str, payload: &[u8]) -> Result<(), RedisFailure> {
    let mut command = ::redis::cmd("PUBLISH");
    command.arg(channel).arg(payload);
    redis.command::<i64>(&command).await.map(drop)
}

/// Calls `hear` for every word, for ever, reconnecting as often as needed.
pub(super) async fn listen(redis: &Redis, channel: &str, hear: impl Fn(&[u8])) {
    loop {
        if let Err(failure) = listen_once(redis, channel, &hear).await {
            tracing::debug!(channel, %failure, "not listening for broadcasts");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn listen_once(
    redis: &Redis,
    channel: &str,
    hear: &impl Fn(&[u8]),
) -> Result<(), RedisFailure> {
    let moves = redis.moves();
    let mut pubsub = redis.pubsub().await?;
    pubsub.subscribe(channel).await?;
    let mut messages = pubsub.on_message();
    let moved = redis.moved(moves);
    tokio::pin!(moved);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => hear(message.get_payload_bytes()),
                None => return Ok(()),
            },
            () = &mut moved => return Ok(()),
        }
    }
}
