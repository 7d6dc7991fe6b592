//! What a generation may see of its conversation, read by the statement that claims it.

use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::{Attachment, SenderType};

/// What a prompt is built from.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What the client stored for the prompt with the conversation.
    pub context_data: Value,
    /// Oldest turn first, the message to answer last.
    pub messages: Vec<HistoryMessage>,
    /// How many messages the conversation has in all, later and superseded ones included.
    pub message_count: i32,
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

/// The columns of a history as they come: one array for each, in the same order, and none where there
/// is no message. What the arrays hold is read one by one, so that a message which this version
/// cannot read spoils no claim but its own.
pub(super) struct Columns {
    pub(super) context_data: Option<Value>,
    pub(super) message_count: Option<i32>,
    pub(super) ids: Option<Vec<Uuid>>,
    pub(super) senders: Option<Vec<String>>,
    pub(super) contents: Option<Vec<String>>,
    pub(super) attachments: Option<Vec<Json<Value>>>,
    pub(super) tokens: Option<Vec<i32>>,
}

impl Columns {
    /// The history. None when a message of it cannot be read.
    pub(super) fn read(self) -> Option<History> {
        let ids = self.ids.unwrap_or_default();
        let mut messages = Vec::with_capacity(ids.len());
        let columns = ids
            .into_iter()
            .zip(self.senders.unwrap_or_default())
            .zip(self.contents.unwrap_or_default())
            .zip(self.attachments.unwrap_or_default())
            .zip(self.tokens.unwrap_or_default());
        for ((((id, sender), content), Json(attachments)), tokens) in columns {
            messages.push(HistoryMessage {
                id,
                sender_type: sender.parse().ok()?,
                content,
                attachments: serde_json::from_value(attachments).ok()?,
                token_count: u32::try_from(tokens).unwrap_or(0),
            });
        }
        Some(History {
            context_data: self.context_data.unwrap_or_default(),
            messages,
            message_count: self.message_count.unwrap_or(0),
        })
    }
}

/// Reads rows with the histories of what `$wanted` names: the parts of a statement that make `wanted`,
/// with the columns `user_id`, `conversation_id`, `budget` (in tokens) and `answering`, the message to
/// answer, or NULL where no history is wanted. Its other columns are `$columns` of the result.
///
/// A history holds the turns before that message and the live replies to them, as many of the newest
/// as fit the budget, and the message itself whatever its size. A reply stands right after the message
/// that it answers, whenever it was written. Two hundred turns are more than any budget holds, so a
/// long conversation is never sorted; and `last_id` bounds the partitions that are looked into.
macro_rules! with_histories {
    ($row:ident, [$($wanted:literal)+], $columns:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            $row,
            $($wanted +)+ " SELECT " + $columns + r#" h.ids, h.senders, h.contents,
                      h.attachments AS "attachments: Vec<Json<Value>>", h.tokens,
                      CASE WHEN h.ids IS NOT NULL THEN c.context_data END AS context_data,
                      c.message_count AS "message_count?"
               FROM wanted w LEFT JOIN chat.conversations c ON c.id = w.conversation_id AND c.user_id = w.user_id
               LEFT JOIN LATERAL (
                   SELECT array_agg(s.id ORDER BY s.turn, s.id) AS ids,
                          array_agg(s.sender_type ORDER BY s.turn, s.id) AS senders,
                          array_agg(s.content ORDER BY s.turn, s.id) AS contents,
                          array_agg(s.attachments ORDER BY s.turn, s.id) AS attachments,
                          array_agg(s.token_count ORDER BY s.turn, s.id) AS tokens
                   FROM (
                       SELECT newest.*, sum(token_count) OVER (ORDER BY turn DESC, id DESC) AS total FROM (
                           SELECT m.id, CASE WHEN m.sender_type = 'user' THEN m.id
                                             ELSE COALESCE(m.parent_message_id, m.id) END AS turn, m.sender_type,
                                  m.content, m.attachments, m.token_count
                           FROM chat.messages m
                           WHERE m.conversation_id = c.id AND m.user_id = c.user_id AND m.id > c.id
                             AND m.id <= c.last_id AND m.superseded_by IS NULL
                             AND (m.id <= w.answering
                                  OR m.sender_type <> 'user' AND COALESCE(m.parent_message_id, m.id) < w.answering)
                             AND NOT (m.sender_type = 'assistant'
                                      AND m.parent_message_id IS NOT DISTINCT FROM w.answering)
                           ORDER BY m.id DESC LIMIT 400
                       ) newest
                   ) s
                   WHERE s.total <= w.budget OR s.id = w.answering
               ) h ON w.answering IS NOT NULL"#
            $(, $arg)*
        )
    };
}
pub(super) use with_histories;

/// Which history is wanted.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryOf {
    /// Whose conversation it is; another person's has no messages.
    pub user_id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The message to answer.
    pub user_message_id: Uuid,
}

/// The histories of any messages, in the order of `wanted`, so that tests may ask for them without
/// a claim.
///
/// # Errors
/// When the database fails.
#[cfg(feature = "testing")]
pub async fn histories(
    tx: &mut crate::store::SweepTx,
    wanted: &[HistoryOf],
    budget_tokens: i64,
) -> crate::store::StoreResult<Vec<History>> {
    struct Row {
        place: i64,
        context_data: Option<Value>,
        message_count: Option<i32>,
        ids: Option<Vec<Uuid>>,
        senders: Option<Vec<String>>,
        contents: Option<Vec<String>>,
        attachments: Option<Vec<Json<Value>>>,
        tokens: Option<Vec<i32>>,
    }
    let conversations: Vec<Uuid> = wanted.iter().map(|of| of.conversation_id).collect();
    let users: Vec<Uuid> = wanted.iter().map(|of| of.user_id).collect();
    let answering: Vec<Uuid> = wanted.iter().map(|of| of.user_message_id).collect();
    let mut rows = with_histories!(
        Row,
        ["WITH wanted AS (
             SELECT n.*, $4::bigint AS budget FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY
                  AS n (conversation_id, user_id, answering, place)
         )"],
        r#"w.place AS "place!","#,
        &conversations,
        &users,
        &answering,
        budget_tokens,
    )
    .fetch_all(tx.conn())
    .await?;
    rows.sort_by_key(|row| row.place);
    Ok(rows
        .into_iter()
        .map(|row| {
            let columns = Columns {
                context_data: row.context_data,
                message_count: row.message_count,
                ids: row.ids,
                senders: row.senders,
                contents: row.contents,
                attachments: row.attachments,
                tokens: row.tokens,
            };
            columns.read().unwrap_or_default()
        })
        .collect())
}
