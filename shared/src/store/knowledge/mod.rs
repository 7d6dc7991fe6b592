//! The knowledge base: nobody's rows in particular, so the grants decide. Administrators read and change
//! it in their own scope; workers write it in the scope of the administrator who uploaded, guarded by the
//! claim on the ingestion.

mod discarded;
pub mod documents;
pub mod indexes;
pub mod ingest;
pub mod ingestions;
pub mod profiles;
pub mod questions;
pub mod reindex;
mod retry;
pub mod search;
pub mod synonyms;
pub mod usage;
pub mod vectors;
pub mod words;

use super::{StoreResult, UserTx};

pub use retry::retry;

/// Whether there is a table for vectors: without pgvector the knowledge base is off.
///
/// # Errors
/// When the database fails.
pub async fn is_available(tx: &mut UserTx) -> StoreResult<bool> {
    let available = sqlx::query_scalar!(
        r#"SELECT to_regclass('chat.knowledge_vectors') IS NOT NULL AS "available!""#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(available)
}
