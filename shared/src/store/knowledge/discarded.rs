//! Uploads that came to no end.

use uuid::Uuid;

use crate::store::{StoreResult, SweepTx, UserTx};

/// Takes back an upload that did not come to its end, with all its rows.
///
/// # Errors
/// When the database fails.
pub async fn discard(tx: &mut UserTx, id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM chat.knowledge_ingestions WHERE id = $1 AND status = 'uploading'",
        id
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes back uploads that nothing came of for 10 minutes: whoever received them is gone. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn discard_abandoned(tx: &mut SweepTx) -> StoreResult<u64> {
    let gone = sqlx::query!(
        "DELETE FROM chat.knowledge_ingestions
         WHERE status = 'uploading' AND updated_at < now() - interval '10 minutes'"
    )
    .execute(tx.conn())
    .await?;
    Ok(gone.rows_affected())
}
