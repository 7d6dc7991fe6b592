//! Drives one generation over its chain of models.

use std::time::{Duration, Instant};

use shared::domain::FailureCode;
use shared::traces::Span;

use crate::tokens::tokens;

use super::backoff::{MAX_IN_CLAIM, later};
use super::client::{Attempt, CallEnd};
use super::error::CallError;
use super::genai;
use super::keys::{Key, Refusal};
use super::policy::{Plan, Step};
use super::{
    Admission, Answer, Call, ChatMessage, Client, ErrorClass, Model, Outcome, Progress, Referee,
    shorten,
};

/// Makes one reply: calls the models of `chain` in order, each as often as the table allows, until
/// one answers, the upstream asks for a long wait, or nothing is left.
///
/// Dropping the future closes the connection of the running call. [`Progress::call_ended`] is not
/// said for that call; its cost is unknown until the upstream is asked for it.
pub async fn run<P: Progress>(
    client: &Client,
    chain: &[Model],
    call: &Call,
    referee: &impl Referee,
    progress: &mut P,
) -> Outcome {
    let models = &client.config().models;
    let counted = |model: &str| call.tokens(|text| tokens(model, text));
    let chain = client
        .catalogue
        .fitting(models, chain, call.tokens(bytes), counted);
    let mut plan = Plan::new(&chain);
    let mut shortened: Option<Vec<ChatMessage>> = None;
    let mut run = Run::begin(client, call);
    while let Some(model) = plan.model() {
        let has_key = |model: &Model| {
            let keys = client.keys_of(model);
            keys.choose(model.free, Instant::now()).is_some()
        };
        match referee.admit(model, plan.has_other(has_key)).await {
            Admission::Go => {}
            Admission::Resting(_) if plan.skip(has_key) => continue,
            Admission::Resting(rest) => return run.resting(rest),
            Admission::TooLong(wait) if plan.leave(wait, has_key) => continue,
            Admission::TooLong(wait) => return run.paced(wait, 0),
            Admission::Wait { wait, .. } if wait <= MAX_IN_CLAIM => {
                tokio::time::sleep(wait).await;
                continue;
            }
            Admission::Wait { wait, ahead } => return run.paced(wait, ahead),
        }
        let messages = shortened.as_deref().unwrap_or(call.messages.as_slice());
        let error = match run.call(model, messages, referee, progress).await {
            Ok(answer) => return Outcome::Completed(answer),
            Err(error) => error,
        };
        let reason = error.class;
        let detail = || format!("{} gave {reason}: {}", model.name, error.detail);
        let shorter = (reason == ErrorClass::ContextLength)
            .then(|| shorten(messages))
            .flatten();
        match plan.after(&error, has_key, shorter.is_some()) {
            Step::Call {
                at,
                delay,
                shorter: cut,
            } => {
                // Another model may have a larger window, so it gets the whole prompt.
                shortened = shorter.filter(|_| cut);
                let next = chain.get(at).unwrap_or(model);
                progress.retrying(model, reason, next, delay).await;
                tokio::time::sleep(delay).await;
            }
            Step::PutBack(after) => return run.put_back(after, reason, detail()),
            Step::Again => return run.again(Duration::ZERO, reason, detail()),
            Step::GiveUp(code) => {
                return Outcome::Failed {
                    code,
                    reason,
                    detail: detail(),
                };
            }
        }
    }
    // The API never accepts a message without a model; a row without one is our bug.
    Outcome::Failed {
        code: FailureCode::Internal,
        reason: ErrorClass::InvalidRequest,
        detail: "the generation has no model".to_owned(),
    }
}

/// Who would come back so much later than meant, because so many others do, is told now.
const LATEST: Duration = Duration::from_secs(30);

/// A text has no more tokens than bytes.
fn bytes(text: &str) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// What a run knows of itself.
struct Run<'a> {
    client: &'a Client,
    call: &'a Call,
    began: tokio::time::Instant,
    /// A call of it may have cost something.
    charged: bool,
}

impl<'a> Run<'a> {
    fn begin(client: &'a Client, call: &'a Call) -> Self {
        let began = tokio::time::Instant::now();
        if call.round <= 1 {
            client.retries.begin(began);
        }
        Self {
            client,
            call,
            began,
            charged: false,
        }
    }

    /// Calls a model once with the best key there is.
    async fn call<P: Progress>(
        &mut self,
        model: &Model,
        messages: &[ChatMessage],
        referee: &impl Referee,
        progress: &mut P,
    ) -> Result<Answer, CallError> {
        let Some(key) = self
            .client
            .keys_of(model)
            .choose(model.free, Instant::now())
        else {
            return Err(no_key(self.client, model));
        };
        progress.calling(model, key.label()).await;
        let span = genai::begin(self.client, self.call, model);
        let recorded = span.as_ref().and_then(Span::traceparent);
        let attempt = Attempt {
            model,
            key: &key,
            call: self.call,
            messages,
            traceparent: recorded.or_else(|| self.call.traceparent.clone()),
        };
        let calling = self.client.call(&attempt, progress);
        let CallEnd { record, result } = Box::pin(calling).await;
        log(&record);
        genai::end(span, &record);
        self.charged |= record.wasted;
        progress.call_ended(record).await;
        match &result {
            Ok(_) => referee.worked(model).await,
            Err(error) => {
                bench(&key, model, error);
                referee.failed(model, error.class, error.hints.wait()).await;
            }
        }
        result
    }

    fn time_left(&self) -> Duration {
        self.call.time_left.saturating_sub(self.began.elapsed())
    }

    /// All of it once more after `at_least`, where there is time for that.
    fn again(&self, at_least: Duration, reason: ErrorClass, detail: String) -> Outcome {
        if self.call.is_last_round {
            return exhausted(reason, detail);
        }
        let after = at_least + later(self.call.round);
        let now = tokio::time::Instant::now();
        let patience = self.time_left().min(after + LATEST);
        match self.client.retries.reserve(now, after, patience) {
            Some(after) => Outcome::Again {
                after,
                reason,
                detail,
            },
            None => exhausted(reason, detail),
        }
    }

    fn resting(&self, rest: Duration) -> Outcome {
        let detail = "every model that is left failed again and again".to_owned();
        self.again(rest, ErrorClass::Unavailable, detail)
    }

    /// The upstream said when to come back.
    fn put_back(&self, after: Duration, reason: ErrorClass, detail: String) -> Outcome {
        if after >= self.time_left() {
            return exhausted(reason, detail);
        }
        Outcome::PutBack {
            after,
            reason,
            detail,
        }
    }

    /// Its turn comes later.
    fn paced(&self, wait: Duration, ahead: u64) -> Outcome {
        let reason = ErrorClass::PlatformLimit;
        let detail = "the account's limit allows no call in time".to_owned();
        if wait >= self.time_left() {
            return exhausted(reason, detail);
        }
        Outcome::Paced {
            after: wait,
            ahead,
            charged: self.charged,
        }
    }
}

/// It was tried often enough, or what is waited for comes too late.
fn exhausted(reason: ErrorClass, detail: String) -> Outcome {
    Outcome::Failed {
        code: FailureCode::UpstreamExhausted,
        reason,
        detail,
    }
}

/// Every key rests that could pay for the model.
fn no_key(client: &Client, model: &Model) -> CallError {
    let for_free_models = client.keys_of(model).choose(true, Instant::now());
    let class = if for_free_models.is_some() {
        ErrorClass::PaymentRequired
    } else {
        ErrorClass::KeyRefused
    };
    CallError::of(class, "every API key was refused lately")
}

/// Lets a refused key rest. One without credit may still serve free models, unless it was refused
/// for one of those: a negative balance blocks them too.
fn bench(key: &Key, model: &Model, error: &CallError) {
    let refusal = match error.class {
        ErrorClass::KeyRefused => Refusal::All,
        ErrorClass::PaymentRequired if model.free => Refusal::All,
        ErrorClass::PaymentRequired => Refusal::Paid,
        _ => return,
    };
    key.bench(refusal, Instant::now());
}

fn log(record: &super::CallRecord) {
    let took_ms = (record.finished_at - record.started_at).whole_milliseconds();
    match record.error {
        None => tracing::debug!(
            upstream.model = %record.model.name,
            upstream.id = record.upstream_id.as_deref(),
            upstream.key = %record.key_label,
            took_ms,
            "upstream call answered"
        ),
        Some(class) => tracing::warn!(
            upstream.model = %record.model.name,
            upstream.id = record.upstream_id.as_deref(),
            upstream.key = %record.key_label,
            upstream.status = record.http_status,
            error.class = %class,
            error.detail = record.detail.as_deref(),
            took_ms,
            "upstream call failed"
        ),
    }
}
