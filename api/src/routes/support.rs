//! `/api/chat/support/chat`: a question to the help desk and its answer, in one call.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::desk::{self, Intent};
use shared::domain::{ContentType, ContextType, Generation, Parked, SupportState};
use shared::store::UserTx;
use shared::store::conversations::{self, NewConversation};
use shared::store::generations::{self, Accepted, Concurrency, NewGeneration, NewMessage};
use shared::store::support as store;
use utoipa::ToSchema;
use uuid::Uuid;

use super::conversation::not_found;
use super::creation::{Begun, Kept, begin};
use super::view::{Answer, Links};
use super::{model, reply};
use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Code, FieldError, Problem, Result};
use crate::extract::{Correlation, Idempotent, Prefer, User};
use crate::limits;

/// Where questions are sent to.
pub(crate) const PATH: &str = "/api/chat/support/chat";
/// How long the answer is held where the client does not say.
pub(crate) const WAIT: Duration = Duration::from_secs(30);
/// Characters of a question that name its conversation.
const TITLE: usize = 80;

/// A question to the help desk.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SupportChat {
    /// Not blank, and at most `MAX_MESSAGE_LENGTH` characters (4000 unless set otherwise).
    #[schema(min_length = 1)]
    message: String,
    /// The session that this continues: the `session_id` of an earlier answer.
    #[schema(nullable = false)]
    session_id: Option<Uuid>,
}

/// An answer of the help desk.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SupportAnswer {
    /// The answer; null while it is not there yet, and where a person answers instead.
    response: Option<String>,
    /// What the question is about.
    intent: Intent,
    /// How its writer feels, from -1 to 1.
    #[schema(minimum = -1, maximum = 1)]
    sentiment: f64,
    /// What the person may want to ask next.
    suggestions: Vec<String>,
    /// Whether entries of the knowledge base were used.
    context_used: bool,
    /// Whether a person should take over.
    should_escalate: bool,
    /// The conversation, also to be found in `/conversations`.
    session_id: Uuid,
    /// Who answers.
    state: SupportState,
    /// The entries that were used, in the order of their numbers in the answer.
    sources: Vec<Source>,
    /// The work that makes the answer.
    generation: Generation,
}

/// An entry of the knowledge base that was used.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Source {
    /// The entry.
    pub(super) document_id: Uuid,
    /// Where in the application it happens.
    pub(super) menu: String,
    /// What it is about.
    pub(super) issue: String,
    /// How relevant it is, 0 to 1.
    pub(super) score: f64,
}

/// Asks the help desk and waits for its answer, 30 s unless `Prefer: wait` says otherwise.
#[utoipa::path(
    post, path = "/api/chat/support/chat", operation_id = "ask_support", tag = "support",
    params(super::IdempotencyHeader, super::PreferHeader),
    request_body = SupportChat,
    responses(
        (status = 200, body = SupportAnswer),
        (status = 202, body = SupportAnswer, description = "The answer is not there yet.", headers(("Location" = String, description = "The generation."))),
        (status = 404, description = "conversation_not_found"),
        (status = 409, description = "conversation_archived idempotency_in_progress"),
        (status = 422, description = "message_too_long idempotency_conflict"),
        (status = 503, description = "overloaded"),
    )
)]
pub(super) async fn chat(
    State(app): State<AppState>,
    User(user): User,
    prefer: Prefer,
    correlation: Correlation,
    request: Idempotent<SupportChat>,
) -> Result<Response> {
    let message = check(&request.body, app.gate.config.limits.max_message_length)?;
    let wait = prefer.wait.unwrap_or(WAIT);
    let chain = model::chain(&app, &user, None)?;
    let work = model::work(&app, &user, &chain, true, &correlation);
    let limit = limits::messages(&app.gate.config.limits);
    let mut creation = match begin(&app, user.id, &request, limit, Some(work.priority)).await? {
        Begun::Answered(response) => return Ok(response),
        Begun::New(creation) => creation,
    };
    let budget = creation.budget();
    let tx = creation.tx(&app).await?;
    let stored = store(&app, tx, message, request.body.session_id, &work).await;
    let (session_id, state, generation, parked) = stored.map_err(|problem| budget.on(problem))?;
    let body = pending(message, session_id, state, generation);
    let location = Some(Links::of(body.generation.id).this);
    let answer = Answer::new(StatusCode::ACCEPTED, location, &body)?;
    let kept = creation.commit(answer, Some(wait)).await?;
    Ok(respond(&app, &user, kept, body, parked, Prefer { wait: Some(wait) }).await)
}

/// Stores the question, in a session of its own unless it continues one.
async fn store(
    app: &AppState,
    tx: &mut UserTx,
    message: &str,
    session_id: Option<Uuid>,
    work: &NewGeneration<'_>,
) -> Result<(Uuid, SupportState, Generation, Option<Parked>)> {
    let (session_id, state) = match session_id {
        Some(id) => {
            let session = store::session(tx, id).await?.ok_or_else(not_found)?;
            (id, session.state)
        }
        None => (open(app, tx, message).await?, SupportState::Bot),
    };
    let message = NewMessage {
        conversation_id: session_id,
        content: message,
        content_type: ContentType::Text,
        attachments: &[],
        parent_message_id: None,
    };
    let accepted =
        generations::accept(tx, &app.gate.clock, &message, work, Concurrency::Enqueue).await?;
    let (mut generation, parked) = match accepted {
        Accepted::Stored {
            generation, parked, ..
        } => (*generation, parked),
        Accepted::NotActive => return Err(Problem::of(Code::ConversationArchived)),
        Accepted::ConversationNotFound | Accepted::ParentNotFound | Accepted::Busy => {
            return Err(not_found());
        }
    };
    store::claim_for_desk(tx, generation.id).await?;
    generation.kind = shared::domain::GenerationKind::Support;
    Ok((session_id, state, generation, parked))
}

/// A new session, named by the beginning of its question.
async fn open(app: &AppState, tx: &mut UserTx, message: &str) -> Result<Uuid> {
    let title: String = shared::knowledge::clean(message)
        .replace('\n', " ")
        .chars()
        .take(TITLE)
        .collect();
    let empty = json!({});
    let new = NewConversation {
        id: shared::id::new(app.gate.clock.now()),
        title: Some(title.as_str()).filter(|title| !title.is_empty()),
        context_type: ContextType::Support,
        context_data: &empty,
        metadata: &empty,
    };
    Ok(conversations::create(tx, &new).await?.id)
}

/// What can be said before there is an answer.
fn pending(
    message: &str,
    session_id: Uuid,
    state: SupportState,
    generation: Generation,
) -> SupportAnswer {
    let judgement = desk::judge(message);
    SupportAnswer {
        response: None,
        intent: judgement.intent,
        sentiment: judgement.sentiment,
        suggestions: suggestions(judgement.intent, judgement.language),
        context_used: false,
        should_escalate: judgement.wants_person,
        session_id,
        state,
        sources: Vec::new(),
        generation,
    }
}

fn suggestions(intent: Intent, language: desk::Language) -> Vec<String> {
    desk::suggestions(intent, language)
        .map(str::to_owned)
        .to_vec()
}

/// Nothing here can fail the request: the question is committed.
async fn respond(
    app: &AppState,
    user: &Identity,
    kept: Kept,
    mut body: SupportAnswer,
    parked: Option<Parked>,
    prefer: Prefer,
) -> Response {
    let ended = reply::announce(app, user, &mut body.generation, parked, &prefer).await;
    let location = Links::of(body.generation.id).this;
    let answer = match ended {
        Some(generation) => {
            let state = state(app, user, body.session_id)
                .await
                .unwrap_or(body.state);
            Answer::new(StatusCode::OK, None, &answered(body, state, generation))
        }
        None => Answer::new(StatusCode::ACCEPTED, Some(location), &body),
    };
    let mut response = match answer {
        Ok(answer) => kept.answer(app, user.id, answer).await,
        Err(problem) => return problem.into_response(),
    };
    reply::applied(&mut response, &prefer);
    response
}

async fn state(app: &AppState, user: &Identity, session_id: Uuid) -> Option<SupportState> {
    let mut tx = app.db.user(user.id).await.ok()?;
    Some(store::session(&mut tx, session_id).await.ok()??.state)
}

/// What the worker noted with the answer wins over what was guessed before.
fn answered(
    mut body: SupportAnswer,
    state: SupportState,
    mut generation: Generation,
) -> SupportAnswer {
    body.state = state;
    if let Some(message) = generation.assistant_message.take() {
        let record = message
            .metadata
            .get("support")
            .cloned()
            .unwrap_or(Value::Null);
        let flag = |name: &str| record.get(name).and_then(Value::as_bool).unwrap_or(false);
        body.context_used = flag("context_used");
        body.should_escalate = flag("should_escalate");
        body.sources = of(&record, "sources").unwrap_or_default();
        body.intent = of(&record, "intent").unwrap_or(body.intent);
        body.sentiment = of(&record, "sentiment").unwrap_or(body.sentiment);
        body.suggestions = of(&record, "suggestions").unwrap_or(body.suggestions);
        body.response = Some(message.content);
    } else if let Some(error) = &generation.error {
        body.response = Some(error.message.clone());
        body.should_escalate = true;
    }
    body.generation = generation;
    body
}

fn of<T: serde::de::DeserializeOwned>(record: &Value, name: &str) -> Option<T> {
    serde_json::from_value(record.get(name)?.clone()).ok()
}

fn check(body: &SupportChat, max_length: usize) -> Result<&str> {
    let length = body.message.chars().count();
    if length > max_length {
        let error = FieldError {
            field: "message".to_owned(),
            message: format!("has {length} characters, at most {max_length} are allowed"),
        };
        return Err(Problem::coded_fields(Code::MessageTooLong, vec![error]));
    }
    if body.message.trim().is_empty() {
        return Err(Problem::field("message", "must not be blank"));
    }
    Ok(&body.message)
}
