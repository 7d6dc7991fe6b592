//! `/internal/support`: a person takes a conversation of the help desk over from the assistant. Whose it is
//! comes with the notification that somebody should.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::domain::SupportState;
use shared::store::audit::{Entry, note};
use shared::store::learning::proposals;
use shared::store::{UserTx, conversations, support as store};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::conversation::{not_found, tell};
use super::actor;
use crate::app::AppState;
use crate::cancelled;
use crate::error::{Checks, Code, Problem, Result};
use crate::extract::{Correlation, Internal, Json as Body, Path};

/// The most characters a name and a note may have.
const MAX_NAME: usize = 200;
const MAX_NOTE: usize = 2000;

/// Who takes over, and whose conversation it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Take {
    /// The person who asked.
    user_id: Uuid,
    /// Who answers from now on, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    agent: String,
}

/// What the person who has taken over says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Say {
    /// The person who asked.
    user_id: Uuid,
    /// Who answers.
    #[schema(min_length = 1, max_length = 200)]
    agent: String,
    /// The answer, at most `MAX_MESSAGE_LENGTH` characters.
    #[schema(min_length = 1)]
    content: String,
}

/// What is left to the assistant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct GiveBack {
    /// The person who asked.
    user_id: Uuid,
    /// What the assistant should know, at most 2000 characters.
    #[schema(nullable = false, max_length = 2000)]
    note: Option<String>,
}

/// How the matter ended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Resolve {
    /// The person who asked.
    user_id: Uuid,
    /// In a few words, 1 to 2000 characters.
    #[schema(min_length = 1, max_length = 2000)]
    reason: String,
}

/// Who answers now.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Handoff {
    session_id: Uuid,
    state: SupportState,
}

/// A person answers from now on. What the assistant was making is cancelled; nothing of it can land.
#[utoipa::path(
    post, path = "/internal/support/{conversation_id}/take", operation_id = "take_support", tag = "internal",
    params(("conversation_id" = Uuid, Path)), request_body = Take,
    responses((status = 200, body = Handoff), (status = 404, description = "conversation_not_found"))
)]
pub(in crate::routes) async fn take(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    correlation: Correlation,
    Body(body): Body<Take>,
) -> Result<Json<Handoff>> {
    let mut checks = Checks::default();
    short(&mut checks, "agent", &body.agent, MAX_NAME);
    checks.finish()?;
    let mut tx = app.db.user(body.user_id).await?;
    let stopped = store::take(&mut tx, id, &body.agent)
        .await?
        .ok_or_else(not_found)?;
    let details = json!({ "agent": body.agent });
    audit(&app, &mut tx, &correlation, "support.take", id, &details).await?;
    tx.commit().await?;
    cancelled::tell(&app, body.user_id, stopped.rows).await;
    cancelled::push(&app, stopped.next).await;
    done(&app, body.user_id, id, SupportState::Human).await
}

/// Answers as the person who has taken over. The message is an assistant's with `metadata.human`.
#[utoipa::path(
    post, path = "/internal/support/{conversation_id}/reply", operation_id = "reply_support", tag = "internal",
    params(("conversation_id" = Uuid, Path)), request_body = Say,
    responses(
        (status = 201, body = Handoff),
        (status = 404, description = "conversation_not_found"),
        (status = 409, description = "not_taken_over"),
        (status = 422, description = "message_too_long"),
    )
)]
pub(in crate::routes) async fn say(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    Body(body): Body<Say>,
) -> Result<(StatusCode, Json<Handoff>)> {
    let mut checks = Checks::default();
    short(&mut checks, "agent", &body.agent, MAX_NAME);
    let most = app.gate.config.limits.max_message_length;
    short(&mut checks, "content", &body.content, most);
    checks.finish()?;
    let mut tx = app.db.user(body.user_id).await?;
    let said = store::say(&mut tx, &app.gate.clock, id, &body.agent, &body.content).await?;
    if said.is_none() {
        return Err(not_held(&mut tx, id).await);
    }
    tx.commit().await?;
    let handoff = done(&app, body.user_id, id, SupportState::Human).await?;
    Ok((StatusCode::CREATED, handoff))
}

/// The assistant answers again, and knows the note.
#[utoipa::path(
    post, path = "/internal/support/{conversation_id}/give-back", operation_id = "give_back_support", tag = "internal",
    params(("conversation_id" = Uuid, Path)), request_body = GiveBack,
    responses(
        (status = 200, body = Handoff),
        (status = 404, description = "conversation_not_found"),
        (status = 409, description = "not_taken_over"),
    )
)]
pub(in crate::routes) async fn give_back(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    correlation: Correlation,
    Body(body): Body<GiveBack>,
) -> Result<Json<Handoff>> {
    let note = body.note.as_deref();
    let mut checks = Checks::default();
    let fits = note.is_none_or(|note| note.chars().count() <= MAX_NOTE);
    checks.require(fits, "note", "must have at most 2000 characters");
    checks.finish()?;
    let (user_id, state) = (body.user_id, SupportState::Bot);
    leave(&app, &correlation, user_id, id, state, note).await
}

/// The matter is settled. Another message begins anew, with the assistant. What was answered is proposed to the
/// editors of the knowledge base as an entry.
#[utoipa::path(
    post, path = "/internal/support/{conversation_id}/resolve", operation_id = "resolve_support", tag = "internal",
    params(("conversation_id" = Uuid, Path)), request_body = Resolve,
    responses(
        (status = 200, body = Handoff),
        (status = 404, description = "conversation_not_found"),
        (status = 409, description = "not_taken_over"),
    )
)]
pub(in crate::routes) async fn resolve(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    correlation: Correlation,
    Body(body): Body<Resolve>,
) -> Result<Json<Handoff>> {
    let mut checks = Checks::default();
    short(&mut checks, "reason", &body.reason, MAX_NOTE);
    checks.finish()?;
    let (user_id, state) = (body.user_id, SupportState::Resolved);
    leave(&app, &correlation, user_id, id, state, Some(&body.reason)).await
}

async fn leave(
    app: &AppState,
    correlation: &Correlation,
    user_id: Uuid,
    id: Uuid,
    state: SupportState,
    text: Option<&str>,
) -> Result<Json<Handoff>> {
    let mut tx = app.db.user(user_id).await?;
    if !store::leave(&mut tx, id, state, text).await? {
        return Err(not_held(&mut tx, id).await);
    }
    if state == SupportState::Resolved {
        let resolution = text.unwrap_or_default();
        proposals::propose(&mut tx, &app.gate.clock, id, resolution).await?;
    }
    let action = format!("support.{state}");
    audit(app, &mut tx, correlation, &action, id, &json!({})).await?;
    tx.commit().await?;
    done(app, user_id, id, state).await
}

/// Why nothing was done.
async fn not_held(tx: &mut UserTx, id: Uuid) -> Problem {
    match store::session(tx, id).await {
        Ok(Some(_)) => Problem::of(Code::NotTakenOver),
        Ok(None) => not_found(),
        Err(error) => error.into(),
    }
}

async fn audit(
    app: &AppState,
    tx: &mut UserTx,
    correlation: &Correlation,
    action: &str,
    id: Uuid,
    details: &Value,
) -> Result<()> {
    let entry = Entry {
        id: shared::id::new(app.gate.clock.now()),
        actor: &actor(correlation),
        action,
        subject: &id.to_string(),
        details,
    };
    Ok(note(tx, &entry).await?)
}

/// Tells the person's clients that there is something to read.
async fn done(
    app: &AppState,
    user_id: Uuid,
    session_id: Uuid,
    state: SupportState,
) -> Result<Json<Handoff>> {
    let mut tx = app.db.user(user_id).await?;
    if let Some(conversation) = conversations::find(&mut tx, session_id).await? {
        tell(app, &conversation).await;
    }
    Ok(Json(Handoff { session_id, state }))
}

/// A text that must say something, in so many characters.
fn short(checks: &mut Checks, field: &str, text: &str, most: usize) {
    let fits = !text.trim().is_empty() && text.chars().count() <= most;
    checks.require(
        fits,
        field,
        format!("must not be blank and have at most {most} characters"),
    );
}
