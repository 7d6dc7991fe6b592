//! What a conversation knows of an assessment, and messages that Balas itself writes.

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Assessment;
use crate::clock::Clock;
use crate::domain::{ContentType, Message, SenderType, safe_tokens};
use crate::id;
use crate::store::messages::{self, Cursor};
use crate::store::{StoreResult, UserTx};

/// How many of the newest messages are looked at for what was spoken of.
const LOOKED_AT: i64 = 200;

/// What prompts are given, kept with the conversation so that a reply needs no look at the assessment.
pub(super) fn context_of(assessment: &Assessment) -> Value {
    let data = assessment.results();
    json!({
        "id": assessment.id,
        "summary": data.summary(),
        "language": assessment.spoken(),
        "data": data,
    })
}

/// Gives any conversation of the person these results. It becomes the conversation of the assessment
/// where neither has another. Returns whether there is such a conversation.
///
/// # Errors
/// When the database fails.
pub async fn add_context(
    tx: &mut UserTx,
    conversation_id: Uuid,
    assessment: &Assessment,
) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let updated = sqlx::query!(
        "UPDATE chat.conversations c
         SET context_data = jsonb_set(c.context_data, '{assessment}', $3),
             assessment_id = CASE WHEN c.assessment_id IS NOT NULL OR EXISTS (
                     SELECT FROM chat.conversations o WHERE o.assessment_id = $4 AND o.status <> 'deleted')
                 THEN c.assessment_id ELSE $4 END,
             version = c.version + 1, updated_at = now()
         WHERE c.id = $1 AND c.user_id = $2 AND c.status <> 'deleted'",
        conversation_id,
        user_id,
        context_of(assessment),
        assessment.id,
    )
    .execute(tx.conn())
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// The assessment that a conversation has the results of, and what the person has said in it of
/// late. None where there is no such conversation.
///
/// # Errors
/// When the database fails.
pub async fn covered_by(
    tx: &mut UserTx,
    conversation_id: Uuid,
) -> StoreResult<Option<(Option<Assessment>, Vec<String>)>> {
    let user_id = tx.user_id();
    let found = sqlx::query!(
        "SELECT COALESCE(assessment_id::text, context_data #>> '{assessment,id}') AS assessment_id
         FROM chat.conversations WHERE id = $1 AND user_id = $2 AND status <> 'deleted'",
        conversation_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(found) = found else { return Ok(None) };
    let id = found.assessment_id.and_then(|text| text.parse().ok());
    let assessment = match id {
        Some(id) => super::find(tx, id).await?,
        None => None,
    };
    let (newest, _) = messages::list(tx, conversation_id, Cursor::Newest, LOOKED_AT).await?;
    let said = newest
        .into_iter()
        .filter(|message| message.sender_type == SenderType::User);
    Ok(Some((
        assessment,
        said.map(|message| message.content).collect(),
    )))
}

/// The newest messages of a conversation, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn messages_of(
    tx: &mut UserTx,
    conversation_id: Uuid,
    limit: i64,
) -> StoreResult<Vec<Message>> {
    let (messages, _) = messages::list(tx, conversation_id, Cursor::Newest, limit).await?;
    Ok(messages)
}

/// Writes a message of Balas's own. None where the conversation is gone.
pub(super) async fn insert_message(
    tx: &mut UserTx,
    clock: &Clock,
    conversation_id: Uuid,
    sender: SenderType,
    content: &str,
    metadata: Value,
) -> StoreResult<Option<Message>> {
    let user_id = tx.user_id();
    let last_id = sqlx::query_scalar!(
        "SELECT last_id FROM chat.conversations
         WHERE id = $1 AND user_id = $2 AND status <> 'deleted' FOR UPDATE",
        conversation_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(last_id) = last_id else {
        return Ok(None);
    };
    let message_id = id::new_after(clock.now(), Some(last_id));
    let created_at = sqlx::query_scalar!(
        r#"WITH touched AS (
               UPDATE chat.conversations c
               SET message_count = c.message_count + 1, last_id = $1, last_message_at = now(),
                   last_activity_at = now(), updated_at = now()
               WHERE c.id = $3
           )
           INSERT INTO chat.messages (id, user_id, conversation_id, sender_type, content, metadata, token_count)
           VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING created_at AS "at: OffsetDateTime""#,
        message_id,
        user_id,
        conversation_id,
        sender as _,
        content,
        metadata,
        i32::try_from(safe_tokens(content)).unwrap_or(i32::MAX),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Some(Message {
        id: message_id,
        conversation_id,
        sender_type: sender,
        content: content.to_owned(),
        content_type: ContentType::Text,
        attachments: Vec::new(),
        metadata,
        parent_message_id: None,
        superseded_by: None,
        created_at,
    }))
}
