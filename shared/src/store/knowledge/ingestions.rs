//! Uploads: staged by the API, claimed by workers, read by editors.

use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{EntryText, Ingestion, IngestionKind, IngestionStatus, SkippedRow};
use crate::knowledge::{canonical_hash, entry_key};
use crate::store::{StoreResult, SweepTx, UserTx};

pub use super::discarded::{discard, discard_abandoned};

/// Rows that are listed as skipped; all are counted.
const LISTED: i64 = 1000;

/// A row of a file on its way to an entry.
#[derive(Clone, Debug)]
pub struct StagedRow {
    /// The line it begins on.
    pub line: i32,
    /// What makes it the same entry.
    pub key: [u8; 32],
    /// What makes it unchanged.
    pub hash: [u8; 32],
    /// Its fields.
    pub text: EntryText,
}

impl StagedRow {
    /// A row with what it is recognised by.
    #[must_use]
    pub fn new(line: i32, text: EntryText) -> Self {
        Self {
            line,
            key: entry_key(&text),
            hash: canonical_hash(&text),
            text,
        }
    }
}

/// Whether a collection may be called so: lower-case letters, digits, hyphens and underscores, at most 63.
#[must_use]
pub fn is_collection_name(name: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
    };
    (1..=63).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with(['_', '-'])
}

/// Begins an upload. What it belongs to is known at its end only ([`queue`]).
///
/// # Errors
/// When the database fails.
pub async fn begin(tx: &mut UserTx, id: Uuid, file_name: Option<&str>) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "INSERT INTO chat.knowledge_ingestions (id, kind, status, collection, created_by, file_name)
         VALUES ($1, 'upload', 'uploading', 'default', $2, $3)",
        id,
        user_id,
        file_name,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Stages rows of an upload that goes on. Returns whether it does.
///
/// # Errors
/// When the database fails.
pub async fn stage(
    tx: &mut UserTx,
    id: Uuid,
    rows: &[StagedRow],
    skipped: &[SkippedRow],
) -> StoreResult<bool> {
    let going_on = sqlx::query!(
        "UPDATE chat.knowledge_ingestions SET updated_at = now() WHERE id = $1 AND status = 'uploading'",
        id
    )
    .execute(tx.conn())
    .await?;
    if going_on.rows_affected() == 0 {
        return Ok(false);
    }
    let field = |of: fn(&EntryText) -> &String| -> Vec<String> {
        rows.iter().map(|row| of(&row.text).clone()).collect()
    };
    sqlx::query!(
        "INSERT INTO chat.knowledge_rows (ingestion_id, line, key, hash, menu, issue, solution, note_dev, note_qa)
         SELECT $1, r.* FROM unnest($2::integer[], $3::bytea[], $4::bytea[], $5::text[], $6::text[], $7::text[],
                                    $8::text[], $9::text[]) r",
        id,
        &rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.key.to_vec()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.hash.to_vec()).collect::<Vec<_>>(),
        &field(|text| &text.menu),
        &field(|text| &text.issue),
        &field(|text| &text.solution),
        &field(|text| &text.note_dev),
        &field(|text| &text.note_qa),
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO chat.knowledge_rows (ingestion_id, line, outcome, reason)
         SELECT $1, r.line, 'skipped', r.reason FROM unnest($2::integer[], $3::text[]) r (line, reason)",
        id,
        &skipped.iter().map(|row| row.line).collect::<Vec<_>>(),
        &skipped.iter().map(|row| row.reason.clone()).collect::<Vec<_>>(),
    )
    .execute(tx.conn())
    .await?;
    Ok(true)
}

/// How a file was understood, for those who look at it later.
#[derive(Clone, Debug)]
pub struct Understood<'a> {
    /// `utf-8` or `windows-1252`.
    pub encoding: Option<&'a str>,
    /// The character between two fields.
    pub delimiter: Option<&'a str>,
    /// Its columns.
    pub columns: &'a Value,
    /// Rows, the header and blank lines left out.
    pub rows_read: i32,
}

/// Ends an upload whose rows are all staged: rows that repeat an earlier one are skipped, the collection is
/// made if it is not there, and the work may begin.
///
/// # Errors
/// When the database fails, or refuses the collection's name.
pub async fn queue(
    tx: &mut UserTx,
    id: Uuid,
    collection: &str,
    file: &Understood<'_>,
) -> StoreResult<bool> {
    sqlx::query!(
        "INSERT INTO chat.knowledge_collections (name) VALUES ($1) ON CONFLICT DO NOTHING",
        collection
    )
    .execute(tx.conn())
    .await?;
    // One look into the index for each row. A join with the keys that come twice takes the square of their
    // number where the rows have no statistics yet, and these never have.
    sqlx::query!(
        "UPDATE chat.knowledge_rows r
         SET outcome = 'skipped',
             reason = 'repeats line ' || (SELECT min(o.line) FROM chat.knowledge_rows o
                                          WHERE o.ingestion_id = $1 AND o.key = r.key)
         WHERE r.ingestion_id = $1 AND r.outcome IS NULL
           AND r.line > (SELECT min(o.line) FROM chat.knowledge_rows o WHERE o.ingestion_id = $1 AND o.key = r.key)",
        id
    )
    .execute(tx.conn())
    .await?;
    let queued = sqlx::query!(
        "UPDATE chat.knowledge_ingestions i
         SET status = 'queued', encoding = $2, delimiter = $3, columns = $4, rows_read = $5, updated_at = now(),
             collection = $6,
             run_at = now(),
             rows_skipped = (SELECT count(*) FROM chat.knowledge_rows r WHERE r.ingestion_id = $1 AND r.outcome = 'skipped')
         WHERE i.id = $1 AND i.status = 'uploading'",
        id,
        file.encoding,
        file.delimiter,
        file.columns,
        file.rows_read,
        collection,
    )
    .execute(tx.conn())
    .await?;
    Ok(queued.rows_affected() == 1)
}

struct Row {
    id: Uuid,
    kind: IngestionKind,
    status: IngestionStatus,
    collection: String,
    file_name: Option<String>,
    encoding: Option<String>,
    delimiter: Option<String>,
    rows_read: i32,
    rows_skipped: i32,
    documents_new: i32,
    documents_changed: i32,
    documents_unchanged: i32,
    chunks_total: i32,
    chunks_embedded: i32,
    chunks_failed: i32,
    tokens: i64,
    cost_credits: Option<Decimal>,
    problem: Option<String>,
    seconds: f64,
    version: i32,
    updated_at: OffsetDateTime,
    created_at: OffsetDateTime,
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
}

impl Row {
    /// What is done of the rows counts a tenth, of the texts the rest: embedding is what takes time.
    fn eta(&self) -> Option<i64> {
        if self.status != IngestionStatus::Running {
            return None;
        }
        let share = |done: i32, all: i32| {
            if all == 0 {
                1.0
            } else {
                f64::from(done) / f64::from(all)
            }
        };
        let rows_done = self.documents_new + self.documents_changed + self.documents_unchanged;
        let rows = share(rows_done, self.rows_read - self.rows_skipped);
        let texts = match rows < 1.0 && self.kind == IngestionKind::Upload {
            true => 0.0,
            false => share(self.chunks_embedded + self.chunks_failed, self.chunks_total),
        };
        let done = 0.1 * rows + 0.9 * texts;
        (done > 0.02).then(|| (self.seconds * (1.0 - done) / done).ceil() as i64)
    }

    fn ingestion(self, rows_skipped: Vec<SkippedRow>) -> Ingestion {
        Ingestion {
            eta: self.eta(),
            version: u32::try_from(self.version).unwrap_or(0),
            updated_at: self.updated_at,
            id: self.id,
            kind: self.kind,
            status: self.status,
            collection: self.collection,
            file_name: self.file_name,
            encoding: self.encoding,
            delimiter: self.delimiter,
            rows_read: self.rows_read,
            rows_skipped_count: self.rows_skipped,
            rows_skipped,
            documents_new: self.documents_new,
            documents_changed: self.documents_changed,
            documents_unchanged: self.documents_unchanged,
            chunks_total: self.chunks_total,
            chunks_embedded: self.chunks_embedded,
            chunks_failed: self.chunks_failed,
            tokens: self.tokens,
            cost: self.cost_credits,
            problem: self.problem,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        }
    }
}

macro_rules! ingestion_query {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"SELECT i.id, i.kind AS "kind: IngestionKind", i.status AS "status: IngestionStatus", i.collection,
                      i.file_name, i.encoding, i.delimiter, i.rows_read, i.rows_skipped, i.documents_new,
                      i.documents_changed, i.documents_unchanged, i.chunks_total, i.chunks_embedded, i.chunks_failed,
                      i.tokens, i.cost_credits, i.problem,
                      extract(epoch FROM now() - COALESCE(i.started_at, now()))::float8 AS "seconds!",
                      i.version, i.updated_at, i.created_at, i.started_at, i.finished_at
               FROM chat.knowledge_ingestions i "# + $tail $(, $arg)*
        )
    };
}

/// One ingestion with the rows that became no entry.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<Ingestion>> {
    let Some(row) = ingestion_query!("WHERE i.id = $1", id)
        .fetch_optional(tx.conn())
        .await?
    else {
        return Ok(None);
    };
    let skipped = sqlx::query_as!(
        SkippedRow,
        r#"SELECT r.line, r.reason AS "reason!" FROM chat.knowledge_rows r
           WHERE r.ingestion_id = $1 AND r.outcome IN ('skipped', 'failed') AND r.reason IS NOT NULL
           ORDER BY r.line LIMIT $2"#,
        id,
        LISTED,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Some(row.ingestion(skipped)))
}

/// The newest ingestions, without their skipped rows.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut UserTx, limit: i64, offset: i64) -> StoreResult<Vec<Ingestion>> {
    let rows = ingestion_query!("ORDER BY i.id DESC LIMIT $1 OFFSET $2", limit, offset)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| row.ingestion(Vec::new()))
        .collect())
}

/// The pass over everything that waits or goes on, without its skipped rows.
///
/// # Errors
/// When the database fails.
pub async fn reindexing(tx: &mut UserTx) -> StoreResult<Option<Ingestion>> {
    let row = ingestion_query!(
        "WHERE i.kind = 'reindex' AND i.status IN ('queued', 'running') ORDER BY i.run_at LIMIT 1"
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|row| row.ingestion(Vec::new())))
}

/// Stops an ingestion; what was done stays. Returns whether there was anything to stop.
///
/// # Errors
/// When the database fails.
pub async fn cancel(tx: &mut UserTx, id: Uuid) -> StoreResult<bool> {
    let cancelled = sqlx::query!(
        "UPDATE chat.knowledge_ingestions
         SET status = 'cancelled', claim_token = NULL, lease_until = NULL, finished_at = now(), updated_at = now()
         WHERE id = $1 AND status IN ('queued', 'running')",
        id
    )
    .execute(tx.conn())
    .await?;
    if cancelled.rows_affected() == 0 {
        return Ok(false);
    }
    super::reindex::let_go(tx, id).await?;
    Ok(true)
}

/// What a worker holds of an ingestion.
#[derive(Clone, Debug)]
pub struct Held {
    /// The ingestion.
    pub id: Uuid,
    /// What it works on.
    pub kind: IngestionKind,
    /// The collection.
    pub collection: String,
    /// The profile it builds; none for an upload, which serves the active one.
    pub profile_id: Option<Uuid>,
    /// The administrator who asked for it.
    pub created_by: Uuid,
    /// The number of this claim.
    pub attempt: i32,
    /// Guards every statement of this claim.
    pub token: Uuid,
}

/// Claims the ingestion that has waited longest, or one whose worker has gone.
///
/// # Errors
/// When the database fails.
pub async fn claim(
    tx: &mut SweepTx,
    worker_id: &str,
    lease: Duration,
) -> StoreResult<Option<Held>> {
    let held = sqlx::query_as!(
        Held,
        r#"UPDATE chat.knowledge_ingestions i
           SET status = 'running', claim_token = gen_random_uuid(), worker_id = $1, attempt = i.attempt + 1,
               lease_until = now() + $2 * interval '1 second', started_at = COALESCE(i.started_at, now()),
               updated_at = now()
           FROM (SELECT o.id FROM chat.knowledge_ingestions o
                 WHERE o.status IN ('uploading', 'queued', 'running') AND o.run_at <= now()
                   AND (o.status = 'queued' OR o.status = 'running' AND o.lease_until < now())
                 ORDER BY o.run_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) o
           WHERE i.id = o.id
           RETURNING i.id, i.kind AS "kind: IngestionKind", i.collection, i.profile_id, i.created_by, i.attempt,
                     i.claim_token AS "token!""#,
        worker_id,
        lease.as_secs_f64(),
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(held)
}

/// Keeps a claim. Returns whether it is still ours.
///
/// # Errors
/// When the database fails.
pub async fn renew(tx: &mut SweepTx, held: &Held, lease: Duration) -> StoreResult<bool> {
    let renewed = sqlx::query!(
        "UPDATE chat.knowledge_ingestions SET lease_until = now() + $3 * interval '1 second'
         WHERE id = $1 AND claim_token = $2",
        held.id,
        held.token,
        lease.as_secs_f64(),
    )
    .execute(tx.conn())
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Gives a claim back, to be taken again after `delay`; `problem` tells editors why. Returns whether it
/// was ours.
///
/// # Errors
/// When the database fails.
pub async fn put_back(
    tx: &mut SweepTx,
    held: &Held,
    delay: Duration,
    problem: Option<&str>,
) -> StoreResult<bool> {
    let put_back = sqlx::query!(
        "UPDATE chat.knowledge_ingestions
         SET status = 'queued', claim_token = NULL, lease_until = NULL, worker_id = NULL, updated_at = now(),
             run_at = now() + $3 * interval '1 second', problem = $4
         WHERE id = $1 AND claim_token = $2",
        held.id,
        held.token,
        delay.as_secs_f64(),
        problem,
    )
    .execute(tx.conn())
    .await?;
    Ok(put_back.rows_affected() == 1)
}

/// Ends an ingestion. Rows that became entries are forgotten; those that did not stay to be shown. Returns
/// whether the claim was ours.
///
/// # Errors
/// When the database fails.
pub async fn finish(
    tx: &mut UserTx,
    held: &Held,
    problem: Option<&str>,
    gave_up: bool,
) -> StoreResult<bool> {
    let finished = sqlx::query!(
        "UPDATE chat.knowledge_ingestions i
         SET status = CASE WHEN $4 THEN 'failed' WHEN $3::text IS NOT NULL OR i.chunks_failed > 0 THEN 'completed_with_errors'
                           ELSE 'completed' END,
             problem = $3, claim_token = NULL, lease_until = NULL, finished_at = now(), updated_at = now()
         WHERE i.id = $1 AND i.claim_token = $2",
        held.id,
        held.token,
        problem,
        gave_up,
    )
    .execute(tx.conn())
    .await?;
    if finished.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "DELETE FROM chat.knowledge_rows WHERE ingestion_id = $1 AND outcome IN ('new', 'changed', 'unchanged')",
        held.id
    )
    .execute(tx.conn())
    .await?;
    super::reindex::let_go(tx, held.id).await?;
    Ok(true)
}
