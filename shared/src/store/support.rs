//! Conversations of the help desk: what earlier turns came to, and who answers.

use serde_json::Value;
use uuid::Uuid;

use super::{StoreResult, UserTx};
use crate::domain::SupportState;

/// Earlier turns that count for the rules.
const TURNS: i64 = 10;

/// A conversation of the help desk as its next turn finds it.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who answers.
    pub state: SupportState,
    /// What is known of the hand-off.
    pub support: Value,
    /// What the help desk noted with its earlier answers, oldest first.
    pub turns: Vec<Value>,
}

/// A conversation of the person's, if it is one of the help desk.
///
/// # Errors
/// When the database fails.
pub async fn session(tx: &mut UserTx, conversation_id: Uuid) -> StoreResult<Option<Session>> {
    let user_id = tx.user_id();
    let row = sqlx::query!(
        r#"SELECT COALESCE(c.support_state, 'bot') AS "state!: SupportState", COALESCE(c.support, '{}') AS "support!"
           FROM chat.conversations c
           WHERE c.id = $1 AND c.user_id = $2 AND c.context_type = 'support' AND c.status <> 'deleted'"#,
        conversation_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut turns = sqlx::query_scalar!(
        r#"SELECT m.metadata -> 'support' AS "support!" FROM chat.messages m
           WHERE m.conversation_id = $1 AND m.id > $1 AND m.sender_type = 'assistant' AND m.superseded_by IS NULL
             AND m.metadata ? 'support'
           ORDER BY m.id DESC LIMIT $2"#,
        conversation_id,
        TURNS,
    )
    .fetch_all(tx.conn())
    .await?;
    turns.reverse();
    Ok(Some(Session {
        state: row.state,
        support: row.support,
        turns,
    }))
}

/// Makes a generation one of the help desk's, in the transaction that accepted it.
///
/// # Errors
/// When the database fails.
pub async fn claim_for_desk(tx: &mut UserTx, generation_id: Uuid) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.generations SET kind = 'support' WHERE id = $1 AND user_id = $2 AND claim_token IS NULL",
        generation_id,
        user_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that a person should take over, unless one has or was told already. Returns whether anything
/// changed.
///
/// # Errors
/// When the database fails.
pub async fn escalate(
    tx: &mut UserTx,
    conversation_id: Uuid,
    generation_id: Uuid,
    reason: &str,
) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let escalated = sqlx::query!(
        "UPDATE chat.conversations c
         SET support_state = 'waiting_for_human', updated_at = now(),
             support = COALESCE(c.support, '{}') || jsonb_build_object('reason', $4::text, 'generation_id', $3::uuid,
                                                                     'escalated_at', now())
         WHERE c.id = $1 AND c.user_id = $2 AND c.context_type = 'support' AND c.status <> 'deleted'
           AND COALESCE(c.support_state, 'bot') IN ('bot', 'resolved')",
        conversation_id,
        user_id,
        generation_id,
        reason,
    )
    .execute(tx.conn())
    .await?;
    Ok(escalated.rows_affected() == 1)
}
