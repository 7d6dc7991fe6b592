//! Welcomes that nobody else will end: their deadline passed in the queue, or their workers died.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared::domain::Event;
use shared::push::{publish, write_terminal};
use shared::queue;
use shared::store::assessments::{self, Stranded};
use shared::store::generations::{self, Finished, Replacement};
use shared::store::{StoreResult, maintenance};
use uuid::Uuid;

use crate::context::Context;
use crate::jobs::{completed, composed};

/// How often they are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Mended in one pass.
const BATCH: i64 = 200;

/// Mends for ever, one worker at a time.
pub async fn mend(context: Arc<Context>) {
    loop {
        let jitter = rand::rng().random_range(0.7..1.3);
        tokio::time::sleep(LOOK_EVERY.mul_f64(jitter)).await;
        if let Err(error) = pass(&context).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "welcomes that failed were not replaced");
        }
    }
}

async fn pass(context: &Context) -> StoreResult<()> {
    let mut tx = context.db.sweep().await?;
    if !maintenance::try_lock(&mut tx, "welcomes").await? {
        return Ok(());
    }
    let stranded = assessments::stranded(&mut tx, BATCH).await?;
    drop(tx);
    for one in stranded {
        // One that cannot be mended must not keep the others waiting.
        if let Err(error) = compose(context, one).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(assessment.id = %one.assessment_id, error, "a welcome was not replaced");
        }
    }
    Ok(())
}

async fn compose(context: &Context, stranded: Stranded) -> StoreResult<()> {
    let clock = &context.clock;
    let mut tx = context.db.sweep().await?;
    let taken =
        assessments::take_over(&mut tx, clock, stranded, context.worker_id.as_str()).await?;
    let Some(taken) = taken else {
        return Ok(());
    };
    let reply = match taken.replacement {
        Replacement::Claimed { id, token, .. } => {
            Some(composed(context, (id, token), &taken.assessment, None, 0))
        }
        _ => None,
    };
    let stored = match &reply {
        // Nobody else knows the token.
        Some(reply) => Some(generations::finish(&mut tx, reply).await?),
        None => None,
    };
    let reached = assessments::ready(&mut tx, clock, taken.welcome_id, None, None).await?;
    tx.commit().await?;
    context.wake.wake();
    if let (Some(reply), Some(Finished::Stored { message, next, .. })) = (reply, stored) {
        metrics::counter!(shared::metrics::WELCOMES, "made" => "composed").increment(1);
        let ended = completed(&reply, &message);
        let event = ended.event(reply.id, message.conversation_id, 1, clock.now());
        let told = write_terminal(&context.redis, stranded.user_id, &event).await;
        let next = next.iter().map(|next| (next.id, next.priority));
        let pushed = queue::push_back(&context.redis, next).await;
        if let Err(failure) = told.and(pushed) {
            tracing::debug!(generation.id = %reply.id, %failure, "end not pushed");
        }
    }
    if let Some(reached) = reached {
        push(context, stranded.user_id, &reached.event()).await;
    }
    Ok(())
}

/// Tells the person's clients; whoever misses it reads how things are.
pub(crate) async fn push(context: &Context, user_id: Uuid, event: &Event) {
    if let Err(failure) = publish(&context.redis, user_id, event).await {
        tracing::debug!(%failure, "an event was not pushed");
    }
}
