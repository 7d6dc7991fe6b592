//! Conversations of one person.

use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{StoreResult, UserTx};
use crate::domain::{ContextType, Conversation, ConversationStatus};

/// What a new conversation is made of.
#[derive(Clone, Debug)]
pub struct NewConversation<'a> {
    /// UUIDv7.
    pub id: Uuid,
    /// At most 255 characters; none gives the default, which the first reply replaces.
    pub title: Option<&'a str>,
    /// What it is about.
    pub context_type: ContextType,
    /// What the prompt should know.
    pub context_data: &'a Value,
    /// What the client wants to keep with it.
    pub metadata: &'a Value,
}

/// Which conversations to list.
#[derive(Clone, Debug)]
pub struct Filter<'a> {
    /// Active or archived.
    pub status: ConversationStatus,
    /// Only those about this.
    pub context_type: Option<ContextType>,
    /// Only those whose title or messages contain this text, whatever the case.
    pub search: Option<&'a str>,
    /// At most so many.
    pub limit: i64,
    /// After so many.
    pub offset: i64,
}

/// What to change; absent fields stay.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    /// A new title, which no generated one will replace.
    pub title: Option<&'a str>,
    /// Archive or bring back.
    pub status: Option<ConversationStatus>,
    /// Replaces the metadata.
    pub metadata: Option<&'a Value>,
}

/// What became of an edit.
#[derive(Clone, Debug)]
pub enum Edited {
    /// Done.
    Done(Conversation),
    /// The version was not the expected one.
    Changed,
    /// There is no such conversation of this person.
    NotFound,
}

/// Every reading query has the same columns; the macro keeps them in one place.
macro_rules! conversation_query {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            Conversation,
            r#"SELECT c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                      c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                      c.last_message_at, c.created_at, c.updated_at, c.version
               FROM chat.conversations c "# + $tail $(, $arg)*
        )
    };
}

/// Creates a conversation.
///
/// # Errors
/// When the database fails.
pub async fn create(tx: &mut UserTx, new: &NewConversation<'_>) -> StoreResult<Conversation> {
    let user_id = tx.user_id();
    let title = new.title.unwrap_or(crate::domain::DEFAULT_TITLE);
    let conversation = sqlx::query_as!(
        Conversation,
        r#"INSERT INTO chat.conversations AS c
               (id, user_id, title, title_is_default, context_type, context_data, metadata, last_id)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $1)
           RETURNING c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                     c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                     c.last_message_at, c.created_at, c.updated_at, c.version"#,
        new.id,
        user_id,
        title,
        new.title.is_none(),
        new.context_type as _,
        new.context_data,
        new.metadata,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(conversation)
}

/// One conversation, unless it was deleted.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<Conversation>> {
    let user_id = tx.user_id();
    let query = conversation_query!(
        "WHERE c.id = $1 AND c.user_id = $2 AND c.status <> 'deleted'",
        id,
        user_id
    );
    Ok(query.fetch_optional(tx.conn()).await?)
}

/// A page of conversations, newest activity first, and how many match in all.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut UserTx, filter: &Filter<'_>) -> StoreResult<(Vec<Conversation>, i64)> {
    let user_id = tx.user_id();
    let pattern = filter.search.map(like_pattern);
    let conversations = conversation_query!(
        "WHERE c.user_id = $1 AND c.status = $2 AND ($3::text IS NULL OR c.context_type = $3)
           AND ($4::text IS NULL OR c.title ILIKE $4 OR EXISTS (
                SELECT FROM chat.messages m WHERE m.conversation_id = c.id AND m.id > c.id AND m.content ILIKE $4))
         ORDER BY c.last_activity_at DESC, c.id DESC LIMIT $5 OFFSET $6",
        user_id,
        filter.status as _,
        filter.context_type.map(ContextType::as_str),
        pattern.as_deref(),
        filter.limit,
        filter.offset,
    )
    .fetch_all(tx.conn())
    .await?;
    let total = sqlx::query_scalar!(
        r#"SELECT count(*) AS "total!" FROM chat.conversations c
           WHERE c.user_id = $1 AND c.status = $2 AND ($3::text IS NULL OR c.context_type = $3)
             AND ($4::text IS NULL OR c.title ILIKE $4 OR EXISTS (
                SELECT FROM chat.messages m WHERE m.conversation_id = c.id AND m.id > c.id AND m.content ILIKE $4))"#,
        user_id,
        filter.status as _,
        filter.context_type.map(ContextType::as_str),
        pattern.as_deref(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((conversations, total))
}

/// The pattern that finds `text` itself, its wildcards taken literally.
fn like_pattern(text: &str) -> String {
    let escaped = text
        .replace('\\', r"\\")
        .replace('%', r"\%")
        .replace('_', r"\_");
    format!("%{escaped}%")
}

/// Edits a conversation, where `expected` is its version or absent.
///
/// # Errors
/// When the database fails.
pub async fn edit(
    tx: &mut UserTx,
    id: Uuid,
    expected: Option<i32>,
    changes: &Changes<'_>,
) -> StoreResult<Edited> {
    let user_id = tx.user_id();
    let edited = sqlx::query_as!(
        Conversation,
        r#"UPDATE chat.conversations c
           SET title = COALESCE($4, c.title), title_is_default = c.title_is_default AND $4::text IS NULL,
               status = COALESCE($5, c.status), metadata = COALESCE($6, c.metadata),
               version = c.version + 1, updated_at = now()
           WHERE c.id = $1 AND c.user_id = $2 AND c.status <> 'deleted' AND ($3::integer IS NULL OR c.version = $3)
           RETURNING c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                     c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                     c.last_message_at, c.created_at, c.updated_at, c.version"#,
        id,
        user_id,
        expected,
        changes.title,
        changes.status.map(ConversationStatus::as_str),
        changes.metadata.map(Json) as _,
    )
    .fetch_optional(tx.conn())
    .await?;
    match edited {
        Some(conversation) => Ok(Edited::Done(conversation)),
        None if expected.is_some() && find(tx, id).await?.is_some() => Ok(Edited::Changed),
        None => Ok(Edited::NotFound),
    }
}

/// Deletes a conversation softly: it is gone from every read at once. The caller cancels its
/// unfinished generations in the same transaction. Returns the conversation as it ended, if there was
/// one.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<Conversation>> {
    let user_id = tx.user_id();
    let deleted = sqlx::query_as!(
        Conversation,
        r#"UPDATE chat.conversations c
           SET status = 'deleted', version = c.version + 1, updated_at = now()
           WHERE c.id = $1 AND c.user_id = $2 AND c.status <> 'deleted'
           RETURNING c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                     c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                     c.last_message_at, c.created_at, c.updated_at, c.version"#,
        id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(deleted)
}

/// Stores a generated title, unless the person has set one or deleted the conversation meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn set_generated_title(
    tx: &mut UserTx,
    id: Uuid,
    title: &str,
) -> StoreResult<Option<Conversation>> {
    let user_id = tx.user_id();
    let conversation = sqlx::query_as!(
        Conversation,
        r#"UPDATE chat.conversations c
           SET title = $3, title_is_default = false, version = c.version + 1, updated_at = now()
           WHERE c.id = $1 AND c.user_id = $2 AND c.status <> 'deleted' AND c.title_is_default
           RETURNING c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                     c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                     c.last_message_at, c.created_at, c.updated_at, c.version"#,
        id,
        user_id,
        title,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(conversation)
}
