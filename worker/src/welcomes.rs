//! Welcomes that nobody else will end: their deadline passed in the queue, or their workers died.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared::domain::Event;
use shared::push::publish;
use shared::store::assessments::{self, Stranded};
use shared::store::{StoreResult, maintenance};
use uuid::Uuid;

use crate::context::Context;

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
        compose(context, one).await?;
    }
    Ok(())
}

async fn compose(context: &Context, stranded: Stranded) -> StoreResult<()> {
    let Stranded {
        user_id,
        assessment_id,
    } = stranded;
    let clock = &context.clock;
    let mut tx = context.db.user(user_id).await?;
    // Another worker may be at it as well; the lock shows what it did.
    let registered = assessments::register(&mut tx, clock, assessment_id, None, None).await?;
    let Some(registered) = registered else {
        return Ok(());
    };
    let (message, reached) = assessments::compose(&mut tx, clock, &registered.assessment).await?;
    let conversation = assessments::conversation_of(&mut tx, assessment_id).await?;
    tx.commit().await?;
    context.wake.wake();
    let now = clock.now();
    if let Some(conversation) = conversation.filter(|_| message.is_some()) {
        metrics::counter!(shared::metrics::WELCOMES, "made" => "composed").increment(1);
        push(
            context,
            user_id,
            &Event::conversation_updated(&conversation, now),
        )
        .await;
    }
    if let Some(reached) = reached {
        push(context, user_id, &reached.event()).await;
    }
    Ok(())
}

/// Tells the person's clients; whoever misses it reads how things are.
pub(crate) async fn push(context: &Context, user_id: Uuid, event: &Event) {
    if let Err(failure) = publish(&context.redis, user_id, event).await {
        tracing::debug!(%failure, "an event was not pushed");
    }
}
