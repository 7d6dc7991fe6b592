//! What is measured of an attempt and of its calls.

use std::cell::Cell;
use std::time::Instant;

use shared::domain::{Priority, Usage};
use shared::metrics::{
    ATTEMPTS, FREE_ERRORS, FREE_REQUESTS, FREE_RESPONSE_TIME, GENERATION_DURATION, TOKEN_USAGE,
    UPSTREAM_COST,
};
use shared::store::generations::Claim;
use shared::traces::Span;

use crate::upstream::{CallRecord, ErrorClass};

tokio::task_local! {
    /// How the attempt ended that this task is about; the last word counts.
    static OUTCOME: Cell<Option<&'static str>>;
}

/// Measures an attempt from here to its end.
pub(crate) async fn attempt(claim: &Claim, span: Option<Span>, job: impl Future<Output = ()>) {
    let model = claim.chain.first().map(|model| model.name.clone());
    let began = Instant::now();
    let outcome = OUTCOME.scope(Cell::new(None), async {
        job.await;
        OUTCOME.with(Cell::get)
    });
    let Some(outcome) = outcome.await else {
        // Given back before it began, or left to whoever owns it.
        if let Some(span) = span {
            span.end();
        }
        return;
    };
    metrics::histogram!(
        GENERATION_DURATION,
        "model" => model.unwrap_or_default(), "outcome" => outcome
    )
    .record(began.elapsed());
    if let Some(mut span) = span {
        span.set("balas.outcome", outcome);
        if outcome == "failed" {
            span.fail(outcome);
        }
        span.end();
    }
}

/// Counts how an attempt ended.
pub(super) fn ended(outcome: &'static str) {
    metrics::counter!(ATTEMPTS, "outcome" => outcome).increment(1);
    // Outside of an attempt nothing is measured: a job that panicked is given up after it.
    let _ = OUTCOME.try_with(|ended| ended.set(Some(outcome)));
}

/// Counts what a call spent. `model` is the one that was asked for, of which there are few.
pub(super) fn spent(model: &str, operation: &'static str, usage: &Usage, wasted: bool) {
    for (kind, tokens) in [
        ("prompt", usage.prompt_tokens),
        ("completion", usage.completion_tokens),
    ] {
        metrics::counter!(TOKEN_USAGE, "model" => model.to_owned(), "type" => kind)
            .increment(u64::try_from(tokens).unwrap_or(0));
    }
    metrics::counter!(
        UPSTREAM_COST,
        "model" => model.to_owned(), "operation" => operation,
        "wasted" => if wasted { "true" } else { "false" }
    )
    .increment(super::book::micro_credits(usage.cost_credits));
}

/// Counts a call of a free model.
pub(super) fn free(priority: Priority, record: &CallRecord) {
    if !record.model.free {
        return;
    }
    let model = || record.model.name.clone();
    let success = if record.error.is_none() {
        "true"
    } else {
        "false"
    };
    metrics::counter!(
        FREE_REQUESTS,
        "model" => model(), "user_tier" => tier(priority), "success" => success
    )
    .increment(1);
    match record.error.map(ErrorClass::as_str) {
        Some(class) => {
            metrics::counter!(FREE_ERRORS, "model" => model(), "error_type" => class).increment(1);
        }
        None => {
            let took = (record.finished_at - record.started_at).as_seconds_f64();
            metrics::histogram!(FREE_RESPONSE_TIME, "model" => model()).record(took.max(0.0));
        }
    }
}

/// Whose call it was, as far as the queue tells: whose the background's titles are is not known.
fn tier(priority: Priority) -> &'static str {
    match priority {
        Priority::Premium => "premium",
        Priority::Standard => "free",
        Priority::Background => "background",
    }
}
