//! Conversations of the help desk: what earlier turns came to, and who answers.

use serde_json::Value;
use uuid::Uuid;

use super::generations::{self, Stopped};
use super::learning::questions;
use super::{StoreResult, UserTx};
use crate::clock::Clock;
use crate::domain::{SupportState, safe_tokens};
use crate::id;

/// Earlier turns that count for the rules.
const TURNS: i64 = 10;
/// Why a question was handed over where only the taking says so.
const TAKEN: &str = "taken_over";

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

/// Lets a person answer from now on, in place of whoever did: what a model is making for the conversation
/// is cancelled in the same commit, so that no text of it can land any more. None where there is no such
/// conversation of the help desk.
///
/// # Errors
/// When the database fails.
pub async fn take(
    tx: &mut UserTx,
    conversation_id: Uuid,
    agent: &str,
) -> StoreResult<Option<Stopped>> {
    let user_id = tx.user_id();
    // In the order in which the end of a generation locks them.
    sqlx::query!(
        "SELECT g.id FROM chat.generations g
         WHERE g.conversation_id = $1 AND g.user_id = $2 AND g.status IN ('queued', 'in_progress')
         ORDER BY g.id FOR UPDATE",
        conversation_id,
        user_id,
    )
    .fetch_all(tx.conn())
    .await?;
    let taken = sqlx::query!(
        "UPDATE chat.conversations c
         SET support_state = 'human', updated_at = now(), version = c.version + 1,
             support = COALESCE(c.support, '{}') || jsonb_build_object('agent', $3::text, 'taken_at', now())
         WHERE c.id = $1 AND c.user_id = $2 AND c.context_type = 'support' AND c.status <> 'deleted'",
        conversation_id,
        user_id,
        agent,
    )
    .execute(tx.conn())
    .await?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    questions::handed_over(tx, conversation_id, TAKEN).await?;
    generations::cancel_unfinished(tx, conversation_id, false)
        .await
        .map(Some)
}

/// Stores what the person who has taken over says. None where nobody has.
///
/// # Errors
/// When the database fails.
pub async fn say(
    tx: &mut UserTx,
    clock: &Clock,
    conversation_id: Uuid,
    agent: &str,
    text: &str,
) -> StoreResult<Option<Uuid>> {
    let user_id = tx.user_id();
    let held = sqlx::query_scalar!(
        "SELECT c.last_id FROM chat.conversations c
         WHERE c.id = $1 AND c.user_id = $2 AND c.support_state = 'human' AND c.status <> 'deleted' FOR NO KEY UPDATE",
        conversation_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(last_id) = held else { return Ok(None) };
    let id = id::new_after(clock.now(), Some(last_id));
    sqlx::query!(
        "WITH said AS (
             INSERT INTO chat.messages (id, user_id, conversation_id, sender_type, content, metadata, token_count)
             VALUES ($1, $2, $3, 'assistant', $4, jsonb_build_object('human', true, 'agent', $5::text), $6)
         )
         UPDATE chat.conversations c
         SET message_count = c.message_count + 1, last_id = $1, last_message_at = now(), last_activity_at = now(),
             updated_at = now(), version = c.version + 1
         WHERE c.id = $3",
        id,
        user_id,
        conversation_id,
        text,
        agent,
        i32::try_from(safe_tokens(text)).unwrap_or(i32::MAX),
    )
    .execute(tx.conn())
    .await?;
    Ok(Some(id))
}

/// Ends what [`take`] began: the assistant answers again, knowing the note, or the matter is settled for
/// the reason. Returns whether a person had it.
///
/// # Errors
/// When the database fails.
pub async fn leave(
    tx: &mut UserTx,
    conversation_id: Uuid,
    state: SupportState,
    text: Option<&str>,
) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let left = sqlx::query!(
        "UPDATE chat.conversations c
         SET support_state = $3, updated_at = now(), version = c.version + 1,
             support = COALESCE(c.support, '{}') - 'agent'
                 || CASE WHEN $3 = 'resolved' THEN jsonb_build_object('resolution', $4::text, 'resolved_at', now())
                         ELSE jsonb_build_object('note', $4::text) END
         WHERE c.id = $1 AND c.user_id = $2 AND c.support_state = 'human' AND c.status <> 'deleted'",
        conversation_id,
        user_id,
        state as _,
        text,
    )
    .execute(tx.conn())
    .await?;
    Ok(left.rows_affected() == 1)
}
