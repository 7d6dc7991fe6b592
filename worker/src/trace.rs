//! The spans of a generation on its way through a worker.
//!
//! The stored `traceparent` is the request's. What a claim's job sets off hangs below the claim's own span: the job
//! gets a claim whose `traceparent` is that one's.

use shared::store::generations::Claim;
use shared::traces::{Kind, Span};
use time::OffsetDateTime;

use crate::context::Context;

/// When a claim begins, where somebody records it.
pub(crate) fn claiming(context: &Context) -> Option<OffsetDateTime> {
    context.traces.is_on().then(|| context.clock.now())
}

/// Records how long those that were claimed have waited, and the claim, which is one statement for all.
pub(crate) fn claimed(context: &Context, began: Option<OffsetDateTime>, claims: &[Claim]) {
    let Some(began) = began else { return };
    for claim in claims {
        let parent = claim.traceparent.as_deref();
        // Later attempts have waited for something else: a retry, a lease, a drain.
        if claim.attempt == 1
            && let Some(span) = context.traces.span(parent, Kind::Producer, "queue wait")
        {
            let mut span = span.since(claim.queued_at.min(began));
            span.set("balas.queue", claim.priority.as_str());
            describe(&mut span, claim);
            span.end_at(began);
        }
        if let Some(span) = context.traces.span(parent, Kind::Consumer, "claim") {
            let mut span = span.since(began);
            span.set(
                "balas.claim.batch",
                i64::try_from(claims.len()).unwrap_or(i64::MAX),
            );
            describe(&mut span, claim);
            span.end();
        }
    }
}

/// Begins the span of an attempt, and puts all that it sets off below it.
pub(crate) fn attempt(context: &Context, claim: &mut Claim) -> Option<Span> {
    let parent = claim.traceparent.as_deref();
    let mut span = context.traces.span(parent, Kind::Consumer, "attempt")?;
    describe(&mut span, claim);
    claim.traceparent = span.traceparent();
    Some(span)
}

/// Begins a span of what an attempt does besides asking the upstream.
pub(crate) fn step(context: &Context, claim: &Claim, name: &'static str) -> Option<Span> {
    let parent = claim.traceparent.as_deref();
    context.traces.span(parent, Kind::Internal, name)
}

fn describe(span: &mut Span, claim: &Claim) {
    span.set("balas.generation.id", claim.id.to_string());
    span.set("balas.generation.kind", claim.kind.as_str());
    span.set("balas.generation.attempt", i64::from(claim.attempt));
    span.set("gen_ai.conversation.id", claim.conversation_id.to_string());
}
