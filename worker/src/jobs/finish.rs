//! Storing a reply: a transaction shared with others, then one round trip to tell everybody.

use std::sync::Arc;

use serde_json::{Value, json};
use shared::domain::{
    ContextType, ContextUse, Generation, GenerationStatus, Message, TEMPLATE, Usage,
};
use shared::id;
use shared::push::{Ended, LogWriter, terminal_event};
use shared::store::generations::{self, Claim, Finish, Finished, Next};
use shared::store::{StoreError, StoreResult};
use uuid::Uuid;

use super::book::{Book, since};
use super::replies::Together;
use super::{attempt, count, events, persist};
use crate::context::Context;
use crate::figures;
use crate::tokens::tokens;
use crate::trace;
use crate::upstream::{Answer, Model, TokenUsage};

/// Stores the answer, or books it as wasted where somebody else owns the row.
///
/// A commit whose answer was lost is run again; the second time the token no longer matches, and
/// the row tells whether it was our own reply that ended it.
pub(super) async fn store(
    context: &Context,
    claim: &Claim,
    book: &Book<'_>,
    answer: &Answer,
    shown: &ContextUse,
    log: &LogWriter,
    support: Option<Value>,
) {
    let usage = usage(context, book, answer);
    let mut metadata = json!({ "model": usage.model, "finish_reason": answer.finish_reason });
    if let Some(support) = support {
        metadata["support"] = support;
    }
    let content = answer.text.clone();
    let reply = Arc::new(Finish {
        context: Some(*shown),
        ..written(context, claim, book, answer, content, usage, metadata)
    });
    let step = trace::step(context, claim, "finish");
    let stored = persist::until_stored(claim, || together(context, claim, &reply)).await;
    if let Some(span) = step {
        span.end();
    }
    let is_new = tell(
        context,
        claim,
        &answer.model.name,
        &reply,
        stored,
        book,
        log,
    )
    .await;
    if is_new && is_full(shown) && context.config.summary_model.is_some() {
        context.summaries.wish(claim);
    }
}

/// What a model wrote, as it is stored.
pub(super) fn written(
    context: &Context,
    claim: &Claim,
    book: &Book<'_>,
    answer: &Answer,
    content: String,
    usage: Usage,
    metadata: Value,
) -> Finish {
    let reply = unwritten(context, (claim.id, claim.token), content, usage, metadata);
    Finish {
        incomplete: answer.incomplete,
        first_token_ms_ago: answer.first_token_at.map(|at| since(&context.clock, at)),
        usage_id: book.answered_id().unwrap_or(reply.usage_id),
        call: book.answered(false),
        ..reply
    }
}

/// What no model wrote, as it is stored by the claim of a generation: its id and token.
pub(crate) fn unwritten(
    context: &Context,
    (id, token): (Uuid, Uuid),
    content: String,
    usage: Usage,
    metadata: Value,
) -> Finish {
    let now = context.clock.now();
    let reply_id = id::new_after(now, Some(id));
    Finish {
        id,
        token,
        reply_id,
        usage_id: id::new(now),
        title_generation_id: id::new_after(now, Some(reply_id)),
        content,
        incomplete: false,
        usage,
        context: None,
        first_token_ms_ago: None,
        metadata,
        call: None,
    }
}

/// Tells everybody what became of a reply by this model. Whether it was stored just now.
pub(super) async fn tell(
    context: &Context,
    claim: &Claim,
    model: &str,
    reply: &Finish,
    stored: Option<Stored>,
    book: &Book<'_>,
    log: &LogWriter,
) -> bool {
    match stored {
        Some(Stored::Now(Finished::Stored {
            message,
            next,
            title,
        })) => {
            done(context, claim, model, &reply.usage, book);
            let event = completed(reply, &message).event(
                claim.id,
                claim.conversation_id,
                attempt(claim),
                context.clock.now(),
            );
            let wake: Vec<Next> = next.into_iter().chain(title).collect();
            events::end(log, &event, &wake).await;
            true
        }
        Some(Stored::Before(generation)) => {
            done(context, claim, model, &reply.usage, book);
            // What may run next is found by the sweeps.
            if let Some(event) = terminal_event(&generation) {
                events::end(log, &event, &[]).await;
            }
            false
        }
        Some(Stored::Now(Finished::Fenced) | Stored::Fenced) => {
            count("fenced");
            tracing::info!(generation.id = %claim.id, attempt = claim.attempt, "reply discarded: the claim was lost");
            book.book_wasted(&reply.usage).await;
            false
        }
        None => false,
    }
}

/// The end of a generation that this is the reply of.
pub(crate) fn completed<'a>(reply: &'a Finish, message: &'a Message) -> Ended<'a> {
    let status = if reply.incomplete {
        GenerationStatus::Incomplete
    } else {
        GenerationStatus::Completed
    };
    Ended::Completed {
        status,
        message: Some(message),
        usage: Some(&reply.usage),
    }
}

/// Whether the next prompts will have to leave something out, or this one did: three quarters are used.
fn is_full(shown: &ContextUse) -> bool {
    shown.dropped > 0 || shown.used.saturating_mul(4) >= shown.budget.saturating_mul(3)
}

/// What is stored in place of an answer that no model gave: it cost nothing.
pub(super) fn template(text: String) -> Answer {
    Answer {
        text,
        incomplete: false,
        finish_reason: "stop".to_owned(),
        model: Model::new(TEMPLATE, true),
        model_served: TEMPLATE.to_owned(),
        upstream_id: None,
        usage: Some(TokenUsage {
            cost: Some(rust_decimal::Decimal::ZERO),
            ..TokenUsage::default()
        }),
        first_token_at: None,
    }
}

/// Stores a reply with those that other jobs have ready.
async fn together(context: &Context, claim: &Claim, reply: &Arc<Finish>) -> StoreResult<Stored> {
    match context.replies.store(Arc::clone(reply)).await {
        Together::Ended(finished) => Ok(Stored::Now(finished)),
        Together::Alone => alone(context, claim, reply).await,
        Together::Late => Err(StoreError::Late),
    }
}

/// Stores a reply that was not stored with the others, or whose commit was and was not heard of.
async fn alone(context: &Context, claim: &Claim, reply: &Finish) -> StoreResult<Stored> {
    let mut tx = context.db.sweep().await?;
    let finished = generations::finish(&mut tx, reply).await?;
    if matches!(finished, Finished::Fenced) {
        drop(tx);
        return read_back(context, claim, reply).await;
    }
    tx.commit().await?;
    Ok(Stored::Now(finished))
}

/// Whether a reply that met another token was stored by a commit whose answer was lost.
pub(super) async fn read_back(
    context: &Context,
    claim: &Claim,
    reply: &Finish,
) -> StoreResult<Stored> {
    let mut tx = context.db.user(claim.user_id).await?;
    let row = generations::find_with_reply(&mut tx, claim.id).await?;
    let ours = row.filter(|row| row.assistant_message_id == Some(reply.reply_id));
    Ok(ours.map_or(Stored::Fenced, |row| Stored::Before(Box::new(row))))
}

/// What became of a reply.
pub(super) enum Stored {
    Now(Finished),
    /// A commit whose answer was lost had stored it.
    Before(Box<Generation>),
    Fenced,
}

fn done(context: &Context, claim: &Claim, model: &str, usage: &Usage, book: &Book<'_>) {
    count("completed");
    context.wake.wake();
    let took =
        std::time::Duration::from_millis(u64::try_from(usage.processing_time_ms).unwrap_or(0));
    if model != TEMPLATE {
        context.pace.note(model, took);
    }
    let is_support = claim.context_type == ContextType::Support;
    figures::reply_ended(context, claim.kind, is_support, claim.queued_at, false);
    book.count_answer(usage, false);
    tracing::info!(
        generation.id = %claim.id,
        conversation.id = %claim.conversation_id,
        user.id = %claim.user_id,
        request.id = claim.request_id,
        trace.id = super::trace_id(claim),
        kind = %claim.kind,
        attempt = claim.attempt,
        model = usage.model,
        completion_tokens = usage.completion_tokens,
        duration_ms = usage.processing_time_ms,
        "generation completed"
    );
}

/// What the answer took; where the upstream did not say, the tokens are estimated and the cost is
/// unknown.
pub(super) fn usage(context: &Context, book: &Book<'_>, answer: &Answer) -> Usage {
    let reported = answer.usage.clone().unwrap_or_default();
    let estimated =
        || i32::try_from(tokens(&answer.model_served, &answer.text)).unwrap_or(i32::MAX);
    let completion_tokens = match &answer.usage {
        Some(usage) => i32::try_from(usage.completion_tokens).unwrap_or(i32::MAX),
        None => estimated(),
    };
    let prompt_tokens = i32::try_from(reported.prompt_tokens).unwrap_or(i32::MAX);
    Usage {
        model: answer.model_served.clone(),
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens.saturating_add(completion_tokens),
        cached_tokens: i32::try_from(reported.cached_tokens).unwrap_or(i32::MAX),
        reasoning_tokens: i32::try_from(reported.reasoning_tokens).unwrap_or(i32::MAX),
        cost_credits: reported.cost,
        is_free_model: answer.model.free,
        processing_time_ms: since(&context.clock, book.began_at()),
    }
}
