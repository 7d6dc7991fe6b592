//! Vectors of questions that some worker had before, in a table: what was asked is known to all of them, also
//! after a restart. Like any cache it may fail without anybody noticing but the provider.

use shared::store::Db;
use shared::store::StoreResult;
use shared::store::knowledge::questions;
use uuid::Uuid;

/// The vector of a question, if it was asked within `hours`.
pub(super) async fn find(
    db: &Db,
    user_id: Uuid,
    profile_id: Uuid,
    hash: &[u8; 32],
    hours: f64,
) -> Option<Vec<f32>> {
    let found: StoreResult<_> = async {
        let mut tx = db.user(user_id).await?;
        questions::find(&mut tx, profile_id, hash, hours).await
    }
    .await;
    found.unwrap_or_else(|error| {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "not known whether a question was asked before"
        );
        None
    })
}

/// Keeps the vector of a question.
pub(super) async fn keep(
    db: &Db,
    user_id: Uuid,
    profile_id: Uuid,
    hash: &[u8; 32],
    vector: &[f32],
) {
    let kept: StoreResult<()> = async {
        let mut tx = db.user_async(user_id).await?;
        questions::keep(&mut tx, profile_id, hash, vector).await?;
        tx.commit().await
    }
    .await;
    if let Err(error) = kept {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "the vector of a question was not kept"
        );
    }
}
