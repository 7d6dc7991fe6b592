//! Keeps indexes of the vectors where collections are large, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use shared::store::StoreResult;
use shared::store::knowledge::indexes::{self, Changed, Which};

use crate::context::Context;
use crate::turns;

/// How often is looked whether anything has changed.
const LOOK: Duration = Duration::from_secs(5);

/// Looks for ever. What was looked at is looked at again only after an upload or a change of models.
pub async fn keep_indexes(context: Arc<Context>) {
    let mut seen = String::new();
    loop {
        // To count a large collection is dear, and what one has seen to is there for all.
        if !turns::is_ours(&context, "indexes", LOOK.mul_f64(0.75)).await {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match look(&context, &seen).await {
            Ok(Some(signature)) => seen = signature,
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "indexes of vectors were not arranged"
            ),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What was seen to the end; none where there was nothing new, or another worker was at it.
async fn look(context: &Context, seen: &str) -> StoreResult<Option<String>> {
    let mut tx = context.db.sweep().await?;
    let signature = indexes::signature(&mut tx).await?;
    tx.commit().await?;
    if signature == seen {
        return Ok(None);
    }
    let rules = context.config.knowledge.index;
    let began = std::time::Instant::now();
    let changed = indexes::arrange(&context.config.db, rules, Which::Serving).await?;
    if let Some(changed) = changed.filter(|changed| *changed != Changed::default()) {
        tracing::info!(
            made = changed.made,
            dropped = changed.dropped,
            took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "indexes of vectors changed"
        );
    }
    Ok(changed.map(|_| signature))
}
