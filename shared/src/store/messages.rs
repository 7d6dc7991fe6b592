//! Messages of one person's conversations.

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreResult, UserTx};
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

/// Stores how many tokens a message has, as somebody counted them.
///
/// # Errors
/// When the database fails.
pub async fn set_token_count(tx: &mut UserTx, id: Uuid, tokens: u32) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.messages m SET token_count = $3 WHERE m.id = $1 AND m.user_id = $2 AND m.token_count <> $3",
        id,
        user_id,
        i32::try_from(tokens).unwrap_or(i32::MAX),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
