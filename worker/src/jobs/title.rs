//! A short title for a conversation, after its first reply.

use shared::domain::{FailureCode, Message};
use shared::id;
use shared::models::Model;
use shared::push::publish;
use shared::store::budgets::{is_reserved, reserve};
use shared::store::generations::{self, Claim, TitleFinished};
use shared::store::{StoreResult, messages};
use tokio::sync::mpsc;

use super::book::Book;
use super::{ask, count, finish, give_up, paced, persist, put_back, unless_aborted};
use crate::context::Context;
use crate::prompt::{self, Turn};
use crate::queue::{AbortReason, RunningJob};
use crate::upstream::{self, Answer, Call, Outcome};

/// Messages that a title is made from.
const MESSAGES: i64 = 4;
/// Tokens of them that are reckoned with where something is reserved.
const PROMPT_TOKENS: u32 = 1_000;
/// A title says what there is; it invents little.
const TEMPERATURE: f32 = 0.3;

pub(super) async fn run(context: &Context, claim: &Claim, job: &RunningJob<'_>) {
    let call = match call(context, claim).await {
        Ok(Some(call)) => call,
        Ok(None) => {
            return give_up(
                context,
                claim,
                FailureCode::Internal,
                "nothing to make a title from",
            )
            .await;
        }
        Err(error) => {
            tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "messages not read");
            let again = std::time::Duration::from_secs(1);
            return put_back(
                context,
                claim,
                again,
                true,
                "the messages could not be read",
            )
            .await;
        }
    };
    let chain = match affordable(context, claim).await {
        Ok(chain) if chain.is_empty() => {
            let detail = "a budget is used up and no free model is left";
            return give_up(context, claim, FailureCode::UpstreamExhausted, detail).await;
        }
        Ok(chain) => chain,
        Err(error) => {
            tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "budgets not asked");
            let again = std::time::Duration::from_secs(1);
            return put_back(context, claim, again, true, "no budget could be asked").await;
        }
    };
    // Nobody follows a title as it is written.
    let (sender, _) = mpsc::unbounded_channel();
    let mut book = Book::new(context, claim, "title", sender);
    let referee = paced(context, claim);
    let running = upstream::run(&context.upstream, &chain, &call, &referee, &mut book);
    let outcome = unless_aborted(job, tokio::time::timeout(claim.time_left, running)).await;
    match outcome {
        Ok(Ok(Outcome::Completed(answer))) => store(context, claim, &book, &answer).await,
        Ok(Ok(Outcome::PutBack { after, detail, .. })) => {
            put_back(context, claim, after, true, &detail).await
        }
        Ok(Ok(Outcome::Paced { after, charged, .. })) => {
            put_back(context, claim, after, !charged, "the account's limit").await
        }
        Ok(Ok(Outcome::Again { after, detail, .. })) => {
            put_back(context, claim, after, false, &detail).await
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
        Err(AbortReason::Drained) => {
            count("drained");
            book.book_dropped("drained").await;
        }
        Err(AbortReason::Lost) => {
            count("lost");
            book.book_dropped("stopped").await;
        }
    }
}

/// The models that a title may be made by: those that cost something while the person's and everybody's budgets
/// have room for it, which is reserved the first time.
async fn affordable(context: &Context, claim: &Claim) -> StoreResult<Vec<Model>> {
    let budgets = &context.config.budgets;
    let models = &context.config.upstream.models;
    let credits = budgets.is_on().then(|| {
        let chain = &claim.chain;
        budgets.estimate(models, context.upstream.prices(), chain, PROMPT_TOKENS)
    });
    let Some(credits) = credits.flatten() else {
        return Ok(claim.chain.clone());
    };
    let mut tx = context.db.user(claim.user_id).await?;
    if is_reserved(&mut tx, claim.id).await? {
        return Ok(claim.chain.clone());
    }
    let reservation = reserve(&mut tx, claim.id, credits, &budgets.limits).await?;
    tx.commit().await?;
    for budget in &reservation.warned {
        shared::budgets::warn(budget, budget.starts_with("user").then_some(claim.user_id));
    }
    let is_refused = reservation.refused.is_some();
    let allowed = claim.chain.iter().filter(|model| model.free || !is_refused);
    Ok(allowed.cloned().collect())
}

async fn call(context: &Context, claim: &Claim) -> StoreResult<Option<Call>> {
    let mut tx = context.db.user(claim.user_id).await?;
    let start = messages::Cursor::After(claim.conversation_id);
    let (first, _) = messages::list(&mut tx, claim.conversation_id, start, MESSAGES).await?;
    drop(tx);
    if first.is_empty() {
        return Ok(None);
    }
    let messages = prompt::build_title(&first.into_iter().map(turn).collect::<Vec<_>>());
    Ok(Some(ask::call(
        claim,
        messages,
        prompt::TITLE_MAX_TOKENS,
        TEMPERATURE,
    )))
}

fn turn(message: Message) -> Turn {
    Turn {
        sender: message.sender_type,
        tokens: shared::domain::estimate_tokens(&message.content),
        content: message.content,
        attachments: message.attachments,
        superseded: message.superseded_by.is_some(),
    }
}

async fn store(context: &Context, claim: &Claim, book: &Book<'_>, answer: &Answer) {
    let usage = finish::usage(context, book, answer);
    let title = prompt::clean_title(&answer.text);
    let new_id = || id::new(context.clock.now());
    let usage_id = book.answered_id().unwrap_or_else(new_id);
    let finished = persist::until_stored(claim, || async {
        let mut tx = context.db.user(claim.user_id).await?;
        let finished = generations::finish_title(
            &mut tx,
            claim.id,
            claim.token,
            usage_id,
            &usage,
            title.as_deref(),
        )
        .await?;
        let wasted = matches!(finished, TitleFinished::Fenced);
        book.book_answer(&mut tx, wasted).await?;
        if wasted {
            book.book_wasted_answer(&mut tx, &usage).await?;
        }
        tx.commit().await?;
        Ok(finished)
    });
    let Some(TitleFinished::Stored(conversation)) = finished.await else {
        count("fenced");
        book.count_answer(&usage, true);
        return;
    };
    count("completed");
    book.count_answer(&usage, false);
    let now = context.clock.now();
    if let Some(conversation) = conversation {
        let event = shared::domain::Event::conversation_updated(&conversation, now);
        if let Err(failure) = publish(&context.redis, claim.user_id, &event).await {
            tracing::debug!(generation.id = %claim.id, %failure, "title not pushed");
        }
    }
}
