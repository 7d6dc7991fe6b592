//! A worker process from start to drain.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use platform::Platform;
use shared::clock::Clock;
use shared::figures::Figures;
use shared::knowledge::Vocabularies;
use shared::lifecycle::{Lifecycle, UNDONE};
use shared::push::{listen_for_cancels, listen_for_gates};
use shared::redis::Redis;
use shared::store::{Db, ServingRole, StoreError, fleet};
use shared::traces::Traces;
use shared::vitals;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::WorkerConfig;
use crate::context::{Context, Pace};
use crate::drain::{drain, give_all_back};
use crate::health::{Health, HealthPort};
use crate::jobs::{
    Calls, Replies, Summaries, WaitingReplies, note_calls, store_replies, summarise,
};
use crate::knowledge::{Embedder, Texts, answer_questions, ingest, keep_indexes, run_embedder};
use crate::outbound::{Outbound, Wake};
use crate::pacing::{Pacing, watch_account};
use crate::progress::Part;
use crate::queue::{
    AbortReason, Fetcher, Gates, QueueBackend, Running, Tally, reconcile, renew, watch_gates,
};
use crate::roll_call::roll_call;
use crate::tokens::{Counts, count_messages};
use crate::upstream::{Client, watch_keys, watch_models};
use crate::watchdog::{DEAF, Watchdog};
use crate::{anomalies, budgets, costs, figures, handle, inbound, maintenance, welcomes};

/// What closing may take when all jobs have ended: what remains has nothing to wait for.
const CLOSING: Duration = Duration::from_secs(2);
/// The same where jobs had to be left behind, so that the end comes within the grace and 5 s.
const LEAVING: Duration = Duration::from_millis(300);
/// How often a schema is looked at that is not known to be new enough.
const SCHEMA_EVERY: Duration = Duration::from_secs(1);
/// How long a worker that turned out to be deaf may take to give its work back.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// Runs a worker until `lifecycle` stops it and its work has ended or been given back.
///
/// # Errors
/// When the settings cannot be used.
pub async fn run(
    config: WorkerConfig,
    clock: Clock,
    lifecycle: Lifecycle,
) -> anyhow::Result<ExitCode> {
    run_watched(config, clock, lifecycle, |_| {}).await
}

/// Like [`run`]; `leave` ends the process when it turns out to be deaf.
///
/// # Errors
/// When the settings cannot be used.
pub async fn run_watched(
    config: WorkerConfig,
    clock: Clock,
    lifecycle: Lifecycle,
    leave: impl FnOnce(u8) + Send + 'static,
) -> anyhow::Result<ExitCode> {
    let (replies, waiting) = Replies::new();
    let (summaries, wishes) = Summaries::new();
    let (context, texts) = build(config, clock, replies, summaries)?;
    let context = Arc::new(context);
    let outbound = Outbound::new(&context).context("failed to use NOTIFICATION_SERVICE_URL")?;
    tracing::info!(
        worker.id = context.worker_id,
        concurrency = context.config.queue.concurrency,
        "worker starts"
    );
    let _health = open_health(&context, &lifecycle)?;
    match context.db.check_role().await {
        Err(error @ StoreError::Corrupt(_)) => return Err(error).context("refused to work"),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the database is away; work begins once it is back"
        ),
        Ok(()) => {}
    }
    // Stopped only after the last job, unlike the process's own token.
    let background = Lifecycle::new();
    start_background(&context, &background, waiting, texts);
    let summarising = summarise(Arc::clone(&context), wishes);
    background.run("summaries", until(&background, summarising));
    background.run(
        "notifications",
        outbound.run(Arc::clone(&context), background.stopping().clone()),
    );
    background.run(
        "inbound",
        inbound::run(
            Arc::clone(&context),
            lifecycle.stopping().clone(),
            background.stopping().clone(),
        ),
    );
    let _watchdog = watch(&context, leave)?;

    let (fetcher, claims) = Fetcher::new(Arc::clone(&context));
    let ends = lifecycle.clone();
    lifecycle.run("fetch", async move {
        Box::pin(fetcher.run(ends.stopping(), ends.hurry())).await;
    });
    let handling = handle::run(
        Arc::clone(&context),
        lifecycle.clone(),
        QueueBackend::new(claims),
    );
    let patience = tokio::select! {
        handled = handling => {
            handled?;
            CLOSING
        }
        () = drain(Arc::clone(&context), lifecycle.clone()) => {
            tracing::warn!(running = context.running.len(), "not waiting any longer");
            LEAVING
        }
    };
    let jobs = lifecycle.finished(patience).await;
    let rest = background.finished(CLOSING).await;
    sign_off(&context, patience).await;
    // Connections that do not take part in it are cut off.
    let _ = tokio::time::timeout(LEAVING, context.db.close()).await;
    let traces = context.traces.clone();
    let _ = tokio::task::spawn_blocking(move || traces.stop()).await;
    if !context.running.is_settled() {
        // Its leases run out, or the next start under this name frees it.
        tracing::warn!("worker stopped; not everything could be given back");
        return Ok(ExitCode::from(UNDONE));
    }
    tracing::info!("worker stopped");
    Ok(if jobs == ExitCode::SUCCESS {
        rest
    } else {
        jobs
    })
}

/// Everything that runs beside the jobs, and for longer than they.
fn start_background(
    context: &Arc<Context>,
    background: &Lifecycle,
    waiting: WaitingReplies,
    texts: Texts,
) {
    let run = |name, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
        background.run(name, until(background, task));
    };
    let shared = || Arc::clone(context);
    run("ledger", Box::pin(note_calls(shared())));
    run("tokens", Box::pin(count_messages(shared())));
    run(
        "store",
        Box::pin(store_replies(context.db.clone(), waiting)),
    );
    let embedder = Arc::clone(&context.embedder);
    run("embed", Box::pin(run_embedder(embedder, texts)));
    run("ingest", Box::pin(ingest(shared())));
    run("questions", Box::pin(answer_questions(shared())));
    run("indexes", Box::pin(keep_indexes(shared())));
    run("renew", Box::pin(renew(shared())));
    run("reconcile", Box::pin(reconcile(shared())));
    run("maintain", Box::pin(maintenance::maintain(shared())));
    run("costs", Box::pin(costs::ask_for_costs(shared())));
    run("budgets", Box::pin(budgets::watch_budgets(shared())));
    run("anomalies", Box::pin(anomalies::watch_usage(shared())));
    run("gates", Box::pin(watch_gates(shared())));
    run("figures", Box::pin(figures::add_for_ever(shared())));
    run("welcomes", Box::pin(welcomes::mend(shared())));
    let asking = shared();
    let models = async move { watch_models(&asking.upstream).await };
    run("models", Box::pin(models));
    let rotating = shared();
    let keys = async move { watch_keys(&rotating.upstream).await };
    run("keys", Box::pin(keys));
    run("account", Box::pin(watch_account(shared())));
    let watching = vitals::watch(context.db.clone(), context.redis.clone());
    run("vitals", Box::pin(watching));
    run("schema", Box::pin(watch_schema(shared())));
    let progress = Arc::clone(&context.progress);
    run("beat", Box::pin(async move { progress.beat().await }));
    let looking = shared();
    let gates = listen_for_gates(context.redis.clone(), move || looking.gates.look());
    run("gate changes", Box::pin(gates));
    let aborting = shared();
    let on_cancel = move |id| {
        aborting.running.abort(id, AbortReason::Lost);
        // Whoever cancelled it tells nobody of it; who runs it, if anybody, is not known.
        aborting.wake.wake();
    };
    let cancels = listen_for_cancels(context.redis.clone(), on_cancel);
    run("cancels", Box::pin(cancels));
    background.spawn(until(background, roll_call(shared())));
}

/// Looks until the schema is as new as this version, which it then stays.
async fn watch_schema(context: Arc<Context>) {
    loop {
        match context.db.schema_is_current().await {
            Ok(true) => {
                context.progress.schema_is_current();
                return std::future::pending().await;
            }
            Ok(false) => {
                tracing::warn!("the schema is older than this version; run balas-api migrate")
            }
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "not known whether the schema is new enough"
            ),
        }
        tokio::time::sleep(SCHEMA_EVERY).await;
    }
}

fn open_health(context: &Context, lifecycle: &Lifecycle) -> anyhow::Result<Option<HealthPort>> {
    let Some(address) = context.config.health_address else {
        return Ok(None);
    };
    let health = Health {
        metrics: context.config.enable_metrics,
        progress: Arc::clone(&context.progress),
        stopping: lifecycle.stopping().clone(),
    };
    let port = HealthPort::open(address, health)
        .with_context(|| format!("failed to listen on {address}, HEALTH_ADDRESS"))?;
    tracing::info!(server.address = %port.address(), "health port is open");
    Ok(Some(port))
}

fn watch(
    context: &Arc<Context>,
    leave: impl FnOnce(u8) + Send + 'static,
) -> anyhow::Result<Option<Watchdog>> {
    let timeout = context.config.watchdog;
    if timeout.is_zero() {
        return Ok(None);
    }
    let (deaf, runtime) = (Arc::clone(context), tokio::runtime::Handle::current());
    let bark = move |part: Part| {
        // Whatever stands still may hold the log or the database, so nobody waits for either for long.
        let (done, finished) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move {
            give_all_back(deaf).await;
            drop(done);
        });
        let tell = move || {
            tracing::error!(
                ?part,
                timeout_s = timeout.as_secs(),
                exit_code = DEAF,
                "no progress: this worker is deaf and ends itself"
            );
        };
        let _ = std::thread::Builder::new().spawn(tell);
        let _ = finished.recv_timeout(LAST_WORDS);
        leave(DEAF);
    };
    Watchdog::start(Arc::clone(&context.progress), timeout, bark)
        .map(Some)
        .context("failed to start the watchdog")
}

fn build(
    config: WorkerConfig,
    clock: Clock,
    replies: Replies,
    summaries: Summaries,
) -> anyhow::Result<(Context, Texts)> {
    let db =
        Db::connect_lazy(&config.db, ServingRole::Worker).context("failed to use DATABASE_URL")?;
    let redis = Redis::connect_lazy(&config.redis).context("failed to use REDIS_URL")?;
    let version = env!("CARGO_PKG_VERSION");
    let traces = Traces::start(&config.traces, "balas-worker", version, clock.clone())?;
    let upstream = Client::new(config.upstream.clone(), clock.clone())
        .context("failed to build the upstream client")?
        .traced(traces.clone());
    let platform = Platform::new(&config.platform).context("failed to use ARCHIVE_SERVICE_URL")?;
    let account = account_name(&config);
    let pacing =
        Pacing::new(redis.clone(), &config.pacing, &account).beside(&config.upstream.providers);
    let figures = Arc::new(Figures::default());
    let (embedder, texts) = Embedder::new(
        config.embedding.clone(),
        &config.pacing,
        db.clone(),
        redis.clone(),
        clock.clone(),
        Arc::clone(&figures),
    )
    .context("failed to build the embedding client")?;
    let boot = Uuid::new_v4();
    let context = Context {
        worker_id: format!("{}/{boot}", config.queue.name),
        boot,
        config,
        clock,
        db,
        redis,
        traces,
        upstream,
        platform,
        pacing,
        embedder: Arc::new(embedder),
        vocabularies: Vocabularies::default(),
        running: Running::default(),
        gates: Gates::default(),
        tally: Tally::default(),
        figures,
        pace: Pace::default(),
        calls: Calls::default(),
        counts: Counts::default(),
        replies,
        summaries,
        wake: Wake::default(),
        progress: Arc::default(),
        called: Notify::new(),
    };
    Ok((context, texts))
}

/// Names the account in Redis: whose limits these are does not change with the key that is used.
fn account_name(config: &WorkerConfig) -> String {
    let url = config.upstream.base_url.as_str();
    let mut name = shared::crypto::hex(&shared::crypto::sha256(&[url.as_bytes()]));
    name.truncate(8);
    name
}

/// Tells the register that this worker has ended; without it, the worker counts as lost.
async fn sign_off(context: &Context, patience: Duration) {
    let signing = async {
        // What nobody has counted is no reason to count as lost.
        let _ = figures::add(context).await;
        let mut tx = context.db.sweep().await?;
        fleet::stopped(&mut tx, context.boot).await?;
        tx.commit().await
    };
    if !matches!(tokio::time::timeout(patience, signing).await, Ok(Ok(()))) {
        tracing::debug!("the register of workers was not told of the end");
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
