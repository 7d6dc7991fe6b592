//! Making the conversation of an assessment.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::domain::assessment::suggestions;
use shared::domain::{Conversation, Generation, Message, Priority};
use shared::push::Follow;
use shared::store::assessments::{self, Prepared, Preparing};
use shared::store::{UserTx, generations, messages};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{common_chain, fetched, not_found, register, reserve, tell, welcome};
use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Checks, Result};
use crate::extract::{Correlation, Idempotent, Internal, Json, Path, Prefer, Speaks, User};
use crate::limits;
use crate::routes::conversations::check;
use crate::routes::creation::{Begun, begin};
use crate::routes::model;
use crate::routes::reply;
use crate::routes::view::Answer;
use crate::routes::{IdempotencyHeader, LanguageHeader, PreferHeader};

/// Messages among which the welcome is looked for.
const FIRST_MESSAGES: i64 = 5;

/// A conversation about an assessment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct FromAssessment {
    /// The person's newest assessment without one.
    #[schema(nullable = false)]
    assessment_id: Option<Uuid>,
    /// A title of the person's own.
    #[schema(min_length = 1, max_length = 255, nullable = false)]
    title: Option<String>,
    /// Whether a welcome is written.
    #[serde(default = "yes")]
    #[schema(required = false, default = true)]
    auto_start_message: bool,
}

fn yes() -> bool {
    true
}

/// The conversation of an assessment.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Started {
    pub conversation: Conversation,
    /// The welcome, once it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_message: Option<Message>,
    /// The welcome's generation, while it is being written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Six to eight questions to ask.
    pub suggestions: Vec<String>,
}

impl Started {
    /// Whether nobody writes a welcome (any more).
    fn has_ended(&self) -> bool {
        let generation = self.generation.as_ref();
        generation.is_none_or(|generation| generation.status.is_terminal())
    }
}

/// Starts the conversation about an assessment, or gives the one that there is.
#[utoipa::path(
    post, path = "/api/chat/conversations/from-assessment", operation_id = "start_from_assessment", tag = "assessments",
    params(IdempotencyHeader, PreferHeader, LanguageHeader), request_body = FromAssessment,
    responses(
        (status = 201, body = Started, headers(("Location" = String, description = "The conversation."))),
        (status = 404, description = "assessment_not_found"),
        (status = 409, description = "idempotency_in_progress"),
        (status = 429, description = "budget_exhausted"),
        (status = 422, description = "idempotency_conflict"),
        (status = 503, description = "overloaded"),
    )
)]
pub(in crate::routes) async fn from_assessment(
    State(app): State<AppState>,
    User(user): User,
    prefer: Prefer,
    correlation: Correlation,
    Speaks(speaks): Speaks,
    request: Idempotent<FromAssessment>,
) -> Result<Response> {
    let body = &request.body;
    check::<0>(body.title.as_deref(), [])?;
    let assessment_id = match body.assessment_id {
        Some(id) => id,
        None => {
            let mut tx = app.db.user(user.id).await?;
            assessments::newest(&mut tx)
                .await?
                .ok_or_else(not_found)?
                .id
        }
    };
    let data = fetched(&app, user.id, assessment_id, false).await?;
    let chain = model::chain(&app, &user, None)?;
    let work = welcome(&app, model::priority(user.tier), &chain, &correlation);
    let queue = body.auto_start_message.then_some(work.priority);
    let limit = limits::conversations(&app.gate.config.limits);
    let mut creation = match begin(&app, user.id, &request, limit, queue).await? {
        Begun::Answered(response) => return Ok(response),
        Begun::New(creation) => creation,
    };
    let budget = creation.budget();
    let clock = &app.gate.clock;
    let tx = creation.tx(&app).await?;
    let registered = register(&app, tx, assessment_id, data.as_ref(), speaks).await?;
    let registered = registered.ok_or_else(|| budget.on(not_found()))?;
    let wish = Preparing {
        title: body.title.as_deref(),
        welcome: body.auto_start_message.then_some(&work),
        adopt: false,
    };
    let mut prepared = assessments::prepare(tx, clock, &registered, &wish).await?;
    let reserved = reserve(&app, tx, &mut prepared, &chain).await;
    reserved.map_err(|problem| budget.on(problem))?;
    let mut started = started(tx, &registered.assessment, &prepared).await?;
    let location = format!("/api/chat/conversations/{}", started.conversation.id);
    let answer = Answer::new(StatusCode::CREATED, Some(location.clone()), &started)?;
    let kept = creation.commit(answer, prefer.wait).await?;
    told(&app, &user, &mut prepared, &mut started, &prefer).await;
    let answer = Answer::new(StatusCode::CREATED, Some(location), &started)?;
    let mut response = kept.answer(&app, user.id, answer).await;
    reply::applied(&mut response, &prefer);
    Ok(response)
}

/// Tells the workers of the welcome, and waits for it where the client wants that: `started` then has it as it ended.
async fn told(
    app: &AppState,
    user: &Identity,
    prepared: &mut Prepared,
    started: &mut Started,
    prefer: &Prefer,
) {
    let wait = prefer.wait.filter(|wait| !wait.is_zero());
    let generation = started.generation.as_ref().map(|generation| generation.id);
    // Listening begins before anybody can publish.
    let follow = match (wait, generation) {
        (Some(wait), Some(id)) => {
            let (db, redis) = (app.db.clone(), app.redis.clone());
            Some((
                wait,
                Follow::new(db, redis, &app.hub, user.id, id, None).await,
            ))
        }
        _ => None,
    };
    tell(app, user.id, prepared).await;
    if let Some(queued) = prepared.welcome.take() {
        started.generation = Some(queued.generation);
    }
    if let (Some((wait, follow)), Some(generation)) = (follow, &started.generation)
        && let Some(mut ended) = reply::ended(app, user, follow, generation, wait).await
    {
        started.initial_message = ended.assistant_message.take();
        started.generation = Some(ended);
    }
}

/// What the client is told of the conversation.
async fn started(
    tx: &mut UserTx,
    assessment: &assessments::Assessment,
    prepared: &Prepared,
) -> Result<Started> {
    let conversation = prepared.conversation.clone();
    let cursor = messages::Cursor::After(conversation.id);
    let (first, _) = messages::list(tx, conversation.id, cursor, FIRST_MESSAGES).await?;
    let mut first = first.into_iter();
    let initial_message = first.find(|message| message.metadata["type"] == "assessment_welcome");
    let generation = match (&prepared.welcome, assessment.welcome_id) {
        (Some(welcome), _) => Some(welcome.generation.clone()),
        (None, Some(id)) => generations::find(tx, id)
            .await?
            .map(|row| row.generation)
            .filter(|generation| !generation.status.is_terminal()),
        (None, None) => None,
    };
    Ok(Started {
        conversation,
        initial_message,
        generation,
        suggestions: suggestions(&assessment.results(), assessment.spoken(), &[]),
    })
}

/// Why a conversation is prepared.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::routes) enum Trigger {
    /// The assessment is complete.
    AssessmentComplete,
}

/// An assessment to prepare a conversation for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct AutoInitialize {
    /// Whose assessment it is.
    user_id: Uuid,
    /// The assessment.
    assessment_id: Uuid,
    /// Why.
    #[expect(dead_code, reason = "there is one reason; the contract asks for it")]
    trigger_source: Trigger,
}

/// A conversation that is prepared.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Initialized {
    pub conversation_id: Uuid,
    /// Whether its welcome is written.
    pub ready: bool,
    /// Six to eight questions to ask.
    pub initial_suggestions: Vec<String>,
}

/// Prepares the conversation of an assessment for its person. The same assessment again gives the
/// same conversation.
#[utoipa::path(
    post, path = "/api/chat/conversations/auto-initialize", operation_id = "auto_initialize", tag = "assessments",
    request_body = AutoInitialize, security(("service_key" = [])),
    responses(
        (status = 202, body = Initialized),
        (status = 404, description = "assessment_not_found"),
        (status = 503, description = "overloaded"),
    )
)]
pub(in crate::routes) async fn auto_initialize(
    State(app): State<AppState>,
    Internal: Internal,
    correlation: Correlation,
    Json(body): Json<AutoInitialize>,
) -> Result<(StatusCode, axum::Json<Initialized>)> {
    let (user_id, assessment_id) = (body.user_id, body.assessment_id);
    let data = fetched(&app, user_id, assessment_id, true).await?;
    let chain = common_chain(&app);
    let work = welcome(&app, Priority::Standard, &chain, &correlation);
    app.backlog.admit(work.priority)?;
    let clock = &app.gate.clock;
    let mut tx = app.db.user(user_id).await?;
    // Another service asks, whose language is not the person's.
    let registered = register(&app, &mut tx, assessment_id, data.as_ref(), None).await?;
    let registered = registered.ok_or_else(not_found)?;
    let wish = Preparing {
        title: None,
        welcome: Some(&work),
        adopt: true,
    };
    let mut prepared = assessments::prepare(&mut tx, clock, &registered, &wish).await?;
    let now = assessments::find(&mut tx, assessment_id).await?;
    tx.commit().await?;
    tell(&app, user_id, &mut prepared).await;
    let assessment = now.unwrap_or(registered.assessment);
    let initialized = Initialized {
        conversation_id: prepared.conversation.id,
        ready: assessment.is_ready(),
        initial_suggestions: suggestions(&assessment.results(), assessment.spoken(), &[]),
    };
    Ok((StatusCode::ACCEPTED, axum::Json(initialized)))
}

/// A wish for the conversation of an assessment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Initialize {
    /// What made the client ask, at most 100 characters.
    #[schema(max_length = 100, nullable = false)]
    trigger_source: Option<String>,
}

/// The wish was granted.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Initializing {
    pub success: bool,
    pub message: String,
    pub conversation_id: Uuid,
    /// The welcome, where the client waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_message: Option<Message>,
    /// Its generation as it ended, where the client waited for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

impl Initializing {
    fn new(message: &str, conversation_id: Uuid) -> Self {
        Self {
            success: true,
            message: message.to_owned(),
            conversation_id,
            initial_message: None,
            generation: None,
        }
    }
}

/// Prepares the conversation of one's own assessment, for when no event came. With `Prefer: wait` the answer is held
/// until the welcome is there.
#[utoipa::path(
    post, path = "/api/chat/assessment/{assessment_id}/initialize", operation_id = "initialize_assessment", tag = "assessments",
    params(("assessment_id" = Uuid, Path), IdempotencyHeader, PreferHeader, LanguageHeader), request_body = Initialize,
    responses(
        (status = 200, body = Initializing, description = "The welcome, with `Prefer: wait`."),
        (status = 202, body = Initializing),
        (status = 404, description = "assessment_not_found"),
        (status = 409, description = "idempotency_in_progress"),
        (status = 429, description = "budget_exhausted"),
        (status = 422, description = "idempotency_conflict"),
        (status = 503, description = "overloaded"),
    )
)]
pub(in crate::routes) async fn initialize(
    State(app): State<AppState>,
    User(user): User,
    Path(assessment_id): Path<Uuid>,
    prefer: Prefer,
    correlation: Correlation,
    Speaks(speaks): Speaks,
    request: Idempotent<Initialize>,
) -> Result<Response> {
    let source = request.body.trigger_source.as_deref().unwrap_or_default();
    let mut checks = Checks::default();
    let fits = source.chars().count() <= 100;
    checks.require(fits, "trigger_source", "must have at most 100 characters");
    checks.finish()?;
    let data = fetched(&app, user.id, assessment_id, false).await?;
    let chain = model::chain(&app, &user, None)?;
    let work = welcome(&app, model::priority(user.tier), &chain, &correlation);
    let limit = limits::conversations(&app.gate.config.limits);
    let mut creation = match begin(&app, user.id, &request, limit, Some(work.priority)).await? {
        Begun::Answered(response) => return Ok(response),
        Begun::New(creation) => creation,
    };
    let budget = creation.budget();
    let clock = &app.gate.clock;
    let tx = creation.tx(&app).await?;
    let registered = register(&app, tx, assessment_id, data.as_ref(), speaks).await?;
    let registered = registered.ok_or_else(|| budget.on(not_found()))?;
    let wish = Preparing {
        title: None,
        welcome: Some(&work),
        adopt: true,
    };
    let mut prepared = assessments::prepare(tx, clock, &registered, &wish).await?;
    let reserved = reserve(&app, tx, &mut prepared, &chain).await;
    reserved.map_err(|problem| budget.on(problem))?;
    let mut started = started(tx, &registered.assessment, &prepared).await?;
    let body = Initializing::new("the conversation is prepared", started.conversation.id);
    let answer = Answer::new(StatusCode::ACCEPTED, None, &body)?;
    let kept = creation.commit(answer.clone(), prefer.wait).await?;
    let waits = prefer.wait.is_some_and(|wait| !wait.is_zero());
    let unanswered = waits.then(|| kept.unanswered(&app, user.id));
    told(&app, &user, &mut prepared, &mut started, &prefer).await;
    let answer = match waits && started.has_ended() {
        true => {
            let body = Initializing {
                initial_message: started.initial_message,
                generation: started.generation,
                ..Initializing::new("the conversation is ready", started.conversation.id)
            };
            Answer::new(StatusCode::OK, None, &body)?
        }
        false => answer,
    };
    let mut response = kept.answer(&app, user.id, answer).await;
    if let Some(unanswered) = unanswered {
        unanswered.was_answered();
    }
    reply::applied(&mut response, &prefer);
    Ok(response)
}
