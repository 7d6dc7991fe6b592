//! `/api/chat/knowledge/reindex`: another embedding model, built beside the one that serves.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use shared::domain::{Ingestion, KnowledgeProfile};
use shared::store::knowledge::reindex::{self as store, Begun, Wanted};
use shared::store::knowledge::{ingestions, profiles};
use utoipa::ToSchema;

use super::begin;
use super::ingestions::IngestionBody;
use super::once::Once;
use crate::app::AppState;
use crate::error::{Checks, Code, Problem, Result};
use crate::extract::{Admin, Idempotent};

/// The most numbers in a vector: more do not fit a page of the database.
const MAX_DIMENSION: i32 = 3900;
/// Characters of a model's name, and of what is put before a text.
const MAX_NAME: usize = 200;
const MAX_PREFIX: usize = 500;

/// The model that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reindex {
    /// The model, as the embedding provider calls it.
    #[schema(min_length = 1, max_length = 200)]
    embedding_model: String,
    /// Numbers in its vectors.
    #[schema(minimum = 1, maximum = 3900)]
    dimension: i32,
    /// What the model wants before a question, if anything.
    #[serde(default)]
    #[schema(required = false, max_length = 500)]
    query_prefix: String,
    /// What the model wants before an entry's text, if anything.
    #[serde(default)]
    #[schema(required = false, max_length = 500)]
    document_prefix: String,
}

/// The models and what there is of their vectors.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Profiles {
    /// Newest first.
    profiles: Vec<KnowledgeProfile>,
    /// The work on another model that is under way; null where there is none.
    reindex: Option<Ingestion>,
}

/// Embeds everything anew by another model. The old vectors serve until the new ones are complete; then they
/// are swapped at once. Going back is the same call with the old model, whose vectors are kept for 7 days.
#[utoipa::path(
    post, path = "/api/chat/knowledge/reindex", operation_id = "reindex_knowledge", tag = "knowledge",
    params(super::super::IdempotencyHeader), request_body = Reindex,
    responses(
        (status = 202, body = IngestionBody, description = "Follow it, and cancel it, like an upload.", headers(("Location" = String, description = "The ingestion."))),
        (status = 403, description = "admin_required"),
        (status = 409, description = "reindex_running model_serves idempotency_in_progress"),
        (status = 422, description = "idempotency_conflict"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn post(
    State(app): State<AppState>,
    Admin(admin): Admin,
    request: Idempotent<Reindex>,
) -> Result<Response> {
    check(&request.body)?;
    let once = Once::of(&request);
    let mut tx = begin(&app, &admin).await?;
    if let Some(answered) = once.seen(&mut tx).await? {
        return Ok(answered);
    }
    let now = app.gate.clock.now();
    let id = shared::id::new(now);
    let wanted = Wanted {
        profile_id: shared::id::new(now),
        model: request.body.embedding_model.trim(),
        dimension: request.body.dimension,
        query_prefix: &request.body.query_prefix,
        document_prefix: &request.body.document_prefix,
    };
    match store::begin(&mut tx, id, &wanted).await? {
        Begun::Queued => once.accept(tx, id).await,
        Begun::Serves => Err(Problem::of(Code::ModelServes)),
        Begun::Busy => Err(Problem::of(Code::ReindexRunning)),
    }
}

/// Reads which models there are vectors of, which of them serves, and what is being built.
#[utoipa::path(
    get, path = "/api/chat/knowledge/reindex", operation_id = "list_profiles", tag = "knowledge",
    responses((status = 200, body = Profiles), (status = 403, description = "admin_required"), (status = 503, description = "knowledge_unavailable"))
)]
pub(crate) async fn read(
    State(app): State<AppState>,
    Admin(admin): Admin,
) -> Result<Json<Profiles>> {
    let mut tx = begin(&app, &admin).await?;
    let profiles = profiles::list(&mut tx).await?;
    let reindex = ingestions::reindexing(&mut tx).await?;
    Ok(Json(Profiles { profiles, reindex }))
}

fn check(body: &Reindex) -> Result<()> {
    let mut checks = Checks::default();
    let model = body.embedding_model.trim();
    let named = !model.is_empty()
        && model.chars().count() <= MAX_NAME
        && !model.chars().any(char::is_control);
    checks.require(
        named,
        "embedding_model",
        "must be a name of at most 200 characters",
    );
    checks.require(
        (1..=MAX_DIMENSION).contains(&body.dimension),
        "dimension",
        format!("must be 1 to {MAX_DIMENSION}"),
    );
    for (name, prefix) in [
        ("query_prefix", &body.query_prefix),
        ("document_prefix", &body.document_prefix),
    ] {
        let fits = prefix.chars().count() <= MAX_PREFIX && !prefix.contains('\0');
        checks.require(fits, name, "must have at most 500 characters");
    }
    checks.finish()
}
