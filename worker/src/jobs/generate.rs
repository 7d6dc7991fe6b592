//! The main job: a reply to a message.

use std::time::Duration;

use serde_json::json;
use shared::domain::{ContextUse, EventType, FailureCode, SenderType};
use shared::push::LogWriter;
use shared::store::StoreError;
use shared::store::generations::{self, Claim, History, HistoryMessage};
use shared::store::summaries::{self, Earlier, Summary};
use tokio::sync::mpsc;

use super::book::Book;
use super::support::Desk;
use super::{
    attempt, count, events, finish, give_up, is_last_round, paced, persist, put_back,
    unless_aborted,
};
use crate::context::Context;
use crate::prompt::{self, PromptInput, Turn};
use crate::queue::{AbortReason, RunningJob};
use crate::upstream::{self, Call, ErrorClass, Outcome};

/// Makes the reply; `desk` is what the help desk knows, in its conversations.
pub(super) async fn run(
    context: &Context,
    claim: &Claim,
    history: History,
    job: &RunningJob<'_>,
    desk: Option<&Desk>,
) {
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
    let (call, shown) = call(context, claim, history, desk).await;
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
            let record = desk.map(|desk| desk.record(false));
            finish::store(context, claim, &book, &answer, &shown, &log, record).await
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
        Ok(Ok(Outcome::Failed { code, detail, .. })) => match desk {
            // Boxed, so that no other job is as large as this rare one.
            // Whatever the reason: who was told that a person takes over must find one.
            Some(desk) => {
                Box::pin(without_model(
                    context, claim, &book, desk, &shown, &log, &detail,
                ))
                .await
            }
            None => give_up(context, claim, code, &detail).await,
        },
        Ok(Err(_)) => {
            book.book_dropped("deadline").await;
            let detail = "the deadline passed while the upstream answered";
            match desk {
                Some(desk) => {
                    Box::pin(without_model(
                        context, claim, &book, desk, &shown, &log, detail,
                    ))
                    .await;
                }
                None => give_up(context, claim, FailureCode::Expired, detail).await,
            }
        }
        Err(reason) => stopped(context, claim, &mut book, reason).await,
    }
}

/// Stores what the help desk says when no model answers.
async fn without_model(
    context: &Context,
    claim: &Claim,
    book: &Book<'_>,
    desk: &Desk,
    shown: &ContextUse,
    log: &LogWriter,
    detail: &str,
) {
    tracing::warn!(generation.id = %claim.id, detail, "the help desk answers without a model");
    desk.failed(context, claim).await;
    let answer = finish::template(desk.template());
    let record = Some(desk.record(true));
    finish::store(context, claim, book, &answer, shown, log, record).await;
}

/// Tells the place in the line for the account's limit, and how long the reply will take from now.
pub(super) async fn queued(
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
pub(super) async fn retrying(
    log: &mut LogWriter,
    claim: &Claim,
    reason: ErrorClass,
    after: Duration,
) {
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

/// What to ask, and how much of the conversation is shown with it.
async fn call(
    context: &Context,
    claim: &Claim,
    history: History,
    desk: Option<&Desk>,
) -> (Call, ContextUse) {
    let models = &context.config.upstream.models;
    let budget = context.config.history_tokens;
    let background = prompt::background(&history.context_data);
    let desk = desk.map(Desk::background);
    let earlier = earlier(context, claim, &history).await;
    let summary = earlier.summary.as_ref();
    let read = history.messages.len();
    let context_data = history.context_data;
    let turns = turns(history.messages, summary);
    let language = prompt::language(&context_data, &turns);
    let input = PromptInput {
        context_type: claim.context_type,
        background: background.as_deref(),
        desk: desk.as_deref(),
        summary: summary.map(|summary| summary.content.as_str()),
        turns: &turns,
        budget,
        concise: claim.chain.first().is_some_and(|model| model.free),
        language,
    };
    let (used, shown) = prompt::used(&input);
    let count = |messages: usize| i64::try_from(messages).unwrap_or(i64::MAX);
    let shown = ContextUse {
        used: used.into(),
        budget: budget.into(),
        summarised: earlier.summarised + count(read - turns.len()),
        // What had to make room for the summary was neither shown nor told of by it.
        dropped: earlier.dropped + count(turns.len() - shown),
    };
    let call = Call {
        messages: prompt::build(&input),
        max_tokens: models.max_tokens,
        temperature: models.temperature,
        user: shared::crypto::user_alias(claim.user_id),
        session_id: claim.conversation_id,
        request_id: claim.request_id.clone(),
        traceparent: claim.traceparent.clone(),
        round: attempt(claim),
        is_last_round: is_last_round(claim),
        time_left: claim.time_left,
    };
    (call, shown)
}

/// What stands before the history. Most conversations are shown as a whole, and are not asked about.
async fn earlier(context: &Context, claim: &Claim, history: &History) -> Earlier {
    let is_whole = usize::try_from(history.message_count).unwrap_or(0) <= history.messages.len();
    let (Some(oldest), Some(answering)) = (history.messages.first(), claim.user_message_id) else {
        return Earlier::default();
    };
    if is_whole {
        return Earlier::default();
    }
    let found = async {
        let mut tx = context.db.user(claim.user_id).await?;
        summaries::earlier(&mut tx, claim.conversation_id, oldest.id, answering).await
    };
    found.await.unwrap_or_else(|error: StoreError| {
        tracing::warn!(
            generation.id = %claim.id,
            error = &error as &dyn std::error::Error,
            "answered without what was said earlier"
        );
        Earlier::default()
    })
}

/// The turns that no summary tells of. A reply belongs to the message before it.
fn turns(messages: Vec<HistoryMessage>, summary: Option<&Summary>) -> Vec<Turn> {
    let messages = messages.into_iter();
    let Some(summary) = summary else {
        return messages.map(turn).collect();
    };
    let mut is_told = true;
    let newer = messages.skip_while(|message| {
        if message.sender_type == SenderType::User {
            is_told = message.id <= summary.up_to;
        }
        is_told
    });
    newer.map(turn).collect()
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
pub(super) async fn stopped(
    context: &Context,
    claim: &Claim,
    book: &mut Book<'_>,
    reason: AbortReason,
) {
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
