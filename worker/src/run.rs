//! A worker process from start to drain.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use shared::clock::Clock;
use shared::lifecycle::Lifecycle;
use shared::push::{listen_for_cancels, listen_for_gates};
use shared::redis::Redis;
use shared::store::{Db, ServingRole, StoreResult, fleet, generations};
use uuid::Uuid;

use crate::config::WorkerConfig;
use crate::context::{Context, Pace};
use crate::jobs::{Calls, Replies, note_calls, store_replies};
use crate::outbound::{Outbound, Wake};
use crate::queue::{
    AbortReason, Fetcher, Gates, QueueBackend, Running, Tally, reconcile, renew, watch_gates,
};
use crate::upstream::Client;
use crate::{handle, maintenance};

/// What is left of the grace for giving work back and closing.
const CLOSING: Duration = Duration::from_secs(5);
/// The last word to the register may take so long.
const SIGN_OFF: Duration = Duration::from_secs(1);

/// Runs a worker until `lifecycle` stops it and its work has ended or been given back.
///
/// # Errors
/// When the settings cannot be used.
pub async fn run(
    config: WorkerConfig,
    clock: Clock,
    lifecycle: Lifecycle,
) -> anyhow::Result<ExitCode> {
    let (replies, waiting) = Replies::new();
    let context = Arc::new(build(config, clock, replies)?);
    let outbound = Outbound::new(&context).context("failed to use NOTIFICATION_SERVICE_URL")?;
    tracing::info!(
        worker.id = context.worker_id,
        concurrency = context.config.queue.concurrency,
        "worker starts"
    );
    if let Err(error) = start(&context).await {
        // The sweeps will do it; a worker must not need the database to boot.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "predecessor's work not freed"
        );
    }
    // Stopped only after the last job, unlike the process's own token.
    let background = Lifecycle::new();
    background.run(
        "ledger",
        until(&background, note_calls(Arc::clone(&context))),
    );
    background.run(
        "store",
        until(&background, store_replies(context.db.clone(), waiting)),
    );
    background.run("renew", until(&background, renew(Arc::clone(&context))));
    background.run(
        "reconcile",
        until(&background, reconcile(Arc::clone(&context))),
    );
    background.run(
        "maintain",
        until(&background, maintenance::maintain(Arc::clone(&context))),
    );
    background.run(
        "gates",
        until(&background, watch_gates(Arc::clone(&context))),
    );
    background.run(
        "notifications",
        outbound.run(Arc::clone(&context), background.stopping().clone()),
    );
    let looking = Arc::clone(&context);
    background.run(
        "gate changes",
        until(
            &background,
            listen_for_gates(context.redis.clone(), move || looking.gates.look()),
        ),
    );
    let aborting = Arc::clone(&context);
    let on_cancel = move |id| aborting.running.abort(id, AbortReason::Lost);
    background.run(
        "cancels",
        until(
            &background,
            listen_for_cancels(context.redis.clone(), on_cancel),
        ),
    );

    let (fetcher, claims) = Fetcher::new(Arc::clone(&context));
    let stopping = lifecycle.stopping().clone();
    lifecycle.run("fetch", fetcher.run(stopping));
    let drain = lifecycle.spawn(drain(Arc::clone(&context), lifecycle.clone()));
    handle::run(
        Arc::clone(&context),
        lifecycle.clone(),
        QueueBackend::new(claims),
    )
    .await?;
    lifecycle.stop();
    drain.abort();
    let jobs = lifecycle.finished(CLOSING).await;
    let rest = background.finished(CLOSING).await;
    sign_off(&context).await;
    context.db.close().await;
    tracing::info!("worker stopped");
    Ok(if jobs == ExitCode::SUCCESS {
        rest
    } else {
        jobs
    })
}

fn build(config: WorkerConfig, clock: Clock, replies: Replies) -> anyhow::Result<Context> {
    let db =
        Db::connect_lazy(&config.db, ServingRole::Worker).context("failed to use DATABASE_URL")?;
    let redis = Redis::connect_lazy(&config.redis).context("failed to use REDIS_URL")?;
    let upstream = Client::new(config.upstream.clone(), clock.clone())
        .context("failed to build the upstream client")?;
    let boot = Uuid::new_v4();
    Ok(Context {
        worker_id: format!("{}/{boot}", config.queue.name),
        boot,
        config,
        clock,
        db,
        redis,
        upstream,
        running: Running::default(),
        gates: Gates::default(),
        tally: Tally::default(),
        pace: Pace::default(),
        calls: Calls::default(),
        replies,
        wake: Wake::default(),
    })
}

/// Frees at once what an earlier life of this worker still holds.
async fn start(context: &Context) -> StoreResult<()> {
    context.db.check_role().await?;
    let mut tx = context.db.sweep().await?;
    let freed =
        generations::free_predecessor(&mut tx, &context.config.queue.name, &context.worker_id)
            .await?;
    fleet::succeed(&mut tx, &context.config.queue.name, context.boot).await?;
    tx.commit().await?;
    if !freed.is_empty() {
        tracing::info!(count = freed.len(), "freed what the predecessor held");
        push_front(context, freed).await;
    }
    Ok(())
}

/// Tells the register that this worker has ended; without it, the worker counts as lost.
async fn sign_off(context: &Context) {
    let signing = async {
        let mut tx = context.db.sweep().await?;
        fleet::stopped(&mut tx, context.boot).await?;
        tx.commit().await
    };
    if !matches!(tokio::time::timeout(SIGN_OFF, signing).await, Ok(Ok(()))) {
        tracing::debug!("the register of workers was not told of the end");
    }
}

/// After the stop: running jobs get the grace, or until the second signal; what then still runs is
/// put back in one statement, so that other workers continue at once, and aborted.
async fn drain(context: Arc<Context>, lifecycle: Lifecycle) {
    lifecycle.stopping().cancelled().await;
    context.tally.drain();
    let grace = context.config.queue.drain_grace;
    tracing::info!(
        running = context.running.len(),
        grace_s = grace.as_secs(),
        "draining"
    );
    let _ = tokio::time::timeout(grace, lifecycle.hurry().cancelled()).await;
    let claims = context.running.claims();
    match release(&context, &claims).await {
        Ok(released) => {
            tracing::info!(count = released.len(), "gave running work back");
            push_front(&context, released).await;
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "work not given back; its leases will run out"
            );
        }
    }
    for (id, _) in claims {
        context.running.abort(id, AbortReason::Drained);
    }
}

async fn release(
    context: &Context,
    claims: &[(Uuid, Uuid)],
) -> StoreResult<Vec<(Uuid, shared::domain::Priority)>> {
    let mut tx = context.db.sweep().await?;
    let released = generations::release(&mut tx, claims).await?;
    tx.commit().await?;
    Ok(released)
}

async fn push_front(context: &Context, ready: Vec<(Uuid, shared::domain::Priority)>) {
    if let Err(failure) = shared::queue::push_front(&context.redis, ready).await {
        tracing::debug!(%failure, "not pushed; the sweeps will find it");
    }
}

/// A task that ends with its lifecycle.
fn until<T: Future<Output = ()>>(
    lifecycle: &Lifecycle,
    task: T,
) -> impl Future<Output = ()> + use<T> {
    let stopping = lifecycle.stopping().clone();
    async move {
        let _ = stopping.run_until_cancelled(task).await;
    }
}
