//! `/api/chat/knowledge/ingestions`: files on their way into the knowledge base.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::domain::Ingestion;
use shared::knowledge::Preview;
use shared::store::knowledge::{self, ingestions as store};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::view::OffsetPage;
use super::begin;
use super::upload::{Uploaded, receive};
use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Code, Problem, Result};
use crate::extract::{Admin, Json as Body, Limit, Offset, Path, Query};

/// Lines that can be tried again in one request, as many as are listed.
const LISTED: usize = 1000;

/// Whether a file is only looked at.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UploadQuery {
    /// Tells how the file is understood and stores nothing.
    #[serde(default)]
    #[param(default = false, required = false)]
    preview: bool,
}

/// The form with a file.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "only its schema is used: a form is read part by part"
)]
pub(crate) struct UploadForm {
    /// CSV in UTF-8 or Windows-1252 with `,`, `;` or tab: MENU, ISSUE, EXPECTED, NOTE BY DEV, NOTE BY QA.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// Where its entries belong to; `default` without one.
    #[schema(nullable = false)]
    collection: Option<String>,
}

/// An ingestion.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IngestionBody {
    pub(super) ingestion: Ingestion,
}

/// How a file would be read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PreviewBody {
    preview: Preview,
}

/// Ingestions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ingestions {
    ingestions: Vec<Ingestion>,
    pagination: OffsetPage,
}

/// Which ingestions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Ingestions per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 100, default = 20, required = false)]
    limit: Limit<20, 100>,
    /// Ingestions to skip.
    #[serde(default)]
    #[param(value_type = u32, maximum = 1_000_000, default = 0, required = false)]
    offset: Offset,
}

/// Takes a file with entries. The same file again changes nothing.
#[utoipa::path(
    post, path = "/api/chat/knowledge/ingestions", operation_id = "upload_knowledge", tag = "knowledge",
    params(UploadQuery, super::super::IdempotencyHeader),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 202, body = IngestionBody, headers(("Location" = String, description = "The ingestion."))),
        (status = 200, body = PreviewBody, description = "With `preview=true`: nothing is stored."),
        (status = 403, description = "admin_required"),
        (status = 409, description = "idempotency_in_progress"),
        (status = 422, description = "file_unreadable idempotency_conflict"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn upload(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response> {
    match receive(&app, &admin, request, query.preview).await? {
        Uploaded::Seen(preview) => Ok(Json(PreviewBody { preview }).into_response()),
        Uploaded::Answered(answer) => Ok(answer),
    }
}

/// The answer to what makes an ingestion.
pub(super) async fn accepted(app: &AppState, admin: &Identity, id: Uuid) -> Result<Response> {
    let mut tx = app.db.user(admin.id).await?;
    let ingestion = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    let location = [(header::LOCATION, format!("{}/{id}", super::UPLOADS))];
    Ok((
        StatusCode::ACCEPTED,
        location,
        Json(IngestionBody { ingestion }),
    )
        .into_response())
}

/// Lists ingestions without their skipped rows, newest first.
#[utoipa::path(
    get, path = "/api/chat/knowledge/ingestions", operation_id = "list_ingestions", tag = "knowledge",
    params(ListQuery),
    responses((status = 200, body = Ingestions), (status = 403, description = "admin_required"), (status = 503, description = "knowledge_unavailable"))
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Query(query): Query<ListQuery>,
) -> Result<Json<Ingestions>> {
    let (limit, offset) = (query.limit.get(), query.offset.get());
    let mut tx = begin(&app, &admin).await?;
    let mut ingestions = store::list(&mut tx, limit + 1, offset).await?;
    let wanted = usize::try_from(limit).unwrap_or(0);
    let has_more = ingestions.len() > wanted;
    ingestions.truncate(wanted);
    let pagination = OffsetPage {
        limit,
        offset,
        has_more,
    };
    Ok(Json(Ingestions {
        ingestions,
        pagination,
    }))
}

/// Reads an ingestion: what became of its rows, what it took, how long it will take.
#[utoipa::path(
    get, path = "/api/chat/knowledge/ingestions/{ingestion_id}", operation_id = "read_ingestion", tag = "knowledge",
    params(("ingestion_id" = Uuid, Path)),
    responses(
        (status = 200, body = Ingestion),
        (status = 403, description = "admin_required"),
        (status = 404, description = "ingestion_not_found"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn read(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<Ingestion>> {
    let mut tx = begin(&app, &admin).await?;
    let ingestion = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    Ok(Json(ingestion))
}

/// Stops an ingestion. What was done stays.
#[utoipa::path(
    post, path = "/api/chat/knowledge/ingestions/{ingestion_id}/cancel", operation_id = "cancel_ingestion", tag = "knowledge",
    params(("ingestion_id" = Uuid, Path)),
    responses(
        (status = 200, body = IngestionBody),
        (status = 403, description = "admin_required"),
        (status = 404, description = "ingestion_not_found"),
        (status = 409, description = "ingestion_ended"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn cancel(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<IngestionBody>> {
    let mut tx = begin(&app, &admin).await?;
    let cancelled = store::cancel(&mut tx, id).await?;
    let ingestion = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    if !cancelled {
        return Err(Problem::of(Code::IngestionEnded));
    }
    tx.commit().await?;
    Ok(Json(IngestionBody { ingestion }))
}

/// What to try again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    /// The lines of the file on which the rows begin, at most 1000; without them, all that failed.
    #[schema(nullable = false, min_items = 1, max_items = 1000)]
    lines: Option<Vec<i32>>,
}

/// Tries the rows again that an upload left behind, because the provider refused their texts or there was none.
#[utoipa::path(
    post, path = "/api/chat/knowledge/ingestions/{ingestion_id}/retry", operation_id = "retry_ingestion", tag = "knowledge",
    params(("ingestion_id" = Uuid, Path)), request_body = Retry,
    responses(
        (status = 202, body = IngestionBody, headers(("Location" = String, description = "The ingestion."))),
        (status = 403, description = "admin_required"),
        (status = 404, description = "ingestion_not_found"),
        (status = 409, description = "nothing_to_retry"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn retry(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
    Body(body): Body<Retry>,
) -> Result<Response> {
    let lines = body.lines.as_deref();
    if lines.is_some_and(|lines| !(1..=LISTED).contains(&lines.len())) {
        return Err(Problem::field("lines", format!("must be 1 to {LISTED}")));
    }
    let mut tx = begin(&app, &admin).await?;
    store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    if !knowledge::retry(&mut tx, id, lines).await? {
        return Err(Problem::of(Code::NothingToRetry));
    }
    tx.commit().await?;
    accepted(&app, &admin, id).await
}

pub(super) fn not_found() -> Problem {
    Problem::of(Code::IngestionNotFound)
}
