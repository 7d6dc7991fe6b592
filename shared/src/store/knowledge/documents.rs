//! Entries, for editors and for those who show what was found.

use uuid::Uuid;

use crate::domain::KnowledgeDocument;
use crate::store::{StoreResult, UserTx};

macro_rules! document_query {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            KnowledgeDocument,
            "SELECT d.id, d.collection, d.menu, d.issue, d.solution, d.note_dev, d.note_qa, d.version, d.created_at,
                    d.updated_at
             FROM chat.knowledge_documents d " + $tail $(, $arg)*
        )
    };
}

/// One entry.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<KnowledgeDocument>> {
    Ok(document_query!("WHERE d.id = $1", id)
        .fetch_optional(tx.conn())
        .await?)
}

/// These entries, in no order.
///
/// # Errors
/// When the database fails.
pub async fn of(tx: &mut UserTx, ids: &[Uuid]) -> StoreResult<Vec<KnowledgeDocument>> {
    Ok(document_query!("WHERE d.id = ANY ($1)", ids)
        .fetch_all(tx.conn())
        .await?)
}

/// The entries of a collection, newest first, and whether there are more.
///
/// # Errors
/// When the database fails.
pub async fn list(
    tx: &mut UserTx,
    collection: &str,
    limit: i64,
    offset: i64,
) -> StoreResult<(Vec<KnowledgeDocument>, bool)> {
    let mut documents = document_query!(
        "WHERE d.collection = $1 ORDER BY d.id DESC LIMIT $2 OFFSET $3",
        collection,
        limit + 1,
        offset,
    )
    .fetch_all(tx.conn())
    .await?;
    let has_more = i64::try_from(documents.len()).unwrap_or(i64::MAX) > limit;
    documents.truncate(usize::try_from(limit).unwrap_or(0));
    Ok((documents, has_more))
}

/// How many entries a collection has.
///
/// # Errors
/// When the database fails.
pub async fn count(tx: &mut UserTx, collection: &str) -> StoreResult<i64> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM chat.knowledge_documents WHERE collection = $1"#,
        collection
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(count)
}

/// Deletes an entry with its texts and vectors. Returns whether there was one.
///
/// # Errors
/// When the database fails.
pub async fn delete(tx: &mut UserTx, id: Uuid) -> StoreResult<bool> {
    let collection = sqlx::query_scalar!(
        "DELETE FROM chat.knowledge_documents WHERE id = $1 RETURNING collection",
        id
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(collection.is_some())
}
