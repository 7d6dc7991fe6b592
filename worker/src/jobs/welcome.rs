//! The first message of a conversation about an assessment.
//!
//! The person waits for it on the page of their results, so it never fails for want of a model: where
//! none answers in time, a welcome is composed of the scores alone.

use std::time::Duration;

use serde_json::{Value, json};
use shared::domain::assessment::{AssessmentData, Language, composed_welcome, finished_welcome};
use shared::domain::{FailureCode, Generation, GenerationStatus, Usage};
use shared::id;
use shared::push::{Ended, LogWriter, terminal_event};
use shared::store::StoreResult;
use shared::store::assessments::{self, Assessment, Reached};
use shared::store::generations::{self, Claim, Finish, Finished};
use tokio::sync::mpsc;

use super::book::{Book, since};
use super::{
    attempt, count, events, finish, generate, give_up, is_last_round, paced, persist, put_back,
    unless_aborted,
};
use crate::context::Context;
use crate::prompt::{self, WelcomeInput};
use crate::queue::RunningJob;
use crate::trace;
use crate::upstream::{self, Answer, Call, Outcome};
use crate::welcomes::push;

/// A longer wait for the upstream is none for somebody who looks at a page.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// What names a welcome that no model wrote, where a model would stand.
const COMPOSED: &str = "composed";

/// What is known of the person.
struct Material {
    assessment: Assessment,
    data: AssessmentData,
    language: Language,
    name: Option<String>,
}

pub(super) async fn run(context: &Context, claim: &Claim, job: &RunningJob<'_>) {
    let mut log = events::writer(context, claim);
    generate::announce(&mut log, claim);
    let material = match gather(context, claim).await {
        Ok(Some(material)) => material,
        Ok(None) => {
            let detail = "the assessment of the welcome is gone";
            return give_up(context, claim, FailureCode::Internal, detail).await;
        }
        Err(error) => {
            tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "assessment not read");
            let again = Duration::from_secs(1);
            let reason = "the assessment could not be read";
            return put_back(context, claim, again, true, reason).await;
        }
    };
    let call = call(context, claim, &material);
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
    let may_wait = |after: Duration| after <= LONGEST_WAIT && after < claim.time_left;
    match outcome {
        Ok(Ok(Outcome::Completed(answer))) => {
            let reply = written(context, claim, &book, &answer, &material);
            store(context, claim, &reply, Some(&answer), &book, &log).await;
        }
        Ok(Ok(Outcome::PutBack {
            after,
            reason,
            detail,
        })) if may_wait(after) => {
            generate::retrying(&mut log, claim, reason, after).await;
            put_back(context, claim, after, true, &detail).await;
        }
        Ok(Ok(Outcome::Again {
            after,
            reason,
            detail,
        })) if may_wait(after) => {
            generate::retrying(&mut log, claim, reason, after).await;
            put_back(context, claim, after, false, &detail).await;
        }
        Ok(Ok(Outcome::Paced {
            after,
            ahead,
            charged,
        })) if may_wait(after) => {
            generate::queued(context, &mut log, claim, after, ahead).await;
            put_back(context, claim, after, !charged, "the account's limit").await;
        }
        Ok(ended) => {
            let why = match ended {
                Ok(
                    Outcome::Failed { detail, .. }
                    | Outcome::PutBack { detail, .. }
                    | Outcome::Again { detail, .. },
                ) => detail,
                Ok(_) => "the account's limit".to_owned(),
                Err(_) => {
                    book.book_dropped("deadline").await;
                    "the deadline passed".to_owned()
                }
            };
            tracing::warn!(generation.id = %claim.id, detail = why, "no model wrote the welcome; it is composed");
            let reply = composed(context, claim, &book, &material);
            store(context, claim, &reply, None, &book, &log).await;
        }
        Err(reason) => generate::stopped(context, claim, &mut book, reason).await,
    }
}

/// Reads the assessment, asks the archive for results that nobody has brought, and the auth service
/// for the person. Without an answer the welcome says less.
async fn gather(context: &Context, claim: &Claim) -> StoreResult<Option<Material>> {
    let mut tx = context.db.user(claim.user_id).await?;
    let found = assessments::find_by_welcome(&mut tx, claim.id).await?;
    drop(tx);
    let Some(mut assessment) = found else {
        return Ok(None);
    };
    let results = async {
        if assessment.data.is_some() {
            return None;
        }
        let results = context
            .platform
            .results(assessment.id, claim.user_id)
            .await
            .ok()?;
        let is_theirs = results.owner.is_none_or(|owner| owner == claim.user_id);
        (is_theirs && !results.data.is_empty()).then(|| results.data.clone())
    };
    let profile = context.platform.profile(claim.user_id);
    let (fetched, profile) = tokio::join!(results, profile);
    let profile = profile.ok();
    let language = profile.as_ref().and_then(|profile| profile.language);
    let is_news = language.is_some_and(|language| assessment.language != Some(language));
    if fetched.is_some() || is_news {
        let mut tx = context.db.user(claim.user_id).await?;
        let clock = &context.clock;
        let learnt =
            assessments::learn(&mut tx, clock, assessment.id, fetched.as_ref(), language).await?;
        tx.commit().await?;
        assessment = learnt.unwrap_or(assessment);
    }
    Ok(Some(Material {
        data: assessment.results(),
        language: assessment.spoken(),
        name: profile.and_then(|profile| profile.name.clone()),
        assessment,
    }))
}

fn call(context: &Context, claim: &Claim, material: &Material) -> Call {
    let models = &context.config.upstream.models;
    Call {
        messages: prompt::build_welcome(&WelcomeInput {
            data: &material.data,
            language: material.language,
            name: material.name.as_deref(),
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

/// The welcome that a model wrote.
fn written(
    context: &Context,
    claim: &Claim,
    book: &Book<'_>,
    answer: &Answer,
    material: &Material,
) -> Finish {
    let usage = finish::usage(context, book, answer);
    let mut metadata = metadata(material);
    metadata["model"] = json!(usage.model);
    let content = finished_welcome(&answer.text, &material.data, material.language);
    Finish {
        first_token_ms_ago: answer.first_token_at.map(|at| since(&context.clock, at)),
        incomplete: answer.incomplete,
        call: book.answered(false),
        usage_id: book
            .answered_id()
            .unwrap_or_else(|| id::new(context.clock.now())),
        ..reply(context, claim, content, usage, metadata)
    }
}

/// The welcome that the scores alone make.
fn composed(context: &Context, claim: &Claim, book: &Book<'_>, material: &Material) -> Finish {
    let usage = Usage {
        model: COMPOSED.to_owned(),
        prompt_tokens: 0,
        completion_tokens: 0,
        total_tokens: 0,
        cached_tokens: 0,
        reasoning_tokens: 0,
        cost_credits: Some(rust_decimal::Decimal::ZERO),
        is_free_model: true,
        processing_time_ms: since(&context.clock, book.began_at()),
    };
    let mut metadata = metadata(material);
    metadata["fallback"] = json!(true);
    let name = material.name.as_deref();
    let content = composed_welcome(&material.data, material.language, name);
    reply(context, claim, content, usage, metadata)
}

fn metadata(material: &Material) -> Value {
    json!({ "type": "assessment_welcome", "assessment_id": material.assessment.id })
}

fn reply(
    context: &Context,
    claim: &Claim,
    content: String,
    usage: Usage,
    metadata: Value,
) -> Finish {
    let now = context.clock.now();
    let reply_id = id::new_after(now, Some(claim.id));
    Finish {
        id: claim.id,
        token: claim.token,
        reply_id,
        usage_id: id::new(now),
        title_generation_id: id::new_after(now, Some(reply_id)),
        content,
        incomplete: false,
        usage,
        // It is made of the assessment and shows no conversation.
        context: None,
        first_token_ms_ago: None,
        metadata,
        call: None,
    }
}

/// What became of a welcome.
enum Stored {
    Now(Finished, Option<Reached>),
    /// A commit whose answer was lost had stored it.
    Before(Box<Generation>, Option<Reached>),
    Fenced,
}

/// Stores the welcome and makes its assessment ready, in one commit; then tells everybody.
async fn store(
    context: &Context,
    claim: &Claim,
    reply: &Finish,
    answer: Option<&Answer>,
    book: &Book<'_>,
    log: &LogWriter,
) {
    let made = answer.map_or(COMPOSED, |_| "written");
    let model = answer.map_or(COMPOSED, |answer| answer.model.name.as_str());
    let step = trace::step(context, claim, "finish");
    let stored = persist::until_stored(claim, || try_store(context, claim, reply)).await;
    if let Some(span) = step {
        span.end();
    }
    let reached = match stored {
        Some(Stored::Now(Finished::Stored { message, next, .. }, reached)) => {
            metrics::counter!(shared::metrics::WELCOMES, "made" => made).increment(1);
            finish::done(context, claim, model, &reply.usage, book);
            let status = if reply.incomplete {
                GenerationStatus::Incomplete
            } else {
                GenerationStatus::Completed
            };
            let ended = Ended::Completed {
                status,
                message: Some(&message),
                usage: Some(&reply.usage),
            };
            let now = context.clock.now();
            let event = ended.event(claim.id, claim.conversation_id, attempt(claim), now);
            events::end(log, &event, &next).await;
            reached
        }
        Some(Stored::Before(generation, reached)) => {
            finish::done(context, claim, model, &reply.usage, book);
            // What may run next is found by the sweeps.
            if let Some(event) = terminal_event(&generation) {
                events::end(log, &event, &[]).await;
            }
            reached
        }
        Some(Stored::Now(Finished::Fenced, _) | Stored::Fenced) => {
            count("fenced");
            tracing::info!(generation.id = %claim.id, attempt = claim.attempt, "welcome discarded: the claim was lost");
            if answer.is_some() {
                book.book_wasted(&reply.usage).await;
            }
            None
        }
        None => None,
    };
    if let Some(reached) = reached {
        push(context, claim.user_id, &reached.event()).await;
    }
}

async fn try_store(context: &Context, claim: &Claim, reply: &Finish) -> StoreResult<Stored> {
    let mut tx = context.db.sweep().await?;
    assessments::lock_of_welcome(&mut tx, claim.id).await?;
    let finished = generations::finish(&mut tx, reply).await?;
    if matches!(finished, Finished::Fenced) {
        drop(tx);
        let mut tx = context.db.user(claim.user_id).await?;
        let row = generations::find_with_reply(&mut tx, claim.id).await?;
        let ours = row.filter(|row| row.assistant_message_id == Some(reply.reply_id));
        return Ok(ours.map_or(Stored::Fenced, |row| Stored::Before(Box::new(row), None)));
    }
    let request_id = claim.request_id.as_deref();
    let traceparent = claim.traceparent.as_deref();
    let clock = &context.clock;
    let reached = assessments::ready(&mut tx, clock, claim.id, request_id, traceparent).await?;
    tx.commit().await?;
    Ok(Stored::Now(finished, reached))
}
