//! The words of a collection.

use crate::knowledge::Word;
use crate::store::{StoreResult, UserTx};

/// Words that are read of a collection, the most frequent ones: it bounds what a process keeps.
const MOST: i64 = 100_000;

/// What the vocabulary is made of.
#[derive(Clone, Debug)]
pub struct Read {
    /// Entries of the collection.
    pub documents: u32,
    /// Their words.
    pub words: Vec<Word>,
    /// What people say, and what is meant by it.
    pub synonyms: Vec<(String, String)>,
}

/// Counts the changes of a collection's words; none where there is no such collection.
///
/// # Errors
/// When the database fails.
pub async fn version(tx: &mut UserTx, collection: &str) -> StoreResult<Option<i64>> {
    let version = sqlx::query_scalar!(
        "SELECT version FROM chat.knowledge_collections WHERE name = $1",
        collection
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(version)
}

/// The words of a collection.
///
/// # Errors
/// When the database fails.
pub async fn read(tx: &mut UserTx, collection: &str) -> StoreResult<Read> {
    let documents = super::documents::count(tx, collection).await?;
    let words = sqlx::query!(
        "SELECT w.word, w.lexeme, w.documents FROM chat.knowledge_words w
         WHERE w.collection = $1 ORDER BY w.documents DESC, w.word LIMIT $2",
        collection,
        MOST,
    )
    .fetch_all(tx.conn())
    .await?;
    let words = words.into_iter().map(|row| Word {
        word: row.word,
        lexeme: row.lexeme,
        documents: u32::try_from(row.documents).unwrap_or(0),
    });
    let words = words.collect();
    let synonyms = sqlx::query!(
        "SELECT s.word, s.means FROM chat.knowledge_synonyms s ORDER BY s.word, s.means"
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Read {
        documents: u32::try_from(documents).unwrap_or(u32::MAX),
        words,
        synonyms: synonyms
            .into_iter()
            .map(|row| (row.word, row.means))
            .collect(),
    })
}

/// Counts the words of a collection again. Whoever holds its vocabulary reads it anew.
///
/// # Errors
/// When the database fails.
pub async fn recount(tx: &mut UserTx, collection: &str) -> StoreResult<()> {
    // The first statement takes the lock under which one worker at a time recounts.
    sqlx::query!(
        "UPDATE chat.knowledge_collections SET version = version + 1 WHERE name = $1",
        collection
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "DELETE FROM chat.knowledge_words WHERE collection = $1",
        collection
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO chat.knowledge_words (collection, word, lexeme, documents)
         SELECT $1, s.word, COALESCE((tsvector_to_array(to_tsvector('pg_catalog.indonesian', s.word)))[1], s.word), s.ndoc
         FROM ts_stat(format('SELECT to_tsvector(''pg_catalog.simple'', concat_ws('' '', d.menu, d.issue, d.solution, d.note_dev, d.note_qa))
                              FROM chat.knowledge_documents d WHERE d.collection = %L', $1::text)) s
         WHERE char_length(s.word) <= 100",
        collection
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
