//! Rows of an upload as entries, in batches, each a transaction guarded by the claim.

use std::collections::HashMap;

use uuid::Uuid;

use super::ingestions::Held;
use crate::domain::EntryText;
use crate::store::{StoreResult, UserTx};

/// What a row is going to be.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its line of the file.
    pub line: i32,
    /// The id of the entry, should it be a new one.
    pub new_id: Uuid,
    /// The texts to match questions against, each with the id of its chunk and its hash.
    pub texts: Vec<(Uuid, String, [u8; 32])>,
}

/// A row that waits.
#[derive(Clone, Debug)]
pub struct WaitingRow {
    /// Its line of the file.
    pub line: i32,
    /// What makes it the same entry.
    pub key: Vec<u8>,
    /// What makes it unchanged.
    pub hash: Vec<u8>,
    /// Its fields.
    pub text: EntryText,
}

/// The next rows that wait; none where the claim is lost.
///
/// # Errors
/// When the database fails.
pub async fn waiting(
    tx: &mut UserTx,
    held: &Held,
    limit: i64,
) -> StoreResult<Option<Vec<WaitingRow>>> {
    if !hold(tx, held).await? {
        return Ok(None);
    }
    let rows = sqlx::query!(
        r#"SELECT r.line, r.key AS "key!", r.hash AS "hash!", r.menu, r.issue, r.solution, r.note_dev, r.note_qa
           FROM chat.knowledge_rows r WHERE r.ingestion_id = $1 AND r.outcome IS NULL ORDER BY r.line LIMIT $2"#,
        held.id,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let rows = rows.into_iter().map(|row| WaitingRow {
        line: row.line,
        key: row.key,
        hash: row.hash,
        text: EntryText {
            menu: row.menu,
            issue: row.issue,
            solution: row.solution,
            note_dev: row.note_dev,
            note_qa: row.note_qa,
        },
    });
    Ok(Some(rows.collect()))
}

/// Locks the ingestion until the transaction ends. Returns whether the claim is ours.
pub(super) async fn hold(tx: &mut UserTx, held: &Held) -> StoreResult<bool> {
    let ours = sqlx::query!(
        "SELECT i.id FROM chat.knowledge_ingestions i WHERE i.id = $1 AND i.claim_token = $2 FOR NO KEY UPDATE",
        held.id,
        held.token,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(ours.is_some())
}

/// Turns rows that [`waiting`] returned in this transaction into entries. Those of two ingestions may meet:
/// whoever comes second finds what the first one wrote.
///
/// # Errors
/// When the database fails.
pub async fn store(
    tx: &mut UserTx,
    held: &Held,
    rows: &[WaitingRow],
    entries: &[Entry],
) -> StoreResult<()> {
    super::reindex::hold_profiles(tx).await?;
    let keys: Vec<&[u8]> = rows.iter().map(|row| row.key.as_slice()).collect();
    let hashes: Vec<&[u8]> = rows.iter().map(|row| row.hash.as_slice()).collect();
    let new_ids: Vec<Uuid> = entries.iter().map(|entry| entry.new_id).collect();
    let field = |of: fn(&EntryText) -> &String| -> Vec<String> {
        rows.iter().map(|row| of(&row.text).clone()).collect()
    };
    // In the order of their keys, so that two ingestions do not wait for each other. A row that is there
    // unchanged is not written.
    let written = sqlx::query!(
        r#"INSERT INTO chat.knowledge_documents AS d (id, collection, key, hash, menu, issue, solution, note_dev, note_qa,
                                                      ingestion_id)
           SELECT r.id, $1, r.key, r.hash, r.menu, r.issue, r.solution, r.note_dev, r.note_qa, $2
           FROM unnest($3::uuid[], $4::bytea[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
                AS r (id, key, hash, menu, issue, solution, note_dev, note_qa)
           ORDER BY r.key
           ON CONFLICT (collection, key) DO UPDATE
           SET hash = EXCLUDED.hash, menu = EXCLUDED.menu, issue = EXCLUDED.issue, solution = EXCLUDED.solution,
               note_dev = EXCLUDED.note_dev, note_qa = EXCLUDED.note_qa, version = d.version + 1, updated_at = now(),
               ingestion_id = EXCLUDED.ingestion_id
           WHERE d.hash <> EXCLUDED.hash
           RETURNING d.id, d.key, d.version"#,
        held.collection,
        held.id,
        &new_ids,
        keys.as_slice() as _,
        hashes.as_slice() as _,
        &field(|text| &text.menu),
        &field(|text| &text.issue),
        &field(|text| &text.solution),
        &field(|text| &text.note_dev),
        &field(|text| &text.note_qa),
    )
    .fetch_all(tx.conn())
    .await?;
    let written: HashMap<Vec<u8>, (Uuid, i32)> = written
        .into_iter()
        .map(|row| (row.key, (row.id, row.version)))
        .collect();
    let mut outcomes = Vec::with_capacity(rows.len());
    let mut chunks = Chunks::default();
    for (row, entry) in rows.iter().zip(entries) {
        outcomes.push(match written.get(&row.key) {
            None => "unchanged",
            Some((id, _)) => {
                chunks.add(*id, row, entry);
                if *id == entry.new_id {
                    "new"
                } else {
                    "changed"
                }
            }
        });
    }
    chunks.store(tx, held).await?;
    let count = |wanted: &str| {
        i32::try_from(
            outcomes
                .iter()
                .filter(|outcome| **outcome == wanted)
                .count(),
        )
        .unwrap_or(i32::MAX)
    };
    let outcomes_of_lines: Vec<String> = outcomes
        .iter()
        .map(|outcome| (*outcome).to_owned())
        .collect();
    sqlx::query!(
        "UPDATE chat.knowledge_rows r SET outcome = o.outcome FROM unnest($2::integer[], $3::text[]) o (line, outcome)
         WHERE r.ingestion_id = $1 AND r.line = o.line",
        held.id,
        &rows.iter().map(|row| row.line).collect::<Vec<_>>(),
        &outcomes_of_lines,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "UPDATE chat.knowledge_ingestions
         SET documents_new = documents_new + $2, documents_changed = documents_changed + $3,
             documents_unchanged = documents_unchanged + $4, updated_at = now()
         WHERE id = $1",
        held.id,
        count("new"),
        count("changed"),
        count("unchanged"),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The texts of entries that were written.
#[derive(Default)]
struct Chunks {
    documents: Vec<Uuid>,
    ids: Vec<Uuid>,
    of: Vec<Uuid>,
    places: Vec<i32>,
    contents: Vec<String>,
    hashes: Vec<Vec<u8>>,
    answers: Vec<String>,
}

impl Chunks {
    fn add(&mut self, document: Uuid, row: &WaitingRow, entry: &Entry) {
        self.documents.push(document);
        let answers = [&row.text.solution, &row.text.note_dev, &row.text.note_qa]
            .map(String::as_str)
            .join("\n");
        for ((id, content, hash), place) in entry.texts.iter().zip(0..) {
            self.ids.push(*id);
            self.of.push(document);
            self.places.push(place);
            self.contents.push(content.clone());
            self.hashes.push(hash.to_vec());
            self.answers.push(answers.clone());
        }
    }

    /// A text that stays as it was keeps its chunk, and so its vectors.
    async fn store(&self, tx: &mut UserTx, held: &Held) -> StoreResult<()> {
        if self.documents.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "DELETE FROM chat.knowledge_chunks c WHERE c.document_id = ANY ($1)
               AND NOT EXISTS (SELECT FROM unnest($2::uuid[], $3::integer[], $4::bytea[]) n (document_id, place, hash)
                               WHERE n.document_id = c.document_id AND n.place = c.place AND n.hash = c.text_hash)",
            &self.documents,
            &self.of,
            &self.places,
            &self.hashes,
        )
        .execute(tx.conn())
        .await?;
        sqlx::query!(
            "INSERT INTO chat.knowledge_chunks (id, document_id, collection, place, content, text_hash, ingestion_id, words)
             SELECT n.id, n.document_id, $1, n.place, n.content, n.hash, $2,
                    setweight(to_tsvector('pg_catalog.indonesian', n.content), 'A')
                    || setweight(to_tsvector('pg_catalog.indonesian', n.answer), 'D')
             FROM unnest($3::uuid[], $4::uuid[], $5::integer[], $6::text[], $7::bytea[], $8::text[])
                  n (id, document_id, place, content, hash, answer)
             ON CONFLICT (document_id, place) DO UPDATE SET words = EXCLUDED.words, ingestion_id = EXCLUDED.ingestion_id",
            held.collection,
            held.id,
            &self.ids,
            &self.of,
            &self.places,
            &self.contents,
            &self.hashes,
            &self.answers,
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}
