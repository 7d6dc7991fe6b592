//! The slow clocks: partitions ahead of time, expiry.

use std::sync::Arc;
use std::time::Duration;

use shared::store::knowledge::{ingestions, reindex};
use shared::store::{StoreResult, budgets, costs, fleet, inbox, maintenance, notifications};

use crate::context::Context;
use crate::retention::{self, Expired};

/// Keys removed in one pass.
const BATCH: i64 = 5_000;

/// Maintains for ever, now and then every ten minutes; one worker at a time.
pub async fn maintain(context: Arc<Context>) {
    loop {
        match pass(&context).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!("another worker maintains"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "maintenance failed"
            ),
        }
        match retention::pass(&context).await {
            Ok(Some(expired)) if expired != Expired::default() => {
                tracing::info!(?expired, "what is older than the retention period is gone");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "not everything that is older than the retention period is gone"
            ),
        }
        tokio::time::sleep(Duration::from_mins(10)).await;
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
