//! `/internal/dead-letters`: generations that were given up, and what an operator makes of them.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::domain::{DeadLetter, DeadLetterCount, FailureCode, Generation, GenerationKind};
use shared::models::Model;
use shared::operator::{MOST_AT_ONCE, Selection, Settled, Verdict};
use shared::store::dead_letters::{Filter, Refused};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::actor;
use crate::app::AppState;
use crate::error::{Code, FieldError, Problem, Result};
use crate::extract::{Correlation, Internal, Json, Limit, Path, Query};
use crate::routes::view::CursorPage;

/// Which dead letters to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct ListQuery {
    /// Only those that were given up for this reason.
    error_code: Option<FailureCode>,
    /// Only those that were to make this.
    kind: Option<GenerationKind>,
    /// Only this person's.
    user_id: Option<Uuid>,
    /// Only those accepted before this one: the `next_cursor` of the page before.
    before_id: Option<Uuid>,
    /// Dead letters per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 200, default = 50, required = false)]
    limit: Limit<50, 200>,
}

/// A page of dead letters, newest accepted first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct DeadLetters {
    dead_letters: Vec<DeadLetter>,
    /// How many wait in all, by reason.
    counts: Vec<DeadLetterCount>,
    pagination: CursorPage,
}

/// How to try again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Replay {
    /// A model to try before those that failed.
    #[schema(nullable = false, max_length = 200)]
    model: Option<String>,
}

/// What was queued for a dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct ReplayedOne {
    dead_letter_id: Uuid,
    generation: Generation,
}

/// Which dead letters to try again: those of `ids`, or the oldest of `error_code`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct ReplayMany {
    /// A model to try before those that failed.
    #[schema(nullable = false, max_length = 200)]
    model: Option<String>,
    /// These.
    #[schema(nullable = false, max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// Those that were given up for this reason.
    #[schema(nullable = false)]
    error_code: Option<FailureCode>,
    /// Of them only those that were to make this.
    #[schema(nullable = false)]
    kind: Option<GenerationKind>,
    /// Of them only those accepted after this one.
    #[schema(nullable = false)]
    after_id: Option<Uuid>,
    /// At most so many of them, 100 unless said otherwise.
    #[schema(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Which dead letters to discard: those of `ids`, or the oldest of `error_code`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct DiscardMany {
    /// These.
    #[schema(nullable = false, max_items = 1000)]
    ids: Option<Vec<Uuid>>,
    /// Those that were given up for this reason.
    #[schema(nullable = false)]
    error_code: Option<FailureCode>,
    /// Of them only those that were to make this.
    #[schema(nullable = false)]
    kind: Option<GenerationKind>,
    /// Of them only those accepted after this one.
    #[schema(nullable = false)]
    after_id: Option<Uuid>,
    /// At most so many of them, 100 unless said otherwise.
    #[schema(nullable = false, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// What became of many dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct SettledMany {
    settled: Vec<SettledOne>,
    refused: Vec<RefusedOne>,
    /// The `after_id` of the next request, when there may be more.
    next_after_id: Option<Uuid>,
}

/// A dead letter that waits no more.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct SettledOne {
    dead_letter_id: Uuid,
    /// What was queued for it; absent where it was discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_id: Option<Uuid>,
}

/// A dead letter that was left as it is.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct RefusedOne {
    dead_letter_id: Uuid,
    /// Why.
    code: Code,
}

/// How many are settled where the request does not say.
const DEFAULT_LIMIT: u32 = 100;

/// Generations that were given up and wait for an operator, newest accepted first.
#[utoipa::path(
    get, path = "/internal/dead-letters", operation_id = "list_dead_letters", tag = "internal", params(ListQuery),
    responses((status = 200, body = DeadLetters))
)]
pub(in crate::routes) async fn list(
    State(app): State<AppState>,
    _: Internal,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<DeadLetters>> {
    let filter = Filter {
        error_code: query.error_code,
        kind: query.kind,
        user_id: query.user_id,
        before: query.before_id,
        limit: query.limit.get(),
    };
    let (dead_letters, has_more, counts) = app.operator.dead_letters(&filter).await?;
    let edge = dead_letters.last().map(|letter| letter.id);
    let pagination = CursorPage::up_to(edge, filter.limit, has_more);
    Ok(axum::Json(DeadLetters {
        dead_letters,
        counts,
        pagination,
    }))
}

/// Tries again: queues a generation of its own for the same message. The failed one stays failed. The
/// new one takes its turn behind everything its conversation has accepted, and sees the history that
/// the first one would have seen.
#[utoipa::path(
    post, path = "/internal/dead-letters/{dead_letter_id}/replay", operation_id = "replay_dead_letter", tag = "internal",
    params(("dead_letter_id" = Uuid, Path)), request_body = Replay,
    responses(
        (status = 202, body = ReplayedOne),
        (status = 404, description = "dead_letter_not_found conversation_not_found"),
        (status = 409, description = "dead_letter_settled already_answered"),
        (status = 429, description = "budget_exhausted"),
        (status = 422, description = "model_unknown"),
    )
)]
pub(in crate::routes) async fn replay(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    correlation: Correlation,
    Json(body): Json<Replay>,
) -> Result<(StatusCode, axum::Json<ReplayedOne>)> {
    let first = model(&app, body.model.as_deref())?;
    let replayed = app
        .operator
        .replay(id, first.as_ref(), &actor(&correlation))
        .await?
        .map_err(problem)?;
    let body = ReplayedOne {
        dead_letter_id: id,
        generation: replayed.generation,
    };
    Ok((StatusCode::ACCEPTED, axum::Json(body)))
}

/// Takes a dead letter off the list without another try.
#[utoipa::path(
    post, path = "/internal/dead-letters/{dead_letter_id}/discard", operation_id = "discard_dead_letter", tag = "internal",
    params(("dead_letter_id" = Uuid, Path)),
    responses(
        (status = 204),
        (status = 404, description = "dead_letter_not_found"),
        (status = 409, description = "dead_letter_settled"),
    )
)]
pub(in crate::routes) async fn discard(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    correlation: Correlation,
) -> Result<StatusCode> {
    let discarded = app.operator.discard(id, &actor(&correlation)).await?;
    discarded.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries many again, oldest first. Each is settled on its own; the answer says which were not, and
/// where to go on.
#[utoipa::path(
    post, path = "/internal/dead-letters/replay", operation_id = "replay_dead_letters", tag = "internal",
    request_body = ReplayMany,
    responses((status = 200, body = SettledMany), (status = 422, description = "model_unknown"))
)]
pub(in crate::routes) async fn replay_many(
    State(app): State<AppState>,
    _: Internal,
    correlation: Correlation,
    Json(body): Json<ReplayMany>,
) -> Result<axum::Json<SettledMany>> {
    let verdict = Verdict::Replay(model(&app, body.model.as_deref())?);
    let wish = DiscardMany {
        ids: body.ids,
        error_code: body.error_code,
        kind: body.kind,
        after_id: body.after_id,
        limit: body.limit,
    };
    settle(&app, wish, &verdict, &correlation).await
}

/// Takes many off the list, oldest first, without another try.
#[utoipa::path(
    post, path = "/internal/dead-letters/discard", operation_id = "discard_dead_letters", tag = "internal",
    request_body = DiscardMany, responses((status = 200, body = SettledMany))
)]
pub(in crate::routes) async fn discard_many(
    State(app): State<AppState>,
    _: Internal,
    correlation: Correlation,
    Json(body): Json<DiscardMany>,
) -> Result<axum::Json<SettledMany>> {
    settle(&app, body, &Verdict::Discard, &correlation).await
}

async fn settle(
    app: &AppState,
    wish: DiscardMany,
    verdict: &Verdict,
    correlation: &Correlation,
) -> Result<axum::Json<SettledMany>> {
    let selection = selection(wish)?;
    let Settled {
        done,
        refused,
        next_after,
    } = app
        .operator
        .settle(&selection, verdict, &actor(correlation))
        .await?;
    let settled = done
        .into_iter()
        .map(|(dead_letter_id, generation_id)| SettledOne {
            dead_letter_id,
            generation_id,
        });
    let refused = refused
        .into_iter()
        .map(|(dead_letter_id, refused)| RefusedOne {
            dead_letter_id,
            code: problem(refused).code(),
        });
    Ok(axum::Json(SettledMany {
        settled: settled.collect(),
        refused: refused.collect(),
        next_after_id: next_after,
    }))
}

/// Nobody means all of them by saying nothing.
fn selection(wish: DiscardMany) -> Result<Selection> {
    let limit = i64::from(wish.limit.unwrap_or(DEFAULT_LIMIT));
    if !(1..=MOST_AT_ONCE).contains(&limit) {
        return Err(Problem::field("limit", "must lie between 1 and 1000"));
    }
    let filters = wish.kind.is_some() || wish.after_id.is_some() || wish.limit.is_some();
    match (wish.ids, wish.error_code) {
        (Some(ids), None) if !filters => match i64::try_from(ids.len()) {
            Ok(1..=MOST_AT_ONCE) => Ok(Selection::Ids(ids)),
            _ => Err(Problem::field("ids", "must be 1 to 1000")),
        },
        (None, Some(error_code)) => Ok(Selection::Like {
            error_code,
            kind: wish.kind,
            after: wish.after_id,
            limit,
        }),
        (None, None) => Err(Problem::field("ids", "say which: ids or error_code")),
        _ => Err(Problem::field("ids", "must stand alone")),
    }
}

fn model(app: &AppState, name: Option<&str>) -> Result<Option<Model>> {
    let Some(name) = name else {
        return Ok(None);
    };
    let model = app.operator.model(name).ok_or_else(|| {
        let error = FieldError {
            field: "model".to_owned(),
            message: "is no name of a model, or of one that costs while only free ones are used"
                .to_owned(),
        };
        Problem::coded_fields(Code::ModelUnknown, vec![error])
    })?;
    Ok(Some(model))
}

fn problem(refused: Refused) -> Problem {
    match refused {
        Refused::NotFound => Problem::of(Code::DeadLetterNotFound),
        Refused::Settled(Some(generation)) => Problem::new(
            Code::DeadLetterSettled,
            format!("it was replayed as generation {generation}"),
        ),
        Refused::Settled(None) => Problem::new(Code::DeadLetterSettled, "it was discarded"),
        Refused::ConversationGone => Problem::of(Code::ConversationNotFound),
        Refused::BudgetExhausted { resets_at } => {
            Problem::of(Code::BudgetExhausted).until(resets_at)
        }
        Refused::Answered => Problem::of(Code::AlreadyAnswered),
    }
}
