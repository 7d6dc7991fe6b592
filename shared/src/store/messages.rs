//! Messages of one person's conversations.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreResult, SweepTx, UserTx};
use crate::domain::{Attachment, ContentType, Message, SenderType};

pub(super) struct MessageRow {
    pub(super) id: Uuid,
    pub(super) conversation_id: Uuid,
    pub(super) sender_type: SenderType,
    pub(super) content: String,
    pub(super) content_type: ContentType,
    pub(super) attachments: Json<Vec<Attachment>>,
    pub(super) metadata: serde_json::Value,
    pub(super) parent_message_id: Option<Uuid>,
    pub(super) superseded_by: Option<Uuid>,
    pub(super) created_at: OffsetDateTime,
}

impl From<MessageRow> for Message {
    fn from(row: MessageRow) -> Self {
        Self {
            id: row.id,
            conversation_id: row.conversation_id,
            sender_type: row.sender_type,
            content: row.content,
            content_type: row.content_type,
            attachments: row.attachments.0,
            metadata: row.metadata,
            parent_message_id: row.parent_message_id,
            superseded_by: row.superseded_by,
            created_at: row.created_at,
        }
    }
}

macro_rules! message_query {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            MessageRow,
            r#"SELECT m.id, m.conversation_id, m.sender_type AS "sender_type: SenderType", m.content,
                      m.content_type AS "content_type: ContentType",
                      m.attachments AS "attachments: Json<Vec<Attachment>>", m.metadata, m.parent_message_id,
                      m.superseded_by, m.created_at
               FROM chat.messages m "# + $tail $(, $arg)*
        )
    };
}

/// Where a page of messages begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The newest ones.
    Newest,
    /// The ones just before this message.
    Before(Uuid),
    /// The ones just after this message.
    After(Uuid),
}

/// One message.
///
/// # Errors
/// When the database fails.
pub async fn find(
    tx: &mut UserTx,
    conversation_id: Uuid,
    id: Uuid,
) -> StoreResult<Option<Message>> {
    let user_id = tx.user_id();
    let query = message_query!(
        "WHERE m.id = $1 AND m.conversation_id = $2 AND m.user_id = $3",
        id,
        conversation_id,
        user_id
    );
    Ok(query.fetch_optional(tx.conn()).await?.map(Message::from))
}

/// Up to `limit` messages, oldest first, and whether there are more beyond the page in its
/// direction. The conversation's id bounds the partitions that are read: every message of it is
/// younger.
///
/// # Errors
/// When the database fails.
pub async fn list(
    tx: &mut UserTx,
    conversation_id: Uuid,
    cursor: Cursor,
    limit: i64,
) -> StoreResult<(Vec<Message>, bool)> {
    let user_id = tx.user_id();
    let one_more = limit + 1;
    let mut rows = match cursor {
        Cursor::After(after) => {
            message_query!(
                "WHERE m.conversation_id = $1 AND m.user_id = $2 AND m.id > $3 AND m.id > $1
                 ORDER BY m.id LIMIT $4",
                conversation_id,
                user_id,
                after,
                one_more
            )
            .fetch_all(tx.conn())
            .await?
        }
        Cursor::Newest | Cursor::Before(_) => {
            let before = if let Cursor::Before(id) = cursor {
                id
            } else {
                Uuid::max()
            };
            message_query!(
                "WHERE m.conversation_id = $1 AND m.user_id = $2 AND m.id < $3 AND m.id > $1
                 ORDER BY m.id DESC LIMIT $4",
                conversation_id,
                user_id,
                before,
                one_more
            )
            .fetch_all(tx.conn())
            .await?
        }
    };
    let has_more = i64::try_from(rows.len()).unwrap_or(i64::MAX) > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(0));
    if !matches!(cursor, Cursor::After(_)) {
        rows.reverse();
    }
    Ok((rows.into_iter().map(Message::from).collect(), has_more))
}

/// What a prompt is built from.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What the client stored for the prompt with the conversation.
    pub context_data: serde_json::Value,
    /// Oldest turn first, the message to answer last.
    pub messages: Vec<HistoryMessage>,
}

/// A message of the history with what the prompt builder needs to know of it.
#[derive(Clone, Debug)]
pub struct HistoryMessage {
    /// UUIDv7.
    pub id: Uuid,
    /// Who wrote it.
    pub sender_type: SenderType,
    /// The text.
    pub content: String,
    /// What is attached.
    pub attachments: Vec<Attachment>,
    /// Its size as stored with it.
    pub token_count: u32,
}

/// Which history is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOf {
    /// Whose conversation it is; another person's has no messages.
    pub user_id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The message to answer.
    pub user_message_id: Uuid,
}

/// The history that the answer to each of these messages may see, oldest first, that message last:
/// turns before it and the live replies to them, as many of the newest as fit `budget_tokens`.
/// Replies stand right after the message they answer, whenever they were written. The histories are
/// in the order of `wanted`; one whose message is gone is empty.
///
/// # Errors
/// When the database fails.
pub async fn histories(
    tx: &mut SweepTx,
    wanted: &[HistoryOf],
    budget_tokens: i64,
) -> StoreResult<Vec<History>> {
    let conversations: Vec<Uuid> = wanted.iter().map(|of| of.conversation_id).collect();
    let users: Vec<Uuid> = wanted.iter().map(|of| of.user_id).collect();
    let answering: Vec<Uuid> = wanted.iter().map(|of| of.user_message_id).collect();
    // Two hundred turns are more than any budget holds, so the window below never sorts a long
    // conversation.
    let rows = sqlx::query!(
        r#"SELECT w.place AS "place!", h.id AS "id!", h.sender_type AS "sender_type!: SenderType",
                  h.content AS "content!", h.attachments AS "attachments!: Json<Vec<Attachment>>",
                  h.token_count AS "token_count!",
                  CASE WHEN h.id = w.answering THEN (
                      SELECT c.context_data FROM chat.conversations c WHERE c.id = w.conversation_id) END AS context_data
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY
                AS w (conversation_id, user_id, answering, place)
           CROSS JOIN LATERAL (
               SELECT newest.*, sum(token_count) OVER (ORDER BY turn DESC, id DESC) AS total FROM (
                   SELECT m.id, CASE WHEN m.sender_type = 'user' THEN m.id
                                     ELSE COALESCE(m.parent_message_id, m.id) END AS turn, m.sender_type, m.content,
                          m.attachments, m.token_count
                   FROM chat.messages m
                   WHERE m.conversation_id = w.conversation_id AND m.user_id = w.user_id AND m.id > w.conversation_id
                     AND m.superseded_by IS NULL
                     AND (m.id <= w.answering
                          OR m.sender_type <> 'user' AND COALESCE(m.parent_message_id, m.id) < w.answering)
                     AND NOT (m.sender_type = 'assistant' AND m.parent_message_id IS NOT DISTINCT FROM w.answering)
                   ORDER BY m.id DESC LIMIT 400
               ) newest
           ) h
           WHERE h.total <= $4 OR h.id = w.answering ORDER BY w.place, h.turn, h.id"#,
        &conversations,
        &users,
        &answering,
        budget_tokens,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut histories = vec![History::default(); wanted.len()];
    for row in rows {
        let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
        let Some(history) = histories.get_mut(place) else {
            continue;
        };
        if let Some(context_data) = row.context_data {
            history.context_data = context_data;
        }
        history.messages.push(HistoryMessage {
            id: row.id,
            sender_type: row.sender_type,
            content: row.content,
            attachments: row.attachments.0,
            token_count: u32::try_from(row.token_count).unwrap_or(0),
        });
    }
    Ok(histories)
}
