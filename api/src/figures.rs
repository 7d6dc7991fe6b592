//! What this process counts for the fleet's figures, and what it has told of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::figures::{EVERY, Figures};
use shared::operator::{Operator, Stats};
use shared::store::{StoreResult, figures};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long figures are told again: however often they are asked for, the ledger is read once meanwhile.
const KEPT: Duration = Duration::from_secs(5);
/// How long the last ones may take to be added when the process ends.
const LAST: Duration = Duration::from_secs(1);

/// Adds what was counted every few seconds, and once more at the end.
pub(crate) async fn add_until(
    operator: Operator,
    figures: Arc<Figures>,
    closing: CancellationToken,
) {
    let adding = async {
        loop {
            tokio::time::sleep(EVERY).await;
            add(&operator, &figures).await;
        }
    };
    closing.run_until_cancelled(adding).await;
    let _ = tokio::time::timeout(LAST, add(&operator, &figures)).await;
}

async fn add(operator: &Operator, figures: &Figures) {
    let taken = figures.take();
    if taken.is_empty() {
        return;
    }
    let added = async {
        let mut tx = operator.view.operator().await?;
        figures::add_as_operator(&mut tx, &taken).await?;
        tx.commit().await
    };
    let added: StoreResult<()> = added.await;
    if let Err(error) = added {
        figures.give_back(&taken);
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "figures were not added; they are with the next ones"
        );
    }
}

/// The figures that were told last, by their number of days. Whoever asks while they are read waits for them.
#[derive(Debug, Default)]
pub struct Remembered(Mutex<HashMap<u16, (Instant, Arc<Stats>)>>);

impl Remembered {
    /// The figures of the last `days`, a few seconds old at most.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn of(&self, operator: &Operator, days: u16) -> StoreResult<Arc<Stats>> {
        let mut told = self.0.lock().await;
        told.retain(|_, (at, _)| at.elapsed() < KEPT);
        if let Some((_, stats)) = told.get(&days) {
            return Ok(Arc::clone(stats));
        }
        let stats = Arc::new(operator.stats(days).await?);
        told.insert(days, (Instant::now(), Arc::clone(&stats)));
        Ok(stats)
    }
}
