//! What was said before a prompt begins, in short.

use uuid::Uuid;

use super::{StoreResult, UserTx};
use crate::domain::SenderType;

/// A summary of a conversation's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Counts up.
    pub version: i32,
    /// The message up to which it tells, with the replies to it.
    pub up_to: Uuid,
    /// The text.
    pub content: String,
    /// Its size.
    pub token_count: i32,
}

/// What stands before the messages of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// The newest summary that tells of nothing after the message to answer.
    pub summary: Option<Summary>,
    /// Messages that it tells of, and that the prompt would not hold otherwise.
    pub summarised: i64,
    /// Messages of which the model learns nothing.
    pub dropped: i64,
}

/// A message to summarise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// UUIDv7.
    pub id: Uuid,
    /// The message that it is or answers.
    pub turn: Uuid,
    /// Who wrote it.
    pub sender_type: SenderType,
    /// The text.
    pub content: String,
    /// Its size.
    pub token_count: i32,
}

/// What stands before a prompt whose oldest message is `oldest` and that answers `answering`; counted up
/// to a thousand of either.
///
/// # Errors
/// When the database fails.
pub async fn earlier(
    tx: &mut UserTx,
    conversation_id: Uuid,
    oldest: Uuid,
    answering: Uuid,
) -> StoreResult<Earlier> {
    let user_id = tx.user_id();
    let row = sqlx::query!(
        r#"SELECT s.version AS "version?", s.up_to AS "up_to?", s.content AS "content?", s.token_count AS "token_count?",
                  count(b.turn) FILTER (WHERE b.turn <= s.up_to) AS "summarised!",
                  count(b.turn) FILTER (WHERE s.up_to IS NULL OR b.turn > s.up_to) AS "dropped!"
           FROM (SELECT $1::uuid AS id) c
           LEFT JOIN LATERAL (
               SELECT s.* FROM chat.conversation_summaries s
               WHERE s.conversation_id = c.id AND s.user_id = $2 AND s.up_to < $4 ORDER BY s.version DESC LIMIT 1
           ) s ON true
           LEFT JOIN LATERAL (
               SELECT CASE WHEN m.sender_type = 'user' THEN m.id ELSE COALESCE(m.parent_message_id, m.id) END AS turn
               FROM chat.messages m
               WHERE m.conversation_id = c.id AND m.user_id = $2 AND m.id > c.id AND m.id < $3
                 AND m.superseded_by IS NULL
               ORDER BY m.id DESC LIMIT 1000
           ) b ON true
           GROUP BY s.version, s.up_to, s.content, s.token_count"#,
        conversation_id,
        user_id,
        oldest,
        answering,
    )
    .fetch_one(tx.conn())
    .await?;
    let summary = match (row.version, row.up_to, row.content, row.token_count) {
        (Some(version), Some(up_to), Some(content), Some(token_count)) => Some(Summary {
            version,
            up_to,
            content,
            token_count,
        }),
        _ => None,
    };
    Ok(Earlier {
        summary,
        summarised: row.summarised,
        dropped: row.dropped,
    })
}

/// The newest summary of a conversation, and what was said after it, oldest first, at most `limit` messages.
///
/// # Errors
/// When the database fails.
pub async fn since(
    tx: &mut UserTx,
    conversation_id: Uuid,
    limit: i64,
) -> StoreResult<(Option<Summary>, Vec<Said>)> {
    let user_id = tx.user_id();
    let summary = sqlx::query_as!(
        Summary,
        "SELECT s.version, s.up_to, s.content, s.token_count FROM chat.conversation_summaries s
         WHERE s.conversation_id = $1 AND s.user_id = $2 ORDER BY s.version DESC LIMIT 1",
        conversation_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let after = summary
        .as_ref()
        .map_or(conversation_id, |summary| summary.up_to);
    // A reply has a later id than what it answers, so this misses none.
    let said = sqlx::query_as!(
        Said,
        r#"SELECT m.id AS "id!", m.turn AS "turn!", m.sender_type AS "sender_type!: SenderType", m.content AS "content!",
                  m.token_count AS "token_count!"
           FROM (
               SELECT m.id, m.sender_type, m.content, m.token_count,
                      CASE WHEN m.sender_type = 'user' THEN m.id ELSE COALESCE(m.parent_message_id, m.id) END AS turn
               FROM chat.messages m
               WHERE m.conversation_id = $1 AND m.user_id = $2 AND m.id > $3 AND m.superseded_by IS NULL
               ORDER BY m.id LIMIT $4
           ) m
           WHERE m.turn > $3 ORDER BY m.turn, m.id"#,
        conversation_id,
        user_id,
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok((summary, said))
}

/// Stores the next version, unless somebody was faster. Returns whether it did.
///
/// # Errors
/// When the database fails.
pub async fn add(
    tx: &mut UserTx,
    conversation_id: Uuid,
    summary: &Summary,
    model: &str,
) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let added = sqlx::query!(
        "INSERT INTO chat.conversation_summaries (conversation_id, version, user_id, up_to, content, token_count, model)
         SELECT c.id, $2, c.user_id, $4, $5, $6, $7 FROM chat.conversations c
         WHERE c.id = $1 AND c.user_id = $3 AND c.status <> 'deleted'
         ON CONFLICT DO NOTHING",
        conversation_id,
        summary.version,
        user_id,
        summary.up_to,
        summary.content,
        summary.token_count,
        model,
    )
    .execute(tx.conn())
    .await?;
    Ok(added.rows_affected() == 1)
}
