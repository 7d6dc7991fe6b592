//! The adapter to apalis: each claim becomes a task of its own, and no outcome of it is an error of
//! the worker.

use std::sync::Arc;
use std::time::Duration;

use apalis_core::task::data::Data;
use apalis_core::worker::builder::WorkerBuilder;
use shared::lifecycle::Lifecycle;
use shared::store::generations::{self, Claim};

use crate::context::Context;
use crate::jobs;
use crate::queue::{Job, QueueBackend};
use crate::trace;

/// How long a generation waits after its job panicked, times the attempts so far.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Runs the apalis worker until the fetcher has stopped and every job has ended.
///
/// # Errors
/// When apalis gives up, which this backend gives it no reason for.
pub async fn run(
    context: Arc<Context>,
    lifecycle: Lifecycle,
    backend: QueueBackend,
) -> Result<(), apalis_core::error::WorkerError> {
    WorkerBuilder::new(context.config.queue.name.clone())
        .backend(backend)
        .data(context)
        .data(lifecycle)
        .build(handle)
        .run()
        .await
}

/// apalis polls all its handlers from one task; a task of our own per job uses every core.
async fn handle(job: Job, context: Data<Arc<Context>>, lifecycle: Data<Lifecycle>) {
    let context = Arc::clone(&context);
    context.progress.begun();
    let Job { mut claim, place } = job;
    let history = std::mem::take(&mut claim.history);
    let span = trace::attempt(&context, &mut claim);
    let claim = Arc::new(claim);
    let work = {
        let (context, claim) = (Arc::clone(&context), Arc::clone(&claim));
        lifecycle.spawn(async move {
            let _counted = context.tally.begin(claim.priority);
            let job = Box::pin(jobs::run(&context, &claim, history));
            let job = jobs::measured(&claim, span, job);
            context.progress.watched(claim.token, job).await;
        })
    };
    if let Err(error) = work.await {
        tracing::error!(generation.id = %claim.id, %error, "a job panicked");
        after_panic(&context, &claim).await;
    }
    drop(place);
}

/// Puts the generation back, counting the attempt, so that one that always panics is given up.
async fn after_panic(context: &Context, claim: &Claim) {
    let delay = AFTER_PANIC * claim.counted_attempts.unsigned_abs();
    if claim.counted_attempts >= claim.max_attempts {
        jobs::give_up(
            context,
            claim,
            shared::domain::FailureCode::Internal,
            "the job panicked",
        )
        .await;
        return;
    }
    context.tally.put_back(claim.priority);
    let put_back = async {
        let mut tx = context.db.sweep().await?;
        let done = generations::retry_later(
            &mut tx,
            claim.id,
            claim.token,
            delay,
            false,
            "the job panicked",
        )
        .await?;
        tx.commit().await?;
        Ok::<_, shared::store::StoreError>(done)
    };
    if let Err(error) = put_back.await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "not put back; the lease will run out"
        );
    }
}
