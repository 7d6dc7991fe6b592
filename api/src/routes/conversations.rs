//! `/api/chat/conversations`: threads of messages of one user.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::domain::{ContextType, Conversation, ConversationStatus, Event};
use shared::store::conversations::{self as store, Changes, Edited, Filter, NewConversation};
use shared::store::generations::cancel_unfinished;
use shared::store::messages::{self, Cursor};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::creation::{Begun, begin};
use super::view::{self, Answer, ConversationWithMessages, Conversations, OffsetPage};
use crate::app::AppState;
use crate::error::{Checks, Code, Problem, Result};
use crate::extract::{Idempotent, IfMatch, Json, Limit, Offset, Path, Query, User};
use crate::{cancelled, limits};

/// A new conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateConversation {
    /// Without one, a short title is made after the first reply.
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    title: Option<String>,
    /// What it is about; `general` without one.
    #[schema(nullable = false)]
    context_type: Option<ContextType>,
    /// What the model should know, at most 64 KiB of JSON.
    #[schema(value_type = Option<Object>, nullable = false)]
    context_data: Option<serde_json::Map<String, Value>>,
    /// Whatever the client wants to keep with it, at most 64 KiB of JSON.
    #[schema(value_type = Option<Object>, nullable = false)]
    metadata: Option<serde_json::Map<String, Value>>,
}

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

/// The statuses a client may see or set.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Visible {
    /// Takes messages.
    #[default]
    Active,
    /// Read-only.
    Archived,
}

/// Which conversations to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Active ones, unless told otherwise.
    #[serde(default)]
    #[param(inline)]
    status: Visible,
    /// Only those about this.
    #[param(inline)]
    context_type: Option<ContextType>,
    /// Only those whose title or messages contain this text.
    #[param(min_length = 1, max_length = 200)]
    q: Option<String>,
    /// Conversations per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 100, default = 20, required = false)]
    limit: Limit<20, 100>,
    /// Conversations to skip.
    #[serde(default)]
    #[param(value_type = u32, maximum = 1_000_000, default = 0, required = false)]
    offset: Offset,
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

/// Most bytes of `context_data` and of `metadata`.
const MAX_JSON_BYTES: usize = 64 * 1024;

/// Starts a conversation.
#[utoipa::path(
    post, path = "/api/chat/conversations", tag = "conversations",
    params(super::IdempotencyHeader), request_body = CreateConversation,
    responses(
        (status = 201, body = Conversation, headers(("Location" = String, description = "The conversation."))),
        (status = 409, description = "idempotency_in_progress"),
        (status = 422, description = "idempotency_conflict"),
    )
)]
pub(super) async fn create(
    State(app): State<AppState>,
    User(user): User,
    request: Idempotent<CreateConversation>,
) -> Result<Response> {
    let body = &request.body;
    check(
        body.title.as_deref(),
        [
            ("context_data", &body.context_data),
            ("metadata", &body.metadata),
        ],
    )?;
    let limit = limits::conversations(&app.gate.config.limits);
    let mut creation = match begin(&app, user.id, &request, limit).await? {
        Begun::Answered(response) => return Ok(response),
        Begun::New(creation) => creation,
    };
    let new = NewConversation {
        id: shared::id::new(app.gate.clock.now()),
        title: body.title.as_deref(),
        context_type: body.context_type.unwrap_or_default(),
        context_data: &object(body.context_data.as_ref()),
        metadata: &object(body.metadata.as_ref()),
    };
    let conversation = store::create(&mut creation.tx, &new).await?;
    let location = format!("/api/chat/conversations/{}", conversation.id);
    let answer = Answer::new(StatusCode::CREATED, Some(location), &conversation)?;
    let kept = creation.commit(answer.clone(), None).await?;
    Ok(kept.answer(&app, user.id, answer).await)
}

/// The person's conversations, newest activity first.
#[utoipa::path(
    get, path = "/api/chat/conversations", tag = "conversations", params(ListQuery),
    responses((status = 200, body = Conversations))
)]
pub(super) async fn list(
    State(app): State<AppState>,
    User(user): User,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Conversations>> {
    let mut checks = Checks::default();
    if let Some(q) = &query.q {
        let length = q.trim().chars().count();
        checks.require(
            (1..=200).contains(&length),
            "q",
            "must have 1 to 200 characters",
        );
    }
    checks.finish()?;
    let filter = Filter {
        status: query.status.into(),
        context_type: query.context_type,
        search: query.q.as_deref().map(str::trim),
        limit: query.limit.get(),
        offset: query.offset.get(),
    };
    let mut tx = app.db.user(user.id).await?;
    let (conversations, total) = store::list(&mut tx, &filter).await?;
    let shown = i64::try_from(conversations.len()).unwrap_or(0);
    let pagination = OffsetPage {
        limit: filter.limit,
        offset: filter.offset,
        has_more: filter.offset + shown < total,
    };
    Ok(axum::Json(Conversations {
        conversations,
        total,
        pagination,
    }))
}

/// A conversation with its newest messages.
#[utoipa::path(
    get, path = "/api/chat/conversations/{conversation_id}", tag = "conversations",
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
    put, path = "/api/chat/conversations/{conversation_id}", tag = "conversations",
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
    patch, path = "/api/chat/conversations/{conversation_id}", tag = "conversations",
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
    let event = Event::conversation_updated(&conversation, app.gate.clock.now());
    if let Err(failure) = shared::push::publish(&app.redis, user.id, &event).await {
        tracing::debug!(%failure, "a change was not pushed");
    }
    Ok((view::tag(&conversation), axum::Json(conversation)).into_response())
}

/// Deletes a conversation. Its unfinished generations are cancelled.
#[utoipa::path(
    delete, path = "/api/chat/conversations/{conversation_id}", tag = "conversations",
    params(("conversation_id" = Uuid, Path)),
    responses((status = 204), (status = 404, description = "conversation_not_found"))
)]
pub(super) async fn delete(
    State(app): State<AppState>,
    User(user): User,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    let mut tx = app.db.user(user.id).await?;
    if !store::delete(&mut tx, id).await? {
        return Err(not_found());
    }
    let stopped = cancel_unfinished(&mut tx, id, true).await?;
    tx.commit().await?;
    cancelled::tell(&app, user.id, stopped).await;
    Ok(StatusCode::NO_CONTENT)
}

fn check<const N: usize>(
    title: Option<&str>,
    objects: [(&str, &Option<serde_json::Map<String, Value>>); N],
) -> Result<()> {
    let mut checks = Checks::default();
    if let Some(title) = title {
        let fits = title.chars().count() <= 255 && !title.trim().is_empty();
        checks.require(
            fits,
            "title",
            "must have 1 to 255 characters that are not all blank",
        );
    }
    for (field, object) in objects {
        let size = object.as_ref().map_or(0, |object| {
            serde_json::to_string(object).map_or(usize::MAX, |text| text.len())
        });
        checks.require(
            size <= MAX_JSON_BYTES,
            field,
            "must have at most 64 KiB of JSON",
        );
    }
    checks.finish()
}

fn object(map: Option<&serde_json::Map<String, Value>>) -> Value {
    Value::Object(map.cloned().unwrap_or_default())
}

pub(super) fn not_found() -> Problem {
    Problem::of(Code::ConversationNotFound)
}

impl From<Visible> for ConversationStatus {
    fn from(visible: Visible) -> Self {
        match visible {
            Visible::Active => Self::Active,
            Visible::Archived => Self::Archived,
        }
    }
}
