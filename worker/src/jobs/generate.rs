//! The main job: a reply to a message.

use std::time::Duration;

use serde_json::json;
use shared::domain::{EventType, FailureCode};
use shared::push::LogWriter;
use shared::store::generations::{self, Claim, History, HistoryMessage};
use tokio::sync::mpsc;

use super::book::Book;
use super::{
    attempt, count, events, finish, give_up, is_last_round, paced, persist, put_back,
    unless_aborted,
};
use crate::context::Context;
use crate::prompt::{self, PromptInput, Turn};
use crate::queue::{AbortReason, RunningJob};
use crate::upstream::{self, Call, ErrorClass, Outcome};

pub(super) async fn run(context: &Context, claim: &Claim, history: History, job: &RunningJob<'_>) {
    let mut log = events::writer(context, claim);
    announce(&mut log, claim);
    if history.messages.is_empty() {
        return give_up(
            context,
            claim,
            FailureCode::Internal,
            "the message to answer is gone",
        )
        .await;
    }
    let call = call(context, claim, history);
    let (sender, notes) = mpsc::unbounded_channel();
    let mut book = Book::new(context, claim, "completion", sender);
    let referee = paced(context, claim);
    // The notes' writer ends when the book, and with it the sender, is closed.
    let (outcome, ()) = tokio::join!(
        async {
            let running =
                upstream::run(&context.upstream, &claim.chain, &call, &referee, &mut book);
            let outcome = unless_aborted(job, tokio::time::timeout(claim.time_left, running)).await;
            book.close();
            outcome
        },
        events::write(&mut log, notes, claim.stream),
    );
    match outcome {
        Ok(Ok(Outcome::Completed(answer))) => {
            finish::store(context, claim, &book, &answer, &log).await
        }
        Ok(Ok(Outcome::PutBack {
            after,
            reason,
            detail,
        })) => {
            retrying(&mut log, claim, reason, after).await;
            put_back(context, claim, after, true, &detail).await;
        }
        Ok(Ok(Outcome::Paced {
            after,
            ahead,
            charged,
        })) => {
            queued(context, &mut log, claim, after, ahead).await;
            put_back(context, claim, after, !charged, "the account's limit").await;
        }
        Ok(Ok(Outcome::Again {
            after,
            reason,
            detail,
        })) => {
            retrying(&mut log, claim, reason, after).await;
            put_back(context, claim, after, false, &detail).await;
        }
        Ok(Ok(Outcome::Failed { code, detail, .. })) => {
            give_up(context, claim, code, &detail).await
        }
        Ok(Err(_)) => {
            book.book_dropped("deadline").await;
            give_up(
                context,
                claim,
                FailureCode::Expired,
                "the deadline passed while the upstream answered",
            )
            .await;
        }
        Err(reason) => stopped(context, claim, &mut book, reason).await,
    }
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
fn announce(log: &mut LogWriter, claim: &Claim) {
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

fn call(context: &Context, claim: &Claim, history: History) -> Call {
    let models = &context.config.upstream.models;
    let background = background(&history.context_data);
    let turns: Vec<Turn> = history.messages.into_iter().map(turn).collect();
    Call {
        messages: prompt::build(&PromptInput {
            context_type: claim.context_type,
            background: background.as_deref(),
            turns: &turns,
            budget: context.config.history_tokens,
            concise: claim.chain.first().is_some_and(|model| model.free),
        }),
        max_tokens: models.max_tokens,
        temperature: models.temperature,
        user: shared::crypto::user_alias(claim.user_id),
        session_id: claim.conversation_id,
        request_id: claim.request_id.clone(),
        traceparent: claim.traceparent.clone(),
        round: attempt(claim),
        is_last_round: is_last_round(claim),
        time_left: claim.time_left,
    }
}

/// What the client stored for the prompt, if it stored anything.
fn background(context_data: &serde_json::Value) -> Option<String> {
    let empty = context_data
        .as_object()
        .is_none_or(serde_json::Map::is_empty);
    (!empty).then(|| context_data.to_string())
}

fn turn(message: HistoryMessage) -> Turn {
    Turn {
        sender: message.sender_type,
        content: message.content,
        attachments: message.attachments,
        tokens: message.token_count,
        superseded: false,
    }
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
