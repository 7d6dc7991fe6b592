//! Asking the models in the name of a claim, with everything that comes of it but its end.

use std::time::Duration;

use serde_json::json;
use shared::domain::{EventType, FailureCode};
use shared::push::LogWriter;
use shared::store::generations::{self, Claim};
use tokio::sync::mpsc;

use super::book::Book;
use super::{attempt, count, events, is_last_round, paced, persist, put_back, unless_aborted};
use crate::context::Context;
use crate::queue::{AbortReason, RunningJob};
use crate::upstream::{self, Answer, Call, ChatMessage, ErrorClass, Outcome};

/// What the account's limit is called where a reason is asked for.
const LIMIT: &str = "the account's limit";

/// What came of asking.
pub(super) enum Asked {
    /// A model answered.
    Answered(Box<Answer>),
    /// None did, and there is nothing to wait for.
    Failed {
        code: FailureCode,
        detail: String,
        /// What we may ask for is used up, or paid for no more.
        limit: bool,
    },
}

/// A call in the name of a claim.
pub(super) fn call(
    claim: &Claim,
    messages: Vec<ChatMessage>,
    max_tokens: u32,
    temperature: f32,
) -> Call {
    Call {
        messages,
        max_tokens,
        temperature,
        user: shared::crypto::user_alias(claim.user_id),
        session_id: claim.conversation_id,
        request_id: claim.request_id.clone(),
        traceparent: claim.traceparent.clone(),
        round: attempt(claim),
        is_last_round: is_last_round(claim),
        time_left: claim.time_left,
    }
}

/// Asks, and tells the clients how it goes. None when the attempt is over: it was put back to wait, as
/// far as it `may_wait` for so long, or somebody else ended it.
pub(super) async fn ask<'a>(
    context: &'a Context,
    claim: &'a Claim,
    call: &Call,
    log: &mut LogWriter,
    job: &RunningJob<'_>,
    may_wait: impl Fn(Duration) -> bool,
) -> Option<(Book<'a>, Asked)> {
    let (sender, notes) = mpsc::unbounded_channel();
    let mut book = Book::new(context, claim, "completion", sender);
    let referee = paced(context, claim);
    // The notes' writer ends when the book, and with it the sender, is closed.
    let (outcome, ()) = tokio::join!(
        async {
            let running = upstream::run(&context.upstream, &claim.chain, call, &referee, &mut book);
            let outcome = unless_aborted(job, tokio::time::timeout(claim.time_left, running)).await;
            book.close();
            outcome
        },
        events::write(log, notes, claim.stream),
    );
    let asked = match outcome {
        Ok(Ok(Outcome::Completed(answer))) => Asked::Answered(Box::new(answer)),
        Ok(Ok(Outcome::Failed {
            code,
            detail,
            reason,
        })) => Asked::Failed {
            code,
            detail,
            limit: is_limit(reason),
        },
        Ok(Ok(Outcome::PutBack {
            after,
            reason,
            detail,
        })) if may_wait(after) => {
            retrying(log, claim, reason, after).await;
            put_back(context, claim, after, true, &detail).await;
            return None;
        }
        Ok(Ok(Outcome::Again {
            after,
            reason,
            detail,
        })) if may_wait(after) => {
            retrying(log, claim, reason, after).await;
            put_back(context, claim, after, false, &detail).await;
            return None;
        }
        Ok(Ok(Outcome::Paced {
            after,
            ahead,
            charged,
        })) if may_wait(after) => {
            queued(context, log, claim, after, ahead).await;
            put_back(context, claim, after, !charged, LIMIT).await;
            return None;
        }
        Ok(Ok(Outcome::PutBack { detail, reason, .. } | Outcome::Again { detail, reason, .. })) => {
            Asked::Failed {
                code: FailureCode::UpstreamExhausted,
                detail,
                limit: is_limit(reason),
            }
        }
        Ok(Ok(Outcome::Paced { .. })) => Asked::Failed {
            code: FailureCode::UpstreamExhausted,
            detail: LIMIT.to_owned(),
            limit: true,
        },
        Ok(Err(_)) => {
            book.book_dropped("deadline").await;
            Asked::Failed {
                code: FailureCode::Expired,
                detail: "the deadline passed while the upstream answered".to_owned(),
                limit: false,
            }
        }
        Err(reason) => {
            stopped(context, claim, &mut book, reason).await;
            return None;
        }
    };
    Some((book, asked))
}

/// Whether an error says that the account has had what it may have.
fn is_limit(reason: ErrorClass) -> bool {
    use ErrorClass::{InFlightBudget, PaymentRequired, PlatformLimit};
    matches!(reason, InFlightBudget | PaymentRequired | PlatformLimit)
}

/// Tells the place in the line for the account's limit, and how long the reply will take from now.
async fn queued(
    context: &Context,
    log: &mut LogWriter,
    claim: &Claim,
    after: Duration,
    ahead: u64,
) {
    let model = claim.chain.first();
    let takes = model.and_then(|model| context.pace.percentile(&model.name, 50));
    let estimate =
        takes.map(|takes| u64::try_from((after + takes).as_millis()).unwrap_or(u64::MAX));
    let data = json!({ "position": ahead, "estimated_response_time_ms": estimate });
    log.write(EventType::Queued, &data).await;
}

/// Tells that the text so far is void, and when there will be more.
async fn retrying(log: &mut LogWriter, claim: &Claim, reason: ErrorClass, after: Duration) {
    let model = claim.chain.first().map(|model| &model.name);
    let data = json!({
        "model": model,
        "reason": reason.as_str(),
        "next_model": model,
        "delay_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
    });
    log.write(EventType::Retrying, &data).await;
}

/// An earlier attempt may have shown text; whatever it was is void now.
pub(super) fn announce(log: &mut LogWriter, claim: &Claim) {
    let model = claim.chain.first().map(|model| &model.name);
    if claim.attempt > 1 {
        let data =
            json!({ "model": model, "reason": "new_attempt", "next_model": model, "delay_ms": 0 });
        log.push(EventType::Retrying, &data);
    }
    log.push(
        EventType::InProgress,
        &json!({ "model": model, "attempt": attempt(claim) }),
    );
}

/// The claim was lost or given back: the call is closed already, only the books remain.
async fn stopped(context: &Context, claim: &Claim, book: &mut Book<'_>, reason: AbortReason) {
    match reason {
        AbortReason::Drained => {
            count("drained");
            book.book_dropped("drained").await;
        }
        AbortReason::Lost => {
            count("lost");
            book.book_dropped("stopped").await;
            let partial = book.text_so_far();
            let kept = persist::until_stored(claim, || async {
                let mut tx = context.db.user(claim.user_id).await?;
                let kept =
                    generations::keep_partial(&mut tx, claim.id, claim.attempt, partial).await?;
                tx.commit().await?;
                Ok(kept)
            });
            if !partial.is_empty() {
                kept.await;
            }
        }
    }
}
