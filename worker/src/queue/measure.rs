//! Measuring the queues, once a second for the whole fleet and every API process.

use shared::queue::{self, QueuePace};
use shared::store::StoreResult;
use shared::store::queues::{self, Load};

use crate::context::Context;

/// Measures the queues and tells Redis, for estimates, and Prometheus.
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
    for load in &loads {
        let name = load.queue.as_str();
        metrics::gauge!(shared::metrics::QUEUE_DEPTH, "priority" => name).set(load.depth as f64);
        metrics::gauge!(shared::metrics::PARKED, "priority" => name).set(load.parked as f64);
        metrics::gauge!(shared::metrics::OLDEST_WAIT, "priority" => name)
            .set(load.oldest_wait_seconds.unwrap_or(0.0));
        metrics::gauge!(shared::metrics::QUEUE_PAUSED, "priority" => name)
            .set(f64::from(u8::from(load.paused)));
    }
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
}

async fn measured(context: &Context) -> StoreResult<Vec<Load>> {
    let mut tx = context.db.sweep_async().await?;
    let loads = queues::measure(&mut tx).await?;
    tx.commit().await?;
    Ok(loads)
}
