//! `/api/chat/knowledge/proposals`: entries that may be added, made of what people answered who took over.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use shared::domain::{Proposal, ProposalState};
use shared::store::EditorTx;
use shared::store::knowledge as knowledge_store;
use shared::store::learning::proposals::{self as store, Decided};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::view::OffsetPage;
use super::collection;
use super::documents::{WriteEntry, check, queue};
use super::ingestions::{IngestionBody, accepted};
use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Code, Problem, Result};
use crate::extract::{Admin, Json as Body, Limit, Offset, Path, Query};

/// Which proposals to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// What was decided about them.
    #[serde(default = "open")]
    #[param(default = "open", required = false)]
    state: ProposalState,
    /// Proposals per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 100, default = 20, required = false)]
    limit: Limit<20, 100>,
    /// Proposals to skip.
    #[serde(default)]
    #[param(value_type = u32, maximum = 1_000_000, default = 0, required = false)]
    offset: Offset,
}

fn open() -> ProposalState {
    ProposalState::Open
}

/// Proposals, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Proposals {
    proposals: Vec<Proposal>,
    pagination: OffsetPage,
}

/// A proposal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProposalBody {
    proposal: Proposal,
}

/// Lists proposals, newest first.
#[utoipa::path(
    get, path = "/api/chat/knowledge/proposals", operation_id = "list_proposals", tag = "knowledge", params(ListQuery),
    responses((status = 200, body = Proposals), (status = 403, description = "admin_required"), (status = 503, description = "knowledge_unavailable"))
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Query(query): Query<ListQuery>,
) -> Result<Json<Proposals>> {
    let (limit, offset) = (query.limit.get(), query.offset.get());
    let mut tx = begin(&app, &admin).await?;
    let (proposals, has_more) = store::list(&mut tx, query.state, limit, offset).await?;
    let pagination = OffsetPage {
        limit,
        offset,
        has_more,
    };
    Ok(Json(Proposals {
        proposals,
        pagination,
    }))
}

/// Makes an entry of a proposal, as the editor has written it, in the way that any other is made. The words
/// of the proposal itself are forgotten.
#[utoipa::path(
    post, path = "/api/chat/knowledge/proposals/{proposal_id}/approve", operation_id = "approve_proposal", tag = "knowledge",
    params(("proposal_id" = Uuid, Path)), request_body = WriteEntry,
    responses(
        (status = 202, body = IngestionBody, headers(("Location" = String, description = "The ingestion."))),
        (status = 403, description = "admin_required"),
        (status = 404, description = "proposal_not_found"),
        (status = 409, description = "proposal_decided"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn approve(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
    Body(entry): Body<WriteEntry>,
) -> Result<Response> {
    let collection = collection(entry.collection.as_deref())?.to_owned();
    let text = check(entry)?;
    let mut tx = begin(&app, &admin).await?;
    let ingestion = queue(&app, tx.as_user(), &collection, text).await?;
    // Undone with everything else where somebody has decided before.
    decided(store::decide(&mut tx, id, ProposalState::Approved, Some(ingestion)).await?)?;
    tx.commit().await?;
    accepted(&app, &admin, ingestion).await
}

/// Leaves a proposal at that. Its words are forgotten.
#[utoipa::path(
    post, path = "/api/chat/knowledge/proposals/{proposal_id}/dismiss", operation_id = "dismiss_proposal", tag = "knowledge",
    params(("proposal_id" = Uuid, Path)),
    responses(
        (status = 200, body = ProposalBody),
        (status = 403, description = "admin_required"),
        (status = 404, description = "proposal_not_found"),
        (status = 409, description = "proposal_decided"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn dismiss(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<ProposalBody>> {
    let mut tx = begin(&app, &admin).await?;
    let proposal = decided(store::decide(&mut tx, id, ProposalState::Dismissed, None).await?)?;
    tx.commit().await?;
    Ok(Json(ProposalBody { proposal }))
}

async fn begin(app: &AppState, admin: &Identity) -> Result<EditorTx> {
    let mut tx = app.db.editor(admin.id).await?;
    if !knowledge_store::is_available(tx.as_user()).await? {
        return Err(Problem::of(Code::KnowledgeUnavailable));
    }
    Ok(tx)
}

fn decided(decided: Decided) -> Result<Proposal> {
    match decided {
        Decided::Done(proposal) => Ok(proposal),
        Decided::Before => Err(Problem::of(Code::ProposalDecided)),
        Decided::NotFound => Err(Problem::of(Code::ProposalNotFound)),
    }
}
