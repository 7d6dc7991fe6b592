//! The slow clocks: partitions ahead of time, expiry.

use std::sync::Arc;
use std::time::Duration;

use shared::store::knowledge::{ingestions, reindex};
use shared::store::{
    StoreResult, budgets, costs, figures, fleet, inbox, maintenance, notifications,
};

use crate::context::Context;
use crate::retention::{self, Expired, Looked};

/// Keys removed in one pass.
const BATCH: i64 = 5_000;
/// Between two passes over what is older than the retention period, for the others' sake.
const BETWEEN_PASSES: Duration = Duration::from_secs(1);

/// Maintains for ever, now and then every ten minutes; one worker at a time.
pub async fn maintain(context: Arc<Context>) {
    let mut looked = Looked::default();
    loop {
        match pass(&context).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!("another worker maintains"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "maintenance failed"
            ),
        }
        while expire(&context, &mut looked).await {
            tokio::time::sleep(BETWEEN_PASSES).await;
        }
        tokio::time::sleep(Duration::from_mins(10)).await;
    }
}

/// One pass over what is older than the retention period; whether there are conversations left to look at.
async fn expire(context: &Context, looked: &mut Looked) -> bool {
    match retention::pass(context, looked).await {
        Ok(Some(expired)) => {
            if expired != Expired::default() {
                tracing::info!(?expired, "what is older than the retention period is gone");
            }
            looked.has_more()
        }
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "not everything that is older than the retention period is gone"
            );
            false
        }
    }
}

/// One pass; false when another worker is at it.
///
/// # Errors
/// When the database fails.
pub async fn pass(context: &Context) -> StoreResult<bool> {
    let mut tx = context.db.sweep().await?;
    if !maintenance::try_lock(&mut tx, "maintain").await? {
        return Ok(false);
    }
    let partitions = maintenance::ensure_partitions(&mut tx).await?;
    let expired = maintenance::expire_idempotency_keys(&mut tx, BATCH).await?;
    let workers = fleet::forget(&mut tx).await?;
    let forgotten = notifications::forget(&mut tx, BATCH).await?;
    let abandoned = ingestions::discard_abandoned(&mut tx).await?;
    let ttl = context.config.embedding.cache_ttl.as_secs_f64() / 3600.0;
    reindex::forget(&mut tx, BATCH, ttl).await?;
    budgets::forget(&mut tx, BATCH).await?;
    costs::forget(&mut tx, BATCH).await?;
    figures::forget(&mut tx).await?;
    let events = inbox::forget(&mut tx, BATCH).await?;
    tx.commit().await?;
    if partitions > 0 || expired > 0 || workers > 0 || forgotten > 0 || abandoned > 0 {
        tracing::info!(
            partitions,
            forgotten_events = events,
            expired_keys = expired,
            forgotten_workers = workers,
            forgotten_notifications = forgotten,
            abandoned_uploads = abandoned,
            "maintained"
        );
    }
    Ok(true)
}
