//! Replies of all jobs are stored together: what comes while one statement runs goes into the next.
//! An idle worker stores a reply at once, a busy one pays for a statement and a commit once for many
//! of them.

use std::sync::Arc;
use std::time::Duration;

use shared::store::generations::{self, Finish, Finished};
use shared::store::{Db, StoreError, StoreResult};
use tokio::sync::{mpsc, oneshot};

/// Replies stored at a time; more would only hold the locks longer.
const MOST: usize = 64;
/// A statement that takes longer has met a connection that is dead, and holds up all the others; or
/// a database that cannot keep up, so the next one is given twice the time.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_PATIENCE: Duration = Duration::from_secs(40);

/// What became of a reply among others.
#[derive(Debug)]
pub(super) enum Together {
    Ended(Finished),
    /// Its rows were locked, its claim was lost, or one of the others spoilt the statement: it has to
    /// be tried alone.
    Alone,
    /// The database was away or too slow, and nobody knows what it did. Each alone would be more
    /// work for it than all together again.
    Late,
}

#[derive(Debug)]
struct Waiting {
    reply: Arc<Finish>,
    stored: oneshot::Sender<Together>,
}

/// The way to store a reply with the others.
#[derive(Debug)]
pub struct Replies(mpsc::UnboundedSender<Waiting>);

/// The replies that wait to be stored.
#[derive(Debug)]
pub struct WaitingReplies(mpsc::UnboundedReceiver<Waiting>);

impl Replies {
    /// Both ends. A worker's places bound how many wait.
    #[must_use]
    pub fn new() -> (Self, WaitingReplies) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), WaitingReplies(receiver))
    }

    /// Stores a reply with those of others.
    pub(super) async fn store(&self, reply: Arc<Finish>) -> Together {
        let (stored, result) = oneshot::channel();
        match self.0.send(Waiting { reply, stored }) {
            Ok(()) => result.await.unwrap_or(Together::Alone),
            Err(_) => Together::Alone,
        }
    }
}

/// Stores replies for as long as there is anybody who may send one.
pub async fn store_replies(db: Db, mut waiting: WaitingReplies) {
    let mut batch = Vec::with_capacity(MOST);
    let mut patience = PATIENCE;
    while waiting.0.recv_many(&mut batch, MOST).await > 0 {
        let replies: Vec<Arc<Finish>> = batch.iter().map(|one| Arc::clone(&one.reply)).collect();
        let outcome = tokio::time::timeout(patience, store(&db, &replies)).await;
        patience = match &outcome {
            Ok(_) => PATIENCE,
            Err(_) => MOST_PATIENCE.min(patience * 2),
        };
        let all: Vec<Together> = match outcome.unwrap_or(Err(StoreError::Late)) {
            Ok(all) => all
                .into_iter()
                .map(|ended| ended.map_or(Together::Alone, Together::Ended))
                .collect(),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    replies = replies.len(),
                    "replies not stored together"
                );
                let each = if error.is_unavailable() {
                    || Together::Late
                } else {
                    || Together::Alone
                };
                std::iter::repeat_with(each).take(replies.len()).collect()
            }
        };
        for (one, outcome) in batch.drain(..).zip(all) {
            // A job that has gone meanwhile needs no answer.
            let _ = one.stored.send(outcome);
        }
    }
}

async fn store(db: &Db, replies: &[Arc<Finish>]) -> StoreResult<Vec<Option<Finished>>> {
    let mut tx = db.sweep_statement().await?;
    let replies: Vec<&Finish> = replies.iter().map(|reply| &**reply).collect();
    let all = generations::finish_many(&mut tx, &replies).await?;
    tx.commit().await?;
    Ok(all)
}
