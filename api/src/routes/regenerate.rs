//! Asking for another reply to the same message.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use shared::store::generations as store;
use utoipa::ToSchema;
use uuid::Uuid;

use super::creation::{Begun, begin};
use super::view::{self, Accepted, Answer, Links};
use super::{model, reply};
use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::{Correlation, Idempotent, Path, Prefer, User};
use crate::{budgets, limits};

/// Asks for another reply.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Regenerate {
    /// A model to try first.
    #[schema(nullable = false, max_length = 200)]
    model: Option<String>,
}

/// Asks for another reply to the message that this one answers. The old reply stays. The same wish
/// within a second is the same generation.
#[utoipa::path(
    post, path = "/api/chat/conversations/{conversation_id}/messages/{message_id}/regenerate", operation_id = "regenerate_reply", tag = "messages",
    params(
        ("conversation_id" = Uuid, Path), ("message_id" = Uuid, Path),
        super::IdempotencyHeader, super::PreferHeader,
    ),
    request_body = Regenerate,
    responses(
        (status = 202, body = view::Accepted, headers(("Location" = String, description = "The generation."))),
        (status = 200, body = view::Regenerated, description = "With `Prefer: wait`: the generation has ended."),
        (status = 404, description = "message_not_found"),
        (status = 409, description = "conversation_archived idempotency_in_progress"),
        (status = 429, description = "budget_exhausted"),
        (status = 503, description = "overloaded"),
        (status = 422, description = "not_regenerable model_unknown idempotency_conflict"),
    )
)]
pub(super) async fn post(
    State(app): State<AppState>,
    User(user): User,
    Path((conversation_id, message_id)): Path<(Uuid, Uuid)>,
    prefer: Prefer,
    correlation: Correlation,
    request: Idempotent<Regenerate>,
) -> Result<Response> {
    let chain = model::chain(&app, &user, request.body.model.as_deref())?;
    let work = model::work(&app, &user, &chain, true, &correlation);
    let mut creation = match begin(
        &app,
        user.id,
        &request,
        limits::messages(&app.gate.config.limits),
        Some(work.priority),
    )
    .await?
    {
        Begun::Answered(response) => return Ok(response),
        Begun::New(creation) => creation,
    };
    let budget = creation.budget();
    let refuse = |code| Err(budget.on(Problem::of(code)));
    let tx = creation.tx(&app).await?;
    let queued = store::regenerate(tx, &app.gate.clock, conversation_id, message_id, &work).await?;
    let (generation, parked) = match queued {
        store::Regenerated::Queued {
            mut generation,
            parked,
            ..
        } => {
            if let Some(credits) = budgets::estimate(&app, &chain) {
                let reserved = budgets::reserve(&app, tx, &mut generation, &chain, credits);
                reserved.await.map_err(|problem| budget.on(problem))?;
            }
            (*generation, parked)
        }
        // Told again, Redis refuses the event that it has, and a second hint is harmless.
        store::Regenerated::Same(generation) => (*generation, None),
        store::Regenerated::NotFound => return refuse(Code::MessageNotFound),
        store::Regenerated::NotActive => return refuse(Code::ConversationArchived),
        store::Regenerated::NotAReply => return refuse(Code::NotRegenerable),
    };
    let links = Links::of(generation.id);
    let location = Some(links.this.clone());
    let body = Accepted {
        user_message: None,
        generation,
        links,
    };
    let answer = Answer::new(StatusCode::ACCEPTED, location, &body)?;
    let kept = creation.commit(answer, prefer.wait).await?;
    Ok(reply::answer(&app, &user, kept, body, parked, prefer).await)
}
