//! Taking over from an earlier life of this worker.
//!
//! What the predecessor left is freed at boot and not when its leases run out; but a name may be two
//! workers' by mistake, or for the time of a deploy. So the roll is called first: whoever of this name
//! lives signs the register within the second, and what it runs is left alone. The database's clock
//! decides who was in time.

use std::sync::Arc;
use std::time::Duration;

use shared::push::broadcast_gates;
use shared::queue::push_front;
use shared::store::StoreResult;
use shared::store::fleet::{self, Namesakes};
use shared::store::generations::{self, Handover};

use crate::context::Context;
use crate::queue::beat;

/// Between two looks at who has answered.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two tries while the database is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Frees what nobody of this name runs any more. Ends when that is done.
pub async fn roll_call(context: Arc<Context>) {
    while let Err(error) = call(&context).await {
        // Those who live could not sign either, so it is called again from the beginning.
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "predecessor's work not freed yet"
        );
        tokio::time::sleep(AGAIN).await;
    }
}

async fn call(context: &Context) -> StoreResult<()> {
    let settings = &context.config.queue;
    let mut tx = context.db.sweep().await?;
    beat(context, &mut tx).await?;
    let handover = Handover {
        called_at: fleet::call(&mut tx, context.boot).await?,
        wait: settings.roll_call,
        stagger: settings.stagger(),
    };
    tx.commit().await?;
    // They look each second; this only spares them the second.
    if let Err(failure) = broadcast_gates(&context.redis).await {
        tracing::debug!(%failure, "the roll call was not broadcast");
    }
    let mut warned = false;
    loop {
        let namesakes = look(context, &handover).await?;
        if namesakes.living > 0 && !warned {
            warned = true;
            tracing::warn!(
                worker.name = settings.name,
                living = namesakes.living,
                "another worker of this name lives; what it runs is left to it: give each its own WORKER_NAME"
            );
        }
        if namesakes.silent == 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Frees what is surely left behind, and says who has answered.
async fn look(context: &Context, handover: &Handover) -> StoreResult<Namesakes> {
    let name = &context.config.queue.name;
    let mut tx = context.db.sweep().await?;
    let freed = generations::free_predecessor(&mut tx, name, &context.worker_id, handover).await?;
    let (called_at, wait) = (handover.called_at, handover.wait);
    fleet::succeed(&mut tx, name, context.boot, called_at, wait).await?;
    let namesakes = fleet::namesakes(&mut tx, name, context.boot, called_at).await?;
    tx.commit().await?;
    if !freed.is_empty() {
        tracing::info!(count = freed.len(), "freed what the predecessor held");
        if let Err(failure) = push_front(&context.redis, freed).await {
            tracing::debug!(%failure, "not pushed; the sweeps will find it");
        }
    }
    Ok(namesakes)
}
