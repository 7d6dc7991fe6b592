//! What people say for what the entries say; for all collections.

use crate::domain::Synonym;
use crate::store::{StoreResult, UserTx};

/// The words that have other meanings, in alphabetical order, and how many there are. `like` is the beginning
/// of the words that are wanted.
///
/// # Errors
/// When the database fails.
pub async fn list(
    tx: &mut UserTx,
    like: Option<&str>,
    limit: i64,
    offset: i64,
) -> StoreResult<(Vec<Synonym>, i64)> {
    let synonyms = sqlx::query_as!(
        Synonym,
        r#"SELECT s.word, array_agg(s.means ORDER BY s.means) AS "means!" FROM chat.knowledge_synonyms s
           WHERE $1::text IS NULL OR starts_with(s.word, $1) GROUP BY s.word ORDER BY s.word LIMIT $2 OFFSET $3"#,
        like,
        limit,
        offset,
    )
    .fetch_all(tx.conn())
    .await?;
    let total = sqlx::query_scalar!(
        r#"SELECT count(DISTINCT s.word) AS "total!" FROM chat.knowledge_synonyms s
           WHERE $1::text IS NULL OR starts_with(s.word, $1)"#,
        like,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((synonyms, total))
}

/// Gives a word these meanings in place of those it had; none takes them away. Every process reads the words
/// anew. Returns how many meanings were taken away.
///
/// # Errors
/// When the database fails.
pub async fn replace(tx: &mut UserTx, word: &str, means: &[String]) -> StoreResult<u64> {
    // The first statement is the lock under which one editor at a time changes a word.
    sqlx::query!("UPDATE chat.knowledge_collections SET version = version + 1")
        .execute(tx.conn())
        .await?;
    let gone = sqlx::query!(
        "DELETE FROM chat.knowledge_synonyms WHERE word = $1 AND NOT means = ANY ($2)",
        word,
        means,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "INSERT INTO chat.knowledge_synonyms (word, means) SELECT $1, n.means FROM unnest($2::text[]) n (means)
         ON CONFLICT DO NOTHING",
        word,
        means,
    )
    .execute(tx.conn())
    .await?;
    Ok(gone.rows_affected())
}
