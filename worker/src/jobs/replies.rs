//! Replies of all jobs are stored together: what comes while one statement runs goes into the next.
//! An idle worker stores a reply at once, a busy one pays for a statement and a commit once for many
//! of them.

use std::sync::Arc;
use std::time::Duration;

use shared::store::generations::{self, Finish, Finished};
use shared::store::{Db, StoreResult};
use tokio::sync::{mpsc, oneshot};

/// Replies stored at a time; more would only hold the locks longer.
const MOST: usize = 64;
/// A statement that takes longer has met a connection that is dead, and holds up all the others.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Waiting {
    reply: Arc<Finish>,
    stored: oneshot::Sender<Option<Finished>>,
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

    /// None when it was not stored or nobody knows: it has to be tried alone.
    pub(super) async fn store(&self, reply: Arc<Finish>) -> Option<Finished> {
        let (stored, result) = oneshot::channel();
        self.0.send(Waiting { reply, stored }).ok()?;
        result.await.ok()?
    }
}

/// Stores replies for as long as there is anybody who may send one.
pub async fn store_replies(db: Db, mut waiting: WaitingReplies) {
    let mut batch = Vec::with_capacity(MOST);
    while waiting.0.recv_many(&mut batch, MOST).await > 0 {
        let replies: Vec<Arc<Finish>> = batch.iter().map(|one| Arc::clone(&one.reply)).collect();
        let all = match tokio::time::timeout(PATIENCE, store(&db, &replies)).await {
            Ok(Ok(all)) => all,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    replies = replies.len(),
                    "replies not stored together"
                );
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(
                    replies = replies.len(),
                    "replies not stored together in time"
                );
                Vec::new()
            }
        };
        let all = all.into_iter().chain(std::iter::repeat_with(|| None));
        for (one, finished) in batch.drain(..).zip(all) {
            // A job that has gone meanwhile needs no answer.
            let _ = one.stored.send(finished);
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
