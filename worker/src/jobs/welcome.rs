//! The first message of a conversation about an assessment.
//!
//! The person waits for it on the page of their results, so it never fails for want of a model: where
//! none answers in time, a welcome is composed of the scores alone.

use std::time::Duration;

use serde_json::{Value, json};
use shared::domain::assessment::{
    AssessmentData, Language, LanguageSource, composed_welcome, finished_welcome,
};
use shared::domain::{FailureCode, Usage};
use shared::push::LogWriter;
use shared::store::StoreResult;
use shared::store::assessments::{self, Assessment, Reached};
use shared::store::generations::{self, Claim, Finish, Finished};
use uuid::Uuid;

use super::ask::{self, Asked, announce, ask};
use super::book::{Book, since};
use super::finish::{self, Stored};
use super::{events, give_up, persist, put_back};
use crate::context::Context;
use crate::prompt::{self, WelcomeInput};
use crate::queue::RunningJob;
use crate::trace;
use crate::upstream::{Answer, Call};
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
    announce(&mut log, claim);
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
    let may_wait = |after: Duration| after <= LONGEST_WAIT && after < claim.time_left;
    let asked = ask(context, claim, &call, &mut log, job, may_wait).await;
    let Some((book, asked)) = asked else { return };
    match asked {
        Asked::Answered(answer) => {
            let reply = written(context, claim, &book, &answer, &material);
            store(
                context,
                claim,
                "written",
                &answer.model.name,
                &reply,
                &book,
                &log,
            )
            .await;
        }
        Asked::Failed { detail, .. } => {
            tracing::warn!(generation.id = %claim.id, detail, "no model wrote the welcome; it is composed");
            let took_ms = since(&context.clock, book.began_at());
            let name = material.name.as_deref();
            let claimed = (claim.id, claim.token);
            let reply = composed(context, claimed, &material.assessment, name, took_ms);
            store(context, claim, "composed", COMPOSED, &reply, &book, &log).await;
        }
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
    let known = (assessment.language, assessment.language_source());
    let is_news = language.is_some() && known != (language, Some(LanguageSource::Profile));
    if fetched.is_some() || is_news {
        let mut tx = context.db.user(claim.user_id).await?;
        let clock = &context.clock;
        let learning = assessments::learn(
            &mut tx,
            clock,
            assessment.id,
            fetched.as_ref(),
            language,
            context.config.platform.spoken(),
        );
        let learnt = learning.await?;
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
    let messages = prompt::build_welcome(&WelcomeInput {
        data: &material.data,
        language: material.language,
        name: material.name.as_deref(),
    });
    ask::call(claim, messages, models.max_tokens, models.temperature)
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
    let mut metadata = metadata(&material.assessment);
    metadata["model"] = json!(usage.model);
    let content = finished_welcome(&answer.text, &material.data, material.language);
    let content = content.unwrap_or_else(|| {
        tracing::warn!(generation.id = %claim.id, model = usage.model, "a model told scores that nobody has; the welcome is composed");
        metadata["fallback"] = json!(true);
        let name = material.name.as_deref();
        composed_welcome(&material.data, material.language, name)
    });
    finish::written(context, claim, book, answer, content, usage, metadata)
}

/// The welcome that the scores alone make, for the generation that is `claimed`, by its id and token.
pub(crate) fn composed(
    context: &Context,
    claimed: (Uuid, Uuid),
    assessment: &Assessment,
    name: Option<&str>,
    took_ms: i32,
) -> Finish {
    let usage = Usage {
        model: COMPOSED.to_owned(),
        prompt_tokens: 0,
        completion_tokens: 0,
        total_tokens: 0,
        cached_tokens: 0,
        reasoning_tokens: 0,
        cost_credits: Some(rust_decimal::Decimal::ZERO),
        is_free_model: true,
        processing_time_ms: took_ms,
    };
    let mut metadata = metadata(assessment);
    metadata["fallback"] = json!(true);
    let content = composed_welcome(&assessment.results(), assessment.spoken(), name);
    finish::unwritten(context, claimed, content, usage, metadata)
}

fn metadata(assessment: &Assessment) -> Value {
    json!({ "type": "assessment_welcome", "assessment_id": assessment.id })
}

/// Stores the welcome and makes its assessment ready, in one commit; then tells everybody.
async fn store(
    context: &Context,
    claim: &Claim,
    made: &'static str,
    model: &str,
    reply: &Finish,
    book: &Book<'_>,
    log: &LogWriter,
) {
    let step = trace::step(context, claim, "finish");
    let stored = persist::until_stored(claim, || try_store(context, claim, reply)).await;
    if let Some(span) = step {
        span.end();
    }
    let (stored, reached) = stored.unzip();
    if finish::tell(context, claim, model, reply, stored, book, log).await {
        metrics::counter!(shared::metrics::WELCOMES, "made" => made).increment(1);
    }
    if let Some(reached) = reached.flatten() {
        push(context, claim.user_id, &reached.event()).await;
    }
}

async fn try_store(
    context: &Context,
    claim: &Claim,
    reply: &Finish,
) -> StoreResult<(Stored, Option<Reached>)> {
    let mut tx = context.db.sweep().await?;
    assessments::lock_of_welcome(&mut tx, claim.id).await?;
    let finished = generations::finish(&mut tx, reply).await?;
    if matches!(finished, Finished::Fenced) {
        drop(tx);
        return Ok((finish::read_back(context, claim, reply).await?, None));
    }
    let request_id = claim.request_id.as_deref();
    let traceparent = claim.traceparent.as_deref();
    let clock = &context.clock;
    let reached = assessments::ready(&mut tx, clock, claim.id, request_id, traceparent).await?;
    tx.commit().await?;
    Ok((Stored::Now(finished), reached))
}
