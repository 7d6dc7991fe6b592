//! Measuring the queues, once a second for the whole fleet and every API process.
//!
//! What was measured is shown by everybody, this worker included, as `chat.queues` has it.

use shared::models::Model;
use shared::queue::{self, QueuePace};
use shared::store::StoreResult;
use shared::store::queues::{self, Load};

use crate::context::Context;

/// Measures the queues and tells Redis, for estimates.
pub(super) async fn measure(context: &Context) {
    let loads = match measured(context).await {
        Ok(loads) => loads,
        Err(error) => {
            return tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the queues were not measured"
            );
        }
    };
    let paces: Vec<QueuePace> = loads
        .iter()
        .map(|load| QueuePace {
            queue: load.queue,
            depth: load.depth,
            drain: load.drain,
            paused: load.paused,
        })
        .collect();
    let models = context.pace.medians();
    if let Err(failure) = queue::report_pace(&context.redis, &models, &paces).await {
        tracing::debug!(%failure, "pace not reported");
    }
    let models = &context.config.upstream.models;
    let may_pay = |model: &Model| model.free || !models.free_only;
    let usable = models.names().map(|name| models.model(name));
    let usable: Vec<Model> = usable.filter(may_pay).collect();
    let lines = context.pacing.lines(&usable);
    if let Err(failure) = queue::report_lines(&context.redis, &lines).await {
        tracing::debug!(%failure, "lines not reported");
    }
}

async fn measured(context: &Context) -> StoreResult<Vec<Load>> {
    let mut tx = context.db.sweep_async().await?;
    let loads = queues::measure(&mut tx).await?;
    tx.commit().await?;
    Ok(loads)
}
