//! Looking out for people and models that take far more than before.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::{Anomaly, credits};
use shared::store::{StoreResult, anomalies, maintenance};

use crate::context::Context;
use crate::turns;

/// Two weeks of usage are read for a look, by one worker for all.
const LOOK_EVERY: Duration = Duration::from_mins(15);
/// What was told is not told again for so long.
const TOLD_FOR: Duration = Duration::from_hours(24);

/// Looks for ever.
pub async fn watch_usage(context: Arc<Context>) {
    if context.config.anomalies.factor.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let looked = match turns::is_ours(&context, "anomalies", LOOK_EVERY.mul_f64(0.85)).await {
            true => look(&context).await,
            false => Ok(Vec::new()),
        };
        match looked {
            Ok(found) => {
                for anomaly in &found {
                    tell(&context, anomaly).await;
                }
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "nobody looked for anomalies"
            ),
        }
        tokio::time::sleep(LOOK_EVERY.mul_f64(0.9 + rand::random::<f64>() * 0.2)).await;
    }
}

async fn look(context: &Context) -> StoreResult<Vec<Anomaly>> {
    let mut tx = context.db.sweep().await?;
    if !maintenance::try_lock(&mut tx, "anomalies").await? {
        return Ok(Vec::new());
    }
    anomalies::sweep(&mut tx, &context.config.anomalies).await
}

/// Once a day; while Redis is away, at every look.
async fn tell(context: &Context, anomaly: &Anomaly) {
    let Anomaly {
        about, of, unit, ..
    } = anomaly;
    let what = format!("anomaly:{about}:{unit}:{of}");
    if !turns::is_ours(context, &what, TOLD_FOR).await {
        return;
    }
    metrics::counter!(
        shared::metrics::USAGE_ANOMALIES,
        "about" => about.clone(), "unit" => unit.clone()
    )
    .increment(1);
    tracing::warn!(
        about,
        of,
        unit,
        amount = credits::text(anomaly.amount),
        usual = credits::text(anomaly.usual),
        "far more was used in 24 hours than on the days before"
    );
}
