//! Keeping the leases of everything this worker runs, and its place in the register.

use std::sync::Arc;
use std::time::Duration;

use shared::store::fleet::{self, Beat};
use shared::store::{StoreResult, SweepTx, generations};
use tokio::time::MissedTickBehavior;

use crate::context::Context;

/// A renewal that takes longer has met a connection that is dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// Renews for ever, also while the worker drains.
pub async fn renew(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(context.config.queue.renew_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let turn = async {
            tokio::select! {
                _ = ticks.tick() => {}
                () = context.called.notified() => {}
            }
        };
        context.progress.renewing(turn).await;
        let claims = context.running.claims();
        metrics::gauge!(shared::metrics::IN_FLIGHT).set(claims.len() as f64);
        let renewed = tokio::time::timeout(PATIENCE, renew_once(&context, &claims)).await;
        context.progress.renewed(matches!(renewed, Ok(Ok(_))));
        match renewed {
            Ok(Ok(renewed)) => context.running.abort_lost(&claims, &renewed),
            // Nobody can take the rows over while the database is away, so the jobs go on.
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "leases not renewed"
            ),
            Err(_) => tracing::warn!("leases not renewed: the database does not answer"),
        }
    }
}

async fn renew_once(
    context: &Context,
    claims: &[(uuid::Uuid, uuid::Uuid)],
) -> StoreResult<Vec<uuid::Uuid>> {
    let mut tx = context.db.sweep_async().await?;
    let renewed = match claims {
        [] => Vec::new(),
        claims => generations::renew(&mut tx, claims, context.config.queue.lease).await?,
    };
    beat(context, &mut tx).await?;
    tx.commit().await?;
    Ok(renewed)
}

/// Signs the register of workers.
pub(crate) async fn beat(context: &Context, tx: &mut SweepTx) -> StoreResult<()> {
    let score = context.tally.score();
    let settings = &context.config.queue;
    let places = f64::from(settings.concurrency);
    let beat = Beat {
        boot: context.boot,
        name: &settings.name,
        version: env!("CARGO_PKG_VERSION"),
        up: score.up,
        draining: score.draining,
        concurrency: i32::try_from(settings.concurrency).unwrap_or(i32::MAX),
        lease: settings.lease,
        in_flight: i32::try_from(score.running).unwrap_or(i32::MAX),
        rates: score.rates,
        capacity: score
            .mean
            .filter(|mean| *mean > 0.0)
            .map(|mean| places / mean),
    };
    fleet::beat(tx, &beat).await
}
