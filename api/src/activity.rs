//! Shows how many conversations are going on.

use std::time::Duration;

use shared::operator::Operator;
use shared::store::{StoreResult, activity};

/// How often they are counted.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A conversation goes on for so long after something was asked in it.
const WITHIN: Duration = Duration::from_mins(5);

/// Counts for ever; what cannot be counted is shown as it was.
pub(crate) async fn watch(operator: Operator) {
    loop {
        match count(&operator).await {
            Ok(active) => {
                metrics::gauge!(shared::metrics::CONVERSATIONS_ACTIVE).set(active as f64);
            }
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "conversations not counted"
            ),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn count(operator: &Operator) -> StoreResult<i64> {
    let mut tx = operator.view.operator().await?;
    activity::conversations(&mut tx, WITHIN).await
}
