//! `/api/chat/conversations/{id}`: reading, changing and deleting one.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use shared::domain::{ContextType, Conversation, ConversationStatus, Event};
use shared::store::conversations::{self as store, Changes, Edited};
use shared::store::generations::cancel_unfinished;
use shared::store::idempotency;
use shared::store::learning::questions;
use shared::store::messages::{self, Cursor};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::conversations::{Visible, check};
use super::view::{self, ConversationWithMessages};
use crate::app::AppState;
use crate::cancelled;
use crate::error::{Code, Problem, Result};
use crate::extract::{IfMatch, Json, Limit, Path, Query, User};

/// What to change; absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditConversation {
    /// A title of the person's own, which no generated one replaces.
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    title: Option<String>,
    /// `archived` makes it read-only, `active` brings it back.
    #[schema(nullable = false)]
    status: Option<Visible>,
    /// Replaces the metadata, at most 64 KiB of JSON.
    #[schema(value_type = Option<Object>, nullable = false)]
    metadata: Option<serde_json::Map<String, Value>>,
}

/// How much of a conversation to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadQuery {
    /// How many of the newest messages.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 200, default = 50, required = false)]
    messages: Limit<50, 200>,
}

/// A conversation with its newest messages.
#[utoipa::path(
    get, path = "/api/chat/conversations/{conversation_id}", operation_id = "read_conversation", tag = "conversations",
    params(("conversation_id" = Uuid, Path), ReadQuery),
    responses(
        (status = 200, body = ConversationWithMessages, headers(("ETag" = String, description = "For `If-Match`."))),
        (status = 404, description = "conversation_not_found"),
    )
)]
pub(super) async fn read(
    State(app): State<AppState>,
    User(user): User,
    Path(id): Path<Uuid>,
    Query(query): Query<ReadQuery>,
) -> Result<Response> {
    let mut tx = app.db.user(user.id).await?;
    let conversation = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    let (messages, _) = messages::list(&mut tx, id, Cursor::Newest, query.messages.get()).await?;
    let tag = view::tag(&conversation);
    Ok((
        tag,
        axum::Json(ConversationWithMessages {
            conversation,
            messages,
        }),
    )
        .into_response())
}

/// Changes a conversation.
#[utoipa::path(
    put, path = "/api/chat/conversations/{conversation_id}", operation_id = "replace_conversation", tag = "conversations",
    params(("conversation_id" = Uuid, Path), super::IfMatchHeader), request_body = EditConversation,
    responses(
        (status = 200, body = Conversation, headers(("ETag" = String, description = "For `If-Match`."))),
        (status = 404, description = "conversation_not_found"),
        (status = 412, description = "precondition_failed"),
    )
)]
pub(super) async fn replace(
    app: State<AppState>,
    user: User,
    id: Path<Uuid>,
    condition: IfMatch,
    changes: Json<EditConversation>,
) -> Result<Response> {
    edit(app, user, id, condition, changes).await
}

/// Changes a conversation. Both methods change only the fields that are given.
#[utoipa::path(
    patch, path = "/api/chat/conversations/{conversation_id}", operation_id = "update_conversation", tag = "conversations",
    params(("conversation_id" = Uuid, Path), super::IfMatchHeader), request_body = EditConversation,
    responses(
        (status = 200, body = Conversation, headers(("ETag" = String, description = "For `If-Match`."))),
        (status = 404, description = "conversation_not_found"),
        (status = 412, description = "precondition_failed"),
    )
)]
pub(super) async fn update(
    app: State<AppState>,
    user: User,
    id: Path<Uuid>,
    condition: IfMatch,
    changes: Json<EditConversation>,
) -> Result<Response> {
    edit(app, user, id, condition, changes).await
}

async fn edit(
    State(app): State<AppState>,
    User(user): User,
    Path(id): Path<Uuid>,
    condition: IfMatch,
    Json(changes): Json<EditConversation>,
) -> Result<Response> {
    check(changes.title.as_deref(), [("metadata", &changes.metadata)])?;
    let mut tx = app.db.user(user.id).await?;
    let expected = match condition {
        IfMatch::Absent | IfMatch::Any => None,
        IfMatch::OneOf(_) => {
            let current = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
            if !condition.allows(&current.version.to_string()) {
                return Err(Problem::of(Code::PreconditionFailed));
            }
            Some(current.version)
        }
    };
    let metadata = changes.metadata.map(Value::Object);
    let changes = Changes {
        title: changes.title.as_deref(),
        status: changes.status.map(ConversationStatus::from),
        metadata: metadata.as_ref(),
    };
    let conversation = match store::edit(&mut tx, id, expected, &changes).await? {
        Edited::Done(conversation) => conversation,
        Edited::Changed => return Err(Problem::of(Code::PreconditionFailed)),
        Edited::NotFound => return Err(not_found()),
    };
    tx.commit().await?;
    tell(&app, &conversation).await;
    Ok((view::tag(&conversation), axum::Json(conversation)).into_response())
}

/// Deletes a conversation. Its unfinished generations are cancelled, and the person's other clients
/// get `conversation.updated` with the status `deleted`.
#[utoipa::path(
    delete, path = "/api/chat/conversations/{conversation_id}", operation_id = "delete_conversation", tag = "conversations",
    params(("conversation_id" = Uuid, Path)),
    responses((status = 204), (status = 404, description = "conversation_not_found"))
)]
pub(super) async fn delete(
    State(app): State<AppState>,
    User(user): User,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    let mut tx = app.db.user(user.id).await?;
    let deleted = store::delete(&mut tx, id).await?.ok_or_else(not_found)?;
    let stopped = cancel_unfinished(&mut tx, id, true).await?;
    idempotency::forget(&mut tx, id).await?;
    if deleted.context_type == ContextType::Support {
        questions::forget_words(&mut tx, id).await?;
    }
    tx.commit().await?;
    cancelled::tell(&app, user.id, stopped.rows).await;
    // Last, because a stream of the conversation ends with it.
    tell(&app, &deleted).await;
    cancelled::push(&app, stopped.next).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Pushes how the conversation is now to its owner's clients.
pub(super) async fn tell(app: &AppState, conversation: &Conversation) {
    let event = Event::conversation_updated(conversation, app.gate.clock.now());
    if let Err(failure) = shared::push::publish(&app.redis, conversation.user_id, &event).await {
        tracing::debug!(%failure, "a change was not pushed");
    }
}

pub(super) fn not_found() -> Problem {
    Problem::of(Code::ConversationNotFound)
}
