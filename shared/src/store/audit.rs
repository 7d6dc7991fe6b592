//! The trail of what operators did. It is written in the transaction that did it.

use serde_json::Value;
use uuid::Uuid;

use super::conn::Conn;
use super::{OperatorTx, StoreResult, UserTx};

/// Who does something, for the trail.
#[derive(Clone, Debug)]
pub struct Actor {
    /// A service or a person, at most 200 characters.
    pub name: String,
    /// The request it was asked by.
    pub request_id: Option<String>,
}

/// One line of the trail.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// UUIDv7 of the moment.
    pub id: Uuid,
    /// Who.
    pub actor: &'a Actor,
    /// What, for example `dead_letter.replay`.
    pub action: &'a str,
    /// To what: an id, or a queue's name.
    pub subject: &'a str,
    /// What else is worth knowing; never content.
    pub details: &'a Value,
}

/// Notes what was done to this person's rows.
///
/// # Errors
/// When the database fails.
pub async fn note(tx: &mut UserTx, entry: &Entry<'_>) -> StoreResult<()> {
    let user_id = Some(tx.user_id());
    write(tx.conn(), entry, user_id).await
}

/// Notes what was done to the fleet.
///
/// # Errors
/// When the database fails.
pub async fn note_of_fleet(tx: &mut OperatorTx, entry: &Entry<'_>) -> StoreResult<()> {
    write(tx.conn(), entry, None).await
}

async fn write(connection: Conn<'_>, entry: &Entry<'_>, user_id: Option<Uuid>) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO chat.audit_log (id, actor, action, subject, user_id, request_id, details)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        entry.id,
        entry.actor.name,
        entry.action,
        entry.subject,
        user_id,
        entry.actor.request_id,
        entry.details,
    )
    .execute(connection)
    .await?;
    Ok(())
}
