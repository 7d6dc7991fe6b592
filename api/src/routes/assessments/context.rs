//! Giving a conversation the results of an assessment.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::Event;
use shared::domain::assessment::AssessmentData;
use shared::store::{assessments, conversations};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{fetched, not_found, push, register};
use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::{Json, Path, Speaks, User};
use crate::routes::LanguageHeader;
use crate::routes::conversation::not_found as no_conversation;

/// The assessment whose results are wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct AddContext {
    /// One of the person's own.
    assessment_id: Uuid,
}

/// The conversation has the results.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct ContextAdded {
    pub context_added: bool,
    pub assessment_data: AssessmentData,
}

/// Gives the conversation the results of an assessment, for its replies from now on.
#[utoipa::path(
    post, path = "/api/chat/conversations/{conversation_id}/context/assessment", operation_id = "add_assessment_context",
    tag = "assessments", params(("conversation_id" = Uuid, Path), LanguageHeader), request_body = AddContext,
    responses(
        (status = 200, body = ContextAdded),
        (status = 404, description = "conversation_not_found assessment_not_found"),
        (status = 409, description = "results_unavailable"),
    )
)]
pub(in crate::routes) async fn add(
    State(app): State<AppState>,
    User(user): User,
    Path(conversation_id): Path<Uuid>,
    Speaks(speaks): Speaks,
    Json(body): Json<AddContext>,
) -> Result<axum::Json<ContextAdded>> {
    let mut tx = app.db.user(user.id).await?;
    let found = conversations::find(&mut tx, conversation_id).await?;
    drop(tx);
    found.ok_or_else(no_conversation)?;
    let data = fetched(&app, user.id, body.assessment_id, false).await?;
    let clock = &app.gate.clock;
    let mut tx = app.db.user(user.id).await?;
    let registered = register(&app, &mut tx, body.assessment_id, data.as_ref(), speaks).await?;
    let assessment = registered.ok_or_else(not_found)?.assessment;
    let Some(data) = assessment.data.clone() else {
        return Err(Problem::of(Code::ResultsUnavailable));
    };
    if !assessments::add_context(&mut tx, conversation_id, &assessment).await? {
        return Err(no_conversation());
    }
    let changed = conversations::find(&mut tx, conversation_id).await?;
    tx.commit().await?;
    if let Some(changed) = changed {
        push(
            &app,
            user.id,
            &Event::conversation_updated(&changed, clock.now()),
        )
        .await;
    }
    Ok(axum::Json(ContextAdded {
        context_added: true,
        assessment_data: data,
    }))
}
