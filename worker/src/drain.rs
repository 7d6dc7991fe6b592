//! The end of a worker: what runs may finish within its grace, the rest is given back.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::Priority;
use shared::lifecycle::Lifecycle;
use shared::queue::push_front;
use shared::store::{StoreResult, generations};
use tokio::time::Instant;
use uuid::Uuid;

use crate::context::Context;
use crate::queue::AbortReason;

/// How long giving back may take, ...
const GIVING_BACK: Duration = Duration::from_secs(3);
/// ... and how long after the grace what is being stored at that time may take.
const STORING: Duration = Duration::from_secs(4);

/// After the stop: running jobs get the grace, or until the second signal; what then still runs is
/// put back in one statement, so that other workers continue at once, and aborted. Replies that are
/// about to be stored may still be. Returns when nobody is waited for any longer.
pub(crate) async fn drain(context: Arc<Context>, lifecycle: Lifecycle) {
    lifecycle.stopping().cancelled().await;
    context.tally.drain();
    let grace = context.config.queue.drain_grace;
    tracing::info!(
        running = context.running.len(),
        grace_s = grace.as_secs(),
        "draining"
    );
    let _ = tokio::time::timeout(grace, lifecycle.hurry().cancelled()).await;
    let patience = Instant::now() + STORING;
    let claims = context.running.close();
    // A task of its own: the jobs may end, and with them this drain, before the hints are given.
    let giving = Arc::clone(&context);
    let given = lifecycle.spawn(async move {
        give_back(&giving, &claims).await;
        for (id, _) in claims {
            giving.running.abort(id, AbortReason::Drained);
        }
    });
    let _ = given.await;
    tokio::time::sleep_until(patience).await;
}

/// Gives claims back, and tells the others.
pub(crate) async fn give_back(context: &Context, claims: &[(Uuid, Uuid)]) {
    if claims.is_empty() {
        return;
    }
    match tokio::time::timeout(GIVING_BACK, release(context, claims)).await {
        Ok(Ok(released)) => {
            tracing::info!(count = released.len(), "gave running work back");
            if let Err(failure) = push_front(&context.redis, released).await {
                tracing::debug!(%failure, "not pushed; the sweeps will find it");
            }
        }
        Ok(Err(error)) => {
            context.running.not_given_back();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "work not given back; its leases will run out"
            );
        }
        Err(_) => {
            context.running.not_given_back();
            tracing::warn!("work not given back in time; its leases will run out");
        }
    }
}

/// Gives everything back that this worker holds, because it is about to leave without a drain.
pub(crate) async fn give_all_back(context: Arc<Context>) {
    context.running.close();
    give_back(&context, &context.running.claims()).await;
}

async fn release(context: &Context, claims: &[(Uuid, Uuid)]) -> StoreResult<Vec<(Uuid, Priority)>> {
    let mut tx = context.db.sweep().await?;
    let released = generations::release(&mut tx, claims).await?;
    tx.commit().await?;
    Ok(released)
}
