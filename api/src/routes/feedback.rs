//! What people think of replies.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::SenderType;
use shared::store::learning::questions;
use shared::store::{feedback, messages};
use utoipa::ToSchema;
use uuid::Uuid;

use super::conversation::not_found;
use crate::app::AppState;
use crate::error::{Checks, Code, Problem, Result};
use crate::extract::{Json, Path, User};

/// A rating of a reply.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Feedback {
    /// Whether the reply helped.
    rating: Rating,
    /// Why, in the person's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 2000)]
    comment: Option<String>,
}

/// Whether a reply helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rating {
    /// It did.
    Up,
    /// It did not.
    Down,
}

/// Rates a reply; the last rating counts.
#[utoipa::path(
    post, path = "/api/chat/conversations/{conversation_id}/messages/{message_id}/feedback", operation_id = "rate_reply", tag = "messages",
    params(("conversation_id" = Uuid, Path), ("message_id" = Uuid, Path)), request_body = Feedback,
    responses(
        (status = 200, body = Feedback),
        (status = 404, description = "conversation_not_found message_not_found"),
    )
)]
pub(super) async fn put(
    State(app): State<AppState>,
    User(user): User,
    Path((conversation_id, message_id)): Path<(Uuid, Uuid)>,
    Json(rating): Json<Feedback>,
) -> Result<axum::Json<Feedback>> {
    let mut checks = Checks::default();
    let length = rating
        .comment
        .as_ref()
        .map_or(0, |comment| comment.chars().count());
    checks.require(
        length <= 2000,
        "comment",
        "must have at most 2000 characters",
    );
    checks.finish()?;
    let mut tx = app.db.user(user.id).await?;
    shared::store::conversations::find(&mut tx, conversation_id)
        .await?
        .ok_or_else(not_found)?;
    let message = messages::find(&mut tx, conversation_id, message_id).await?;
    let message = message.ok_or_else(|| Problem::of(Code::MessageNotFound))?;
    if message.sender_type != SenderType::Assistant {
        return Err(Problem::field("message_id", "must be a reply of a model"));
    }
    feedback::put(
        &mut tx,
        message_id,
        rating.rating == Rating::Up,
        rating.comment.as_deref(),
    )
    .await?;
    questions::rated(&mut tx, message_id, rating.rating == Rating::Up).await?;
    tx.commit().await?;
    Ok(axum::Json(rating))
}
