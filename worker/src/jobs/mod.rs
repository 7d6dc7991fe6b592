//! What a worker does with a claim: one file per kind of job.
//!
//! A job never returns an error to its runner: whatever happens ends in a statement guarded by the
//! claim's token, or in a lease that runs out.

mod afford;
mod ask;
mod book;
mod calls;
mod events;
mod finish;
mod generate;
mod judge;
mod meter;
mod persist;
mod replies;
mod summary;
mod support;
mod title;
mod welcome;

pub(crate) use book::micro_credits;
pub use calls::{Calls, note_calls};
pub(crate) use finish::completed;
pub(crate) use meter::attempt as measured;
pub use replies::{Replies, WaitingReplies, store_replies};
pub use summary::{Summaries, WishedSummaries, summarise};
pub(crate) use welcome::composed;

use std::time::Duration;

use shared::domain::{ContextType, FailureCode, GenerationError, GenerationKind};
use shared::push::Ended;
use shared::store::generations::{self, Claim, Failed, History};
use shared::traces::TraceParent;

use crate::context::Context;
use crate::drain;
use crate::figures;
use crate::pacing::{Asker, Paced};
use crate::queue::{AbortReason, RunningJob};
use crate::trace;
use meter::ended as count;

/// How long a kind of work that this version does not know waits for a newer worker.
const FOR_A_NEWER_VERSION: Duration = Duration::from_secs(5);

/// Does the work of a claim, whose history is apart from it, so that it is gone once the prompt is
/// built.
pub async fn run(context: &Context, claim: &Claim, history: History) {
    let Some(job) = context.running.start(claim.id, claim.token) else {
        return drain::give_back(context, &[(claim.id, claim.token)]).await;
    };
    let pickup = (context.clock.now() - claim.queued_at)
        .as_seconds_f64()
        .max(0.0);
    if claim.attempt == 1 {
        metrics::histogram!(shared::metrics::PICKUP).record(pickup);
    }
    match claim.kind {
        // Whatever way a message came into a conversation of the help desk, it is looked up.
        GenerationKind::Reply | GenerationKind::Regenerate | GenerationKind::Support
            if claim.context_type == ContextType::Support =>
        {
            // Boxed, so that the jobs of all others are not as large as this one.
            Box::pin(support::run(context, claim, history, &job)).await
        }
        GenerationKind::Reply | GenerationKind::Regenerate => {
            generate::run(context, claim, history, &job, None).await
        }
        GenerationKind::Title => title::run(context, claim, &job).await,
        GenerationKind::Welcome => welcome::run(context, claim, &job).await,
        GenerationKind::Support => {
            tracing::warn!(generation.id = %claim.id, kind = %claim.kind, "this version cannot make it");
            put_back(
                context,
                claim,
                FOR_A_NEWER_VERSION,
                true,
                "no worker of this version can make it",
            )
            .await;
        }
    }
}

/// Puts the claim back to be tried after `delay`; `forgive` leaves the attempt uncounted.
async fn put_back(context: &Context, claim: &Claim, delay: Duration, forgive: bool, reason: &str) {
    count("put_back");
    context.tally.put_back(claim.priority);
    let stored = persist::until_stored(claim, || async {
        let mut tx = context.db.sweep().await?;
        let done = generations::retry_later(&mut tx, claim.id, claim.token, delay, forgive, reason)
            .await?;
        tx.commit().await?;
        Ok(done)
    });
    stored.await;
}

/// What the fleet is asked in the name of a claim.
fn paced<'a>(context: &'a Context, claim: &Claim) -> Paced<'a> {
    Paced {
        pacing: &context.pacing,
        asker: Asker {
            id: claim.id,
            priority: claim.priority,
        },
    }
}

/// Tries of a generation whose models all fail. They take some ten seconds together: a hiccup of the
/// upstream is over by then, and whoever waits for longer is better served by an error that says so.
const ROUNDS: i32 = 3;

fn is_last_round(claim: &Claim) -> bool {
    claim.counted_attempts >= claim.max_attempts.min(ROUNDS)
}

/// Ends the generation without a reply and tells everybody.
pub(crate) async fn give_up(context: &Context, claim: &Claim, code: FailureCode, detail: &str) {
    let step = trace::step(context, claim, "finish");
    let failed = persist::until_stored(claim, || async {
        let mut tx = context.db.user(claim.user_id).await?;
        let failed = generations::fail(&mut tx, claim.id, claim.token, code, detail).await?;
        tx.commit().await?;
        Ok(failed)
    });
    let Some(Failed::Stored(next)) = failed.await else {
        count("fenced");
        return;
    };
    if let Some(span) = step {
        span.end();
    }
    count("failed");
    context.wake.wake();
    metrics::counter!(shared::metrics::DEAD_LETTERS, "kind" => claim.kind.as_str()).increment(1);
    let is_support = claim.context_type == ContextType::Support;
    figures::reply_ended(context, claim.kind, is_support, claim.queued_at, true);
    tracing::warn!(
        generation.id = %claim.id,
        conversation.id = %claim.conversation_id,
        user.id = %claim.user_id,
        request.id = claim.request_id,
        trace.id = trace_id(claim),
        kind = %claim.kind,
        attempt = claim.attempt,
        code = %code,
        detail,
        "generation failed"
    );
    // Nobody follows a title.
    if claim.kind == GenerationKind::Title {
        return;
    }
    let error = GenerationError::from(code);
    let event = Ended::Failed {
        error: Some(&error),
    }
    .event(
        claim.id,
        claim.conversation_id,
        attempt(claim),
        context.clock.now(),
    );
    let log = events::writer(context, claim);
    events::end(&log, &event, &next).await;
}

/// Waits for whichever comes first: the work, or the order to stop it, which drops the work and so
/// closes the upstream's connection.
async fn unless_aborted<T>(
    job: &RunningJob<'_>,
    work: impl Future<Output = T>,
) -> Result<T, AbortReason> {
    tokio::select! {
        done = work => {
            job.ending();
            Ok(done)
        }
        reason = job.aborted() => Err(reason),
    }
}

fn attempt(claim: &Claim) -> u32 {
    u32::try_from(claim.attempt).unwrap_or(1)
}

/// The trace that the request began, for the log.
fn trace_id(claim: &Claim) -> Option<String> {
    let trace = TraceParent::parse(claim.traceparent.as_deref()?)?;
    Some(trace.trace_id())
}
