//! Keeping the leases of everything this worker runs.

use std::sync::Arc;

use shared::store::{StoreResult, generations};
use tokio::time::MissedTickBehavior;

use crate::context::Context;

/// Renews for ever, also while the worker drains.
pub async fn renew(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.config.queue.renew_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let claims = context.running.claims();
        metrics::gauge!(shared::metrics::IN_FLIGHT).set(claims.len() as f64);
        if claims.is_empty() {
            continue;
        }
        match renew_once(&context, &claims).await {
            Ok(renewed) => context.running.abort_lost(&claims, &renewed),
            // Nobody can take the rows over while the database is away, so the jobs go on.
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "leases not renewed"
            ),
        }
    }
}

async fn renew_once(
    context: &Context,
    claims: &[(uuid::Uuid, uuid::Uuid)],
) -> StoreResult<Vec<uuid::Uuid>> {
    let mut tx = context.db.sweep_async().await?;
    let renewed = generations::renew(&mut tx, claims, context.config.queue.lease).await?;
    tx.commit().await?;
    Ok(renewed)
}
