//! A file on its way into the staging table: read as it comes, so that its size does not matter.

use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request};
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use shared::domain::{EntryText, SkippedRow};
use shared::knowledge::{FileError, Preview, Row, Sheet};
use shared::store::knowledge::ingestions::{self, StagedRow, Understood};
use uuid::Uuid;

use super::once::Once;
use super::{begin, collection};
use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Code, FieldError, Problem, Result};
use crate::extract::IdempotencyKey;

/// Rows of one transaction.
const BATCH: usize = 500;
/// The longest name of a file that is kept, and rows that a preview lists as skipped.
const NAME: usize = 255;
const LISTED: usize = 1000;

/// A file that came to its end.
pub(super) enum Uploaded {
    /// It is staged and the work may begin, or it was sent before.
    Answered(Response),
    /// It was only looked at.
    Seen(Preview),
}

/// What is done with the rows.
struct Staging<'a> {
    app: &'a AppState,
    admin: &'a Identity,
    /// None where the file is only looked at.
    ingestion: Option<Uuid>,
    sheet: Sheet,
    /// The first entries and skipped rows, for the preview.
    shown: Vec<EntryText>,
    skipped: Vec<SkippedRow>,
    bytes: usize,
    key: Option<IdempotencyKey>,
    hash: Sha256,
}

/// Reads a form with a file. Whatever goes wrong, nothing of it stays.
pub(super) async fn receive(
    app: &AppState,
    admin: &Identity,
    mut request: Request,
    preview: bool,
) -> Result<Uploaded> {
    let key = IdempotencyKey::from_headers(request.headers())?;
    drop(begin(app, admin).await?);
    DefaultBodyLimit::disable().apply(&mut request);
    let form = Multipart::from_request(request, &()).await.map_err(|_| {
        Problem::new(
            Code::UnsupportedMediaType,
            "the body must be multipart/form-data with a part called file",
        )
    })?;
    let mut staging = Staging {
        app,
        admin,
        ingestion: None,
        sheet: Sheet::default(),
        shown: Vec::new(),
        skipped: Vec::new(),
        bytes: 0,
        key,
        hash: Sha256::new(),
    };
    let received = staging.form(form, preview).await;
    if let Some(id) = staging.ingestion {
        // The sweep finds what this leaves.
        if let Err(problem) = discard(app, admin, id).await {
            tracing::warn!(ingestion.id = %id, error = crate::error::chain(&problem), "an upload was not taken back");
        }
    }
    received
}

async fn discard(app: &AppState, admin: &Identity, id: Uuid) -> Result<()> {
    let mut tx = app.db.user(admin.id).await?;
    ingestions::discard(&mut tx, id).await?;
    Ok(tx.commit().await?)
}

impl Staging<'_> {
    async fn form(&mut self, mut form: Multipart, preview: bool) -> Result<Uploaded> {
        let (mut named, mut seen) = (None, false);
        while let Some(field) = form.next_field().await.map_err(interrupted)? {
            match field.name() {
                Some("file") if !seen => {
                    seen = true;
                    self.file(field, preview).await?;
                }
                Some("collection") if named.is_none() => {
                    let name = text(field).await?;
                    collection(Some(&name))?;
                    named = Some(name);
                }
                Some(other @ ("file" | "collection")) => {
                    return Err(Problem::field(other, "must come once"));
                }
                other => {
                    let name = other
                        .unwrap_or("body")
                        .chars()
                        .take(NAME)
                        .collect::<String>();
                    return Err(Problem::field(name, "is no field of this form"));
                }
            }
        }
        if !seen {
            return Err(Problem::field("file", "is missing"));
        }
        let summary = self.sheet.preview(
            std::mem::take(&mut self.shown),
            std::mem::take(&mut self.skipped),
        );
        let Some(id) = self.ingestion else {
            return Ok(Uploaded::Seen(summary));
        };
        let collection = collection(named.as_deref())?;
        let once = Once::new(self.key.take(), self.fingerprint(collection));
        let columns = serde_json::to_value(&summary.columns).map_err(Problem::internal)?;
        let file = Understood {
            encoding: Some(&summary.encoding),
            delimiter: Some(&summary.delimiter),
            columns: &columns,
            rows_read: summary.rows_read,
        };
        let mut tx = self.app.db.user(self.admin.id).await?;
        if let Some(answered) = once.seen(&mut tx).await? {
            return Ok(Uploaded::Answered(answered));
        }
        if !ingestions::queue(&mut tx, id, collection, &file).await? {
            return Err(Problem::of(Code::BodyTimeout));
        }
        let answer = once.accept(tx, id).await?;
        self.ingestion = None;
        Ok(Uploaded::Answered(answer))
    }

    /// What the same key must come with again: the file and where it belongs to, however the form has them.
    fn fingerprint(&mut self, collection: &str) -> [u8; 32] {
        let file: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        let parts = [super::UPLOADS.as_bytes(), collection.as_bytes(), &file[..]];
        shared::crypto::sha256(&parts)
    }

    async fn file(&mut self, mut field: Field<'_>, preview: bool) -> Result<()> {
        if !preview {
            let id = shared::id::new(self.app.gate.clock.now());
            let name: Option<String> = field.file_name().map(|name| {
                name.chars()
                    .filter(|character| !character.is_control())
                    .take(NAME)
                    .collect()
            });
            let mut tx = self.app.db.user(self.admin.id).await?;
            ingestions::begin(&mut tx, id, name.as_deref()).await?;
            tx.commit().await?;
            self.ingestion = Some(id);
        }
        let most = self.app.gate.config.limits.max_upload_bytes;
        while let Some(bytes) = field.chunk().await.map_err(interrupted)? {
            self.bytes += bytes.len();
            if self.bytes > most {
                let detail = format!("the file has more than {most} bytes");
                return Err(Problem::new(Code::BodyTooLarge, detail));
            }
            self.hash.update(&bytes);
            self.sheet.push(&bytes).map_err(unreadable)?;
            if self.sheet.waiting() >= BATCH {
                self.stage().await?;
            }
        }
        self.sheet.finish().map_err(unreadable)?;
        self.stage().await
    }

    async fn stage(&mut self) -> Result<()> {
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        for row in self.sheet.take() {
            match row {
                Row::Skipped(row) => skipped.push(row),
                Row::Entry { line, text } => rows.push(StagedRow::new(line, text)),
            }
        }
        let Some(id) = self.ingestion else {
            let room = LISTED.saturating_sub(self.skipped.len());
            self.skipped.extend(skipped.into_iter().take(room));
            let room = BATCH.saturating_sub(self.shown.len());
            self.shown
                .extend(rows.into_iter().take(room).map(|row| row.text));
            return Ok(());
        };
        let mut tx = self.app.db.user(self.admin.id).await?;
        if !ingestions::stage(&mut tx, id, &rows, &skipped).await? {
            return Err(Problem::of(Code::BodyTimeout));
        }
        Ok(tx.commit().await?)
    }
}

/// A short field of the form.
async fn text(mut field: Field<'_>) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(interrupted)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > 4 * NAME {
            return Err(Problem::field("collection", "is too long"));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn interrupted(error: MultipartError) -> Problem {
    Problem::new(
        Code::MalformedRequest,
        "the form is malformed or ended early",
    )
    .because(error)
}

fn unreadable(error: FileError) -> Problem {
    let error = FieldError {
        field: "file".to_owned(),
        message: error.to_string(),
    };
    Problem::coded_fields(Code::FileUnreadable, vec![error])
}
