//! How far an assessment is, its conversation, and what to ask in it.

use axum::extract::State;
use serde::Serialize;
use shared::domain::assessment::{AssessmentData, Language, suggestions};
use shared::domain::{Conversation, Message, timestamp};
use shared::store::assessments;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::not_found;
use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::{Path, Speaks, User, UserOrInternal};
use crate::routes::LanguageHeader;
use crate::routes::conversation::not_found as no_conversation;

/// Messages that are shown with a conversation.
const SHOWN: i64 = 50;

/// Whether a person can talk about an assessment.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Readiness {
    /// Whether there are results.
    pub has_assessment: bool,
    /// When the newest assessment was taken; when Balas first heard of it, where nobody says.
    #[serde(with = "timestamp::option")]
    pub assessment_date: Option<OffsetDateTime>,
    pub assessment_id: Option<Uuid>,
    pub conversation_exists: bool,
    pub conversation_id: Option<Uuid>,
    /// Whether there are results and no welcome is still being written.
    pub ready_for_chatbot: bool,
}

/// How far a person's newest assessment is.
#[utoipa::path(
    get, path = "/api/chat/conversations/assessment-ready/{user_id}", operation_id = "assessment_ready", tag = "assessments",
    params(("user_id" = Uuid, Path)), security(("bearer" = []), ("service_key" = [])),
    responses((status = 200, body = Readiness), (status = 404, description = "user_not_found"))
)]
pub(in crate::routes) async fn ready(
    State(app): State<AppState>,
    caller: UserOrInternal,
    Path(user_id): Path<Uuid>,
) -> Result<axum::Json<Readiness>> {
    if let UserOrInternal::User(identity) = caller
        && identity.id != user_id
    {
        return Err(Problem::of(Code::UserNotFound));
    }
    let mut tx = app.db.user(user_id).await?;
    let newest = assessments::newest(&mut tx).await?;
    let conversation = match &newest {
        Some(newest) => assessments::conversation_of(&mut tx, newest.id).await?,
        None => None,
    };
    let with_results = newest.as_ref().filter(|newest| newest.has_results());
    Ok(axum::Json(Readiness {
        has_assessment: with_results.is_some(),
        assessment_date: with_results.map(|newest| newest.assessed_at.unwrap_or(newest.created_at)),
        assessment_id: newest.as_ref().map(|newest| newest.id),
        conversation_exists: conversation.is_some(),
        conversation_id: conversation.as_ref().map(|conversation| conversation.id),
        ready_for_chatbot: with_results
            .is_some_and(|newest| newest.is_ready() || newest.welcome_id.is_none()),
    }))
}

/// The conversation of an assessment, where there is one.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct AssessmentConversation {
    pub exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Conversation>,
    /// The newest 50 messages, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
}

/// The conversation of one's own assessment. An assessment that nobody has told of yet has none.
#[utoipa::path(
    get, path = "/api/chat/assessment/{assessment_id}/conversation", operation_id = "assessment_conversation", tag = "assessments",
    params(("assessment_id" = Uuid, Path)),
    responses((status = 200, body = AssessmentConversation), (status = 404, description = "assessment_not_found"))
)]
pub(in crate::routes) async fn conversation(
    State(app): State<AppState>,
    User(user): User,
    Path(assessment_id): Path<Uuid>,
) -> Result<axum::Json<AssessmentConversation>> {
    let mut tx = app.db.user(user.id).await?;
    let Some(conversation) = assessments::conversation_of(&mut tx, assessment_id).await? else {
        // Whether it is somebody else's shows only to who writes it down; nothing of that is kept.
        let clock = &app.gate.clock;
        let registered = assessments::register(&mut tx, clock, assessment_id, None, None).await?;
        registered.ok_or_else(not_found)?;
        return Ok(axum::Json(AssessmentConversation {
            exists: false,
            conversation: None,
            messages: None,
        }));
    };
    let messages = assessments::messages_of(&mut tx, conversation.id, SHOWN).await?;
    Ok(axum::Json(AssessmentConversation {
        exists: true,
        conversation: Some(conversation),
        messages: Some(messages),
    }))
}

/// What to ask next.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Suggestions {
    /// Six to eight questions.
    pub suggestions: Vec<String>,
}

/// Questions that fit the results and what was spoken of so far.
#[utoipa::path(
    get, path = "/api/chat/conversations/{conversation_id}/suggestions", operation_id = "suggestions", tag = "assessments",
    params(("conversation_id" = Uuid, Path), LanguageHeader),
    responses((status = 200, body = Suggestions), (status = 404, description = "conversation_not_found"))
)]
pub(in crate::routes) async fn suggestions_for(
    State(app): State<AppState>,
    User(user): User,
    Path(conversation_id): Path<Uuid>,
    Speaks(speaks): Speaks,
) -> Result<axum::Json<Suggestions>> {
    let mut tx = app.db.user(user.id).await?;
    let found = assessments::covered_by(&mut tx, conversation_id).await?;
    let (assessment, said) = found.ok_or_else(no_conversation)?;
    let data = assessment
        .as_ref()
        .map_or_else(AssessmentData::default, assessments::Assessment::results);
    // The language of what the person writes, before that of the assessment.
    let written = said.last().and_then(|text| Language::detect(text));
    let known = assessment.map(|assessment| assessment.spoken());
    let language = written
        .or(known)
        .or(speaks)
        .unwrap_or(app.gate.config.platform.language);
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    Ok(axum::Json(Suggestions {
        suggestions: suggestions(&data, language, &said),
    }))
}
