//! `/api/chat/conversations`: threads of messages of one user.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::domain::{ContextType, Conversation, ConversationStatus};
use shared::store::UserTx;
use shared::store::conversations::{self as store, Filter, NewConversation};
use utoipa::{IntoParams, ToSchema};

use super::creation::{Begun, begin};
use super::view::{Answer, Conversations, OffsetPage};
use crate::app::AppState;
use crate::error::{Checks, Result};
use crate::extract::{Idempotent, Limit, Offset, Query, User};
use crate::limits;

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

/// Most bytes of `context_data` and of `metadata`.
const MAX_JSON_BYTES: usize = 64 * 1024;

/// Starts a conversation.
#[utoipa::path(
    post, path = "/api/chat/conversations", operation_id = "create_conversation", tag = "conversations",
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
    let mut creation = match begin(&app, user.id, &request, limit, None).await? {
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
    let conversation = store::create(creation.tx(&app).await?, &new).await?;
    let location = format!("/api/chat/conversations/{}", conversation.id);
    let answer = Answer::new(StatusCode::CREATED, Some(location), &conversation)?;
    let kept = creation.commit(answer.clone(), None).await?;
    Ok(kept.answer(&app, user.id, answer).await)
}

/// The person's conversations, newest activity first.
#[utoipa::path(
    get, path = "/api/chat/conversations", operation_id = "list_conversations", tag = "conversations", params(ListQuery),
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
    let wanted = &filter;
    let read = |mut tx: UserTx| async move { store::list(&mut tx, wanted).await };
    let (conversations, total) = app.history.read(user.id, read).await?;
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

pub(super) fn check<const N: usize>(
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
        let Some(object) = object else { continue };
        let size = serde_json::to_string(object).map_or(usize::MAX, |text| text.len());
        checks.require(
            size <= MAX_JSON_BYTES,
            field,
            "must have at most 64 KiB of JSON",
        );
        let bounded = object.values().all(is_bounded);
        checks.require(bounded, field, "numbers must lie between -1e300 and 1e300");
    }
    checks.finish()
}

/// Postgres keeps numbers in decimal and gives them back with all their digits; the largest ones
/// then read as infinite.
fn is_bounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() <= 1e300),
        Value::Array(items) => items.iter().all(is_bounded),
        Value::Object(fields) => fields.values().all(is_bounded),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn object(map: Option<&serde_json::Map<String, Value>>) -> Value {
    Value::Object(map.cloned().unwrap_or_default())
}

impl From<Visible> for ConversationStatus {
    fn from(visible: Visible) -> Self {
        match visible {
            Visible::Active => Self::Active,
            Visible::Archived => Self::Archived,
        }
    }
}
