//! Asking the upstream for costs that it did not say in time: of calls that broke off, that were dropped,
//! whose usage never came, or whose worker died.
//!
//! The ledger is read once, in order, a minute behind the calls; what is unknown there becomes a question,
//! and questions are asked a few at a time, each again later and later, until there is an answer or
//! patience ends. Nothing of it is in the way of a reply.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use shared::config::Vars;
use shared::store::costs::{self, Question, Reader};
use shared::store::{StoreResult, maintenance};

use crate::context::Context;
use crate::jobs::micro_credits;
use crate::turns;
use crate::upstream::{self, Bill};

/// Rows of the ledger read at a time.
const BATCH: i64 = 5_000;
/// Questions of one round, and how many are on their way at a time.
const ROUND: i64 = 20;
const AT_A_TIME: usize = 4;
/// Until a question is asked for the second time; twice that for the third, and so on.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// The last try comes about 17 hours after the first.
const TRIES: i32 = 12;
/// What was written later than this behind the call is not found any more.
const LATE: Duration = Duration::from_hours(6);

/// What an operator sets about costs that come late.
#[derive(Clone, Copy, Debug)]
pub struct CostsConfig {
    /// Between two rounds of questions; zero is never.
    pub every: Duration,
    /// How long after a call its cost is asked for.
    pub after: Duration,
}

impl CostsConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        Self {
            every: vars.seconds(
                "COST_REFRESH",
                "10",
                "how often the upstream is asked for costs that it did not say, at most 20 at a time, by one worker \
                 for all, seconds; 0 is never",
            ),
            after: vars.seconds(
                "COST_ASK_AFTER",
                "60",
                "how long after a call its cost is asked for, seconds",
            ),
        }
    }
}

/// Asks for ever.
pub async fn ask_for_costs(context: Arc<Context>) {
    let every = context.config.costs.every;
    if !context.config.costs_are_asked() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(every.mul_f64(0.8 + rand::random::<f64>() * 0.4)).await;
        if !turns::is_ours(&context, "costs", every.mul_f64(0.75)).await {
            continue;
        }
        match questions(&context).await {
            Ok(Some(questions)) => ask(&context, questions).await,
            Ok(None) => tracing::debug!("another worker asks for costs"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "costs not asked for"
            ),
        }
    }
}

/// Reads on in the ledger and takes what is due; none when another worker is at it.
async fn questions(context: &Context) -> StoreResult<Option<Vec<Question>>> {
    let mut tx = context.db.sweep().await?;
    if !maintenance::try_lock(&mut tx, "costs").await? {
        return Ok(None);
    }
    for (reader, age) in [
        (Reader::Soon, context.config.costs.after),
        (Reader::Late, LATE),
    ] {
        let (read, noted) = costs::gather(&mut tx, reader, age, BATCH).await?;
        if noted > 0 {
            tracing::debug!(?reader, read, noted, "calls of unknown cost");
        }
    }
    let due = costs::due(&mut tx, FIRST_WAIT, ROUND).await?;
    tx.commit().await?;
    Ok(Some(due))
}

async fn ask(context: &Context, questions: Vec<Question>) {
    let asking = stream::iter(questions).map(|question| async move {
        let answer = upstream::bill(
            &context.upstream,
            &question.upstream_id,
            &question.key_label,
        )
        .await;
        (question, answer)
    });
    let mut answers = asking.buffer_unordered(AT_A_TIME);
    while let Some((question, answer)) = answers.next().await {
        let outcome = match &answer {
            Ok(Some(bill)) => settle(context, &question, bill).await,
            _ if question.tries >= TRIES => give_up(context, &question).await,
            Ok(None) => Ok("not_yet"),
            Err(error) => {
                tracing::info!(
                    error,
                    upstream.id = question.upstream_id,
                    "a cost is not known"
                );
                Ok("failed")
            }
        };
        match outcome {
            Ok(outcome) => {
                metrics::counter!(shared::metrics::COST_QUESTIONS, "outcome" => outcome)
                    .increment(1);
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                upstream.id = question.upstream_id,
                "a cost was not stored; it will be asked for again"
            ),
        }
    }
}

async fn settle(context: &Context, question: &Question, bill: &Bill) -> StoreResult<&'static str> {
    let is_free = context
        .config
        .upstream
        .models
        .is_free(&question.model_asked);
    let tokens = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let bill = costs::Bill {
        cost: bill.cost,
        prompt_tokens: tokens(bill.prompt_tokens),
        completion_tokens: tokens(bill.completion_tokens),
        model: bill.model.clone(),
    };
    let mut tx = context.db.sweep().await?;
    let wasted = costs::settle(&mut tx, question.call_id, &bill, is_free).await?;
    tx.commit().await?;
    if let Some(wasted) = wasted {
        metrics::counter!(
            shared::metrics::UPSTREAM_COST,
            "model" => question.model_asked.clone(), "operation" => question.operation.clone(),
            "wasted" => if wasted { "true" } else { "false" }
        )
        .increment(micro_credits(Some(bill.cost)));
    }
    Ok("settled")
}

async fn give_up(context: &Context, question: &Question) -> StoreResult<&'static str> {
    let mut tx = context.db.sweep().await?;
    costs::give_up(&mut tx, question.call_id).await?;
    tx.commit().await?;
    tracing::warn!(
        call.id = %question.call_id,
        upstream.id = question.upstream_id,
        upstream.model = question.model_asked,
        "the cost of a call stays unknown"
    );
    Ok("given_up")
}
