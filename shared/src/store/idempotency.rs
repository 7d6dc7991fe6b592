//! Answers kept for 24 hours, so that a repeated request is answered and not repeated.

use uuid::Uuid;

use super::{StoreResult, UserTx};

/// The answer to a request that was seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The JSON body, byte for byte.
    pub body: String,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: the request is new.
    New,
    /// The same request was answered.
    Answered(Replay),
    /// The same request is being answered right now.
    Running,
    /// Another request used the key.
    Conflict,
}

/// Looks the key up and, where it is new, holds it until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn look_up(tx: &mut UserTx, key: &str, fingerprint: &[u8; 32]) -> StoreResult<Known> {
    let user_id = tx.user_id();
    let held = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtextextended($1::uuid::text || $2, 0)) AS "held!""#,
        user_id,
        key,
    )
    .fetch_one(tx.conn())
    .await?;
    // A statement of its own: its snapshot must be younger than the lock.
    let row = sqlx::query!(
        r#"SELECT fingerprint, status, location, body, COALESCE(locked_until > clock_timestamp(), false) AS "running!"
           FROM chat.idempotency_keys
           WHERE user_id = $1 AND key = $2 AND created_at > now() - interval '24 hours'"#,
        user_id,
        key,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(match row {
        Some(row) if row.fingerprint != fingerprint => Known::Conflict,
        Some(row) if row.running => Known::Running,
        Some(row) => Known::Answered(Replay {
            status: u16::try_from(row.status).unwrap_or(200),
            location: row.location,
            body: row.body,
        }),
        None if held => Known::New,
        None => Known::Running,
    })
}

/// Keeps the answer in the transaction that did the work. `running_ms` is how long the request may
/// still hold its client waiting; a crash ends that by itself.
///
/// # Errors
/// When the database fails.
pub async fn keep(
    tx: &mut UserTx,
    key: &str,
    fingerprint: &[u8; 32],
    answer: &Replay,
    running_ms: Option<i64>,
) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "INSERT INTO chat.idempotency_keys (user_id, key, fingerprint, status, location, body, locked_until)
         VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7 * interval '1 millisecond')
         ON CONFLICT (user_id, key) DO UPDATE
         SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status, location = EXCLUDED.location,
             body = EXCLUDED.body, locked_until = EXCLUDED.locked_until, created_at = now()
         WHERE chat.idempotency_keys.created_at <= now() - interval '24 hours'",
        user_id,
        key,
        fingerprint,
        i16::try_from(answer.status).unwrap_or(200),
        answer.location,
        answer.body,
        running_ms.map(|ms| ms as f64),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Replaces the answer once the client has stopped waiting and saw another one.
///
/// # Errors
/// When the database fails.
pub async fn replace(tx: &mut UserTx, key: &str, answer: &Replay) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.idempotency_keys SET status = $3, location = $4, body = $5, locked_until = NULL
         WHERE user_id = $1 AND key = $2",
        user_id,
        key,
        i16::try_from(answer.status).unwrap_or(200),
        answer.location,
        answer.body,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets the answers that hold anything of a conversation, which is deleted in the same transaction.
/// The answer to its creation stays: repeating that must not make another one.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut UserTx, conversation_id: Uuid) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.idempotency_keys SET body = '', created_at = to_timestamp(0)
         WHERE user_id = $1 AND created_at > now() - interval '24 hours'
           AND position($2::uuid::text IN body) > 0
           AND location IS DISTINCT FROM '/api/chat/conversations/' || $2::uuid::text",
        user_id,
        conversation_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
