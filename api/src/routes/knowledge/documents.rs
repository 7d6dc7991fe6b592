//! `/api/chat/knowledge/documents`: single entries.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::domain::{EntryText, KnowledgeDocument};
use shared::knowledge::{clean, entry_key};
use shared::store::UserTx;
use shared::store::knowledge::documents as store;
use shared::store::knowledge::ingestions::{self, StagedRow, Understood};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::view::OffsetPage;
use super::ingestions::{IngestionBody, accepted};
use super::once::Once;
use super::{begin, collection};
use crate::app::AppState;
use crate::error::{Checks, Code, Problem, Result};
use crate::extract::{Admin, Idempotent, Json as Body, Limit, Offset, Path, Query};

/// The longest field, in characters.
const MAX_FIELD: usize = 20_000;

/// An entry as an editor writes it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteEntry {
    /// Where it belongs to; `default` without one, and where it was on a replacement.
    #[schema(nullable = false)]
    pub(super) collection: Option<String>,
    /// Where in the application it happens.
    #[serde(default)]
    #[schema(required = false)]
    menu: String,
    /// What people report. It or the solution is required.
    #[serde(default)]
    #[schema(required = false)]
    issue: String,
    /// What to do about it.
    #[serde(default)]
    #[schema(required = false)]
    solution: String,
    /// What developers noted.
    #[serde(default)]
    #[schema(required = false)]
    note_dev: String,
    /// What testers noted.
    #[serde(default)]
    #[schema(required = false)]
    note_qa: String,
}

/// An entry.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentBody {
    document: KnowledgeDocument,
}

/// Entries, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Documents {
    documents: Vec<KnowledgeDocument>,
    /// How many the collection has.
    total: i64,
    pagination: OffsetPage,
}

/// Which entries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Those of this collection; `default` without one.
    collection: Option<String>,
    /// Entries per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 200, default = 50, required = false)]
    limit: Limit<50, 200>,
    /// Entries to skip.
    #[serde(default)]
    #[param(value_type = u32, maximum = 1_000_000, default = 0, required = false)]
    offset: Offset,
}

/// Lists the entries of a collection, newest first.
#[utoipa::path(
    get, path = "/api/chat/knowledge/documents", operation_id = "list_documents", tag = "knowledge", params(ListQuery),
    responses((status = 200, body = Documents), (status = 403, description = "admin_required"), (status = 503, description = "knowledge_unavailable"))
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Query(query): Query<ListQuery>,
) -> Result<Json<Documents>> {
    let (limit, offset) = (query.limit.get(), query.offset.get());
    let collection = collection(query.collection.as_deref())?;
    let mut tx = begin(&app, &admin).await?;
    let (documents, has_more) = store::list(&mut tx, collection, limit, offset).await?;
    let total = store::count(&mut tx, collection).await?;
    let pagination = OffsetPage {
        limit,
        offset,
        has_more,
    };
    Ok(Json(Documents {
        documents,
        total,
        pagination,
    }))
}

/// Reads an entry.
#[utoipa::path(
    get, path = "/api/chat/knowledge/documents/{document_id}", operation_id = "read_document", tag = "knowledge",
    params(("document_id" = Uuid, Path)),
    responses(
        (status = 200, body = DocumentBody),
        (status = 403, description = "admin_required"),
        (status = 404, description = "document_not_found"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn read(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
) -> Result<Json<DocumentBody>> {
    let mut tx = begin(&app, &admin).await?;
    let document = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    Ok(Json(DocumentBody { document }))
}

/// Adds an entry, as an ingestion of one row. An entry with the same menu and issue is replaced.
#[utoipa::path(
    post, path = "/api/chat/knowledge/documents", operation_id = "create_document", tag = "knowledge",
    params(super::super::IdempotencyHeader), request_body = WriteEntry,
    responses(
        (status = 202, body = IngestionBody, headers(("Location" = String, description = "The ingestion."))),
        (status = 403, description = "admin_required"),
        (status = 409, description = "idempotency_in_progress"),
        (status = 422, description = "idempotency_conflict"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn create(
    State(app): State<AppState>,
    Admin(admin): Admin,
    request: Idempotent<WriteEntry>,
) -> Result<Response> {
    let once = Once::of(&request);
    let entry = request.body;
    let collection = collection(entry.collection.as_deref())?.to_owned();
    let text = check(entry)?;
    let mut tx = begin(&app, &admin).await?;
    if let Some(answered) = once.seen(&mut tx).await? {
        return Ok(answered);
    }
    let id = queue(&app, &mut tx, &collection, text).await?;
    once.accept(tx, id).await
}

/// Replaces the text of an entry, as an ingestion of one row.
#[utoipa::path(
    put, path = "/api/chat/knowledge/documents/{document_id}", operation_id = "replace_document", tag = "knowledge",
    params(("document_id" = Uuid, Path)), request_body = WriteEntry,
    responses(
        (status = 202, body = IngestionBody, headers(("Location" = String, description = "The ingestion."))),
        (status = 403, description = "admin_required"),
        (status = 404, description = "document_not_found"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn replace(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
    Body(entry): Body<WriteEntry>,
) -> Result<Response> {
    let named = entry.collection.clone();
    collection(named.as_deref())?;
    let text = check(entry)?;
    let mut tx = begin(&app, &admin).await?;
    let old = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    let collection = named.unwrap_or_else(|| old.collection.clone());
    let before = EntryText {
        menu: old.menu,
        issue: old.issue,
        solution: old.solution,
        note_dev: old.note_dev,
        note_qa: old.note_qa,
    };
    // Menu and issue say which entry it is, so other ones make another entry.
    if entry_key(&before) != entry_key(&text) || collection != old.collection {
        store::delete(&mut tx, id).await?;
    }
    let ingestion = queue(&app, &mut tx, &collection, text).await?;
    tx.commit().await?;
    accepted(&app, &admin, ingestion).await
}

/// Deletes an entry; it is found no more at once.
#[utoipa::path(
    delete, path = "/api/chat/knowledge/documents/{document_id}", operation_id = "delete_document", tag = "knowledge",
    params(("document_id" = Uuid, Path)),
    responses(
        (status = 204),
        (status = 403, description = "admin_required"),
        (status = 404, description = "document_not_found"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
) -> Result<StatusCode> {
    let mut tx = begin(&app, &admin).await?;
    if !store::delete(&mut tx, id).await? {
        return Err(not_found());
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Queues an entry, as an ingestion of one row.
pub(super) async fn queue(
    app: &AppState,
    tx: &mut UserTx,
    collection: &str,
    text: EntryText,
) -> Result<Uuid> {
    let id = shared::id::new(app.gate.clock.now());
    ingestions::begin(tx, id, None).await?;
    ingestions::stage(tx, id, &[StagedRow::new(1, text)], &[]).await?;
    let columns = json!([]);
    let file = Understood {
        encoding: None,
        delimiter: None,
        columns: &columns,
        rows_read: 1,
    };
    ingestions::queue(tx, id, collection, &file).await?;
    Ok(id)
}

/// The text of an entry, if it may be one.
pub(super) fn check(entry: WriteEntry) -> Result<EntryText> {
    let text = EntryText {
        menu: clean(&entry.menu),
        issue: clean(&entry.issue),
        solution: clean(&entry.solution),
        note_dev: clean(&entry.note_dev),
        note_qa: clean(&entry.note_qa),
    };
    let mut checks = Checks::default();
    for (name, field) in [
        ("menu", &text.menu),
        ("issue", &text.issue),
        ("solution", &text.solution),
        ("note_dev", &text.note_dev),
        ("note_qa", &text.note_qa),
    ] {
        let fits = field.chars().count() <= MAX_FIELD;
        checks.require(
            fits,
            name,
            format!("must have at most {MAX_FIELD} characters"),
        );
    }
    let says = !text.issue.is_empty() || !text.solution.is_empty();
    checks.require(says, "issue", "or solution must not be blank");
    checks.finish()?;
    Ok(text)
}

fn not_found() -> Problem {
    Problem::of(Code::DocumentNotFound)
}
