//! Single-use tickets for WebSockets of browsers, which cannot send headers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::crypto::{hex, sha256};
use crate::redis::{Redis, RedisFailure};

/// How long a ticket is good.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// Whom a ticket lets in, and until when the connection may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The person.
    pub user_id: Uuid,
    /// When their token expires.
    #[serde(with = "time::serde::timestamp")]
    pub expires_at: OffsetDateTime,
}

fn key(redis: &Redis, secret: &str) -> String {
    // Only the hash is kept: a dump of Redis opens no socket.
    redis.key(format_args!(
        "ticket:{}",
        hex(&sha256(&[secret.as_bytes()]))
    ))
}

/// Makes a ticket and returns its secret.
///
/// # Errors
/// When Redis is away: there are no tickets without it.
pub async fn issue(redis: &Redis, ticket: &Ticket) -> Result<String, RedisFailure> {
    let secret = hex(&rand::random::<[u8; 24]>());
    let value = serde_json::to_string(ticket).unwrap_or_default();
    let mut command = ::redis::cmd("SET");
    command
        .arg(key(redis, &secret))
        .arg(value)
        .arg("EX")
        .arg(LIFETIME.as_secs());
    redis.command::<()>(&command).await?;
    Ok(secret)
}

/// Redeems a ticket; none when it is unknown, expired or was used.
///
/// # Errors
/// When Redis is away.
pub async fn redeem(redis: &Redis, secret: &str) -> Result<Option<Ticket>, RedisFailure> {
    let mut command = ::redis::cmd("GETDEL");
    command.arg(key(redis, secret));
    let value: Option<String> = redis.command(&command).await?;
    Ok(value.and_then(|value| serde_json::from_str(&value).ok()))
}
