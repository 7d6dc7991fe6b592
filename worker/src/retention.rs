//! Enforcing the retention period: after `RETENTION_DAYS` nothing is left of a message.

use shared::store::{StoreResult, SweepTx, learning, maintenance, retention};
use uuid::Uuid;

use crate::context::Context;

/// Rows removed or looked at in one transaction.
const BATCH: i64 = 1_000;
/// Conversations looked at in one transaction: each that goes takes all of its generations along.
const CONVERSATIONS: i64 = 200;
/// Partitions dropped in one pass: three tables for a year and more.
const MOST_PARTITIONS: usize = 48;
/// Batches of one pass; what is left then waits for the next one.
const MOST_BATCHES: usize = 50;
/// Conversations looked at in one pass.
pub const LOOKED_AT: i64 = CONVERSATIONS * MOST_BATCHES as i64;

/// What went in one pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Months of messages, ledger or usage.
    pub partitions: usize,
    /// Conversations with all that belonged to them.
    pub conversations: u64,
    /// Generations of conversations that go on.
    pub generations: u64,
    /// Opinions on messages.
    pub feedback: u64,
    /// Summaries of what was said.
    pub summaries: u64,
    /// Questions to the help desk, and what was proposed of their answers.
    pub questions: u64,
}

/// How far the conversations have been looked at: those that were begun long ago and are still in use stay, so a
/// pass that began with them again would never come behind them.
#[derive(Debug, Default)]
pub struct Looked(Uuid);

impl Looked {
    /// Whether there are conversations behind those that were looked at.
    pub(crate) const fn has_more(&self) -> bool {
        !self.0.is_nil()
    }
}

/// One pass; one worker at a time does it. None when another one is at it, or nothing ever expires. It goes on where
/// the last one of this worker ended.
///
/// # Errors
/// When the database fails; what was removed until then is gone.
pub async fn pass(context: &Context, looked: &mut Looked) -> StoreResult<Option<Expired>> {
    let days = context.config.retention_days;
    if days == 0 {
        return Ok(None);
    }
    let mut expired = Expired::default();
    // What a drop locks is everybody's, so each is a transaction of its own and does nothing else.
    for _ in 0..MOST_PARTITIONS {
        let Some(mut tx) = begin(context).await? else {
            return Ok(None);
        };
        let dropped = retention::drop_partition(&mut tx, days).await?;
        // Also where there was none: a transaction that is only dropped may hold its lock for a moment more, and the
        // next one would take that for another worker's.
        tx.commit().await?;
        let Some(partition) = dropped else { break };
        tracing::info!(
            partition,
            days,
            "a month is older than the retention period"
        );
        expired.partitions += 1;
    }
    let mut after = Some(looked.0);
    for _ in 0..MOST_BATCHES {
        let Some(mut tx) = begin(context).await? else {
            return Ok(None);
        };
        let mut left = false;
        if let Some(from) = after {
            let batch = retention::expire_conversations(&mut tx, days, from, CONVERSATIONS).await?;
            expired.conversations += batch.expired;
            looked.0 = batch.next.unwrap_or_default();
            after = batch.next;
            left = after.is_some();
        }
        let generations = retention::expire_generations(&mut tx, days, BATCH).await?;
        let feedback = retention::expire_feedback(&mut tx, days, BATCH).await?;
        let summaries = retention::expire_summaries(&mut tx, days, BATCH).await?;
        let questions = learning::expire(&mut tx, days, BATCH).await?;
        tx.commit().await?;
        expired.generations += generations;
        expired.feedback += feedback;
        expired.summaries += summaries;
        expired.questions += questions;
        let batch = BATCH.unsigned_abs();
        left |= [generations, feedback, summaries].contains(&batch) || questions >= batch;
        if !left {
            break;
        }
    }
    Ok(Some(expired))
}

/// A transaction of the one worker that is at it; none when that is another.
async fn begin(context: &Context) -> StoreResult<Option<SweepTx>> {
    let mut tx = context.db.sweep().await?;
    let ours = maintenance::try_lock(&mut tx, "retention").await?;
    Ok(ours.then_some(tx))
}
