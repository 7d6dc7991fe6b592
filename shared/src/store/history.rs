//! Reading what was, from a replica where it has everything that the reader may know of.
//!
//! Before each read the primary is asked how far its log goes, once for all who ask at the same time, and the
//! replica is read once it has replayed that much. So whoever was told of anything (their own write, a reply
//! that a worker stored and another API process pushed) finds it, through whichever process and replica. A
//! replica that is further behind, or away, costs the read nothing but a moment: the primary answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Db, DbConfig, ServingRole, StoreError, StoreResult, UserTx};
use crate::metrics::{DEPENDENCY_UP, HISTORY_READS, REPLICA_LAG};

/// How long a read waits for the replica; the first wait for it, doubled each time.
const PATIENCE: Duration = Duration::from_millis(40);
const FIRST_WAIT: Duration = Duration::from_millis(2);

/// How long nobody asks a replica that was away or behind.
const REST: Duration = Duration::from_secs(1);

/// How often the lag is measured, and for how long one measurement waits.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where history is read.
#[derive(Clone, Debug)]
pub struct History {
    primary: Db,
    replica: Option<Arc<Replica>>,
}

#[derive(Debug)]
struct Replica {
    db: Db,
    /// Whether its connections were found to be of a role that may serve.
    is_checked: AtomicBool,
    epoch: Instant,
    /// Milliseconds after `epoch` until which it is left alone.
    rests_until: AtomicU64,
    /// Questions to the primary that were begun.
    begun: AtomicU64,
    /// The number of the last that was answered, and the answer.
    last: Mutex<(u64, String)>,
}

/// Why the primary is read.
enum Instead {
    Resting,
    Behind,
    Failed(StoreError),
}

impl History {
    /// Reads the primary only, where there is no replica.
    ///
    /// # Errors
    /// When the replica's URL cannot be parsed.
    pub fn connect_lazy(primary: Db, replica: Option<&DbConfig>) -> StoreResult<Self> {
        let replica = replica
            .map(|config| {
                Ok::<_, StoreError>(Arc::new(Replica {
                    db: Db::connect_lazy(config, ServingRole::Api)?,
                    is_checked: AtomicBool::new(false),
                    epoch: Instant::now(),
                    rests_until: AtomicU64::new(0),
                    begun: AtomicU64::new(0),
                    last: Mutex::default(),
                }))
            })
            .transpose()?;
        Ok(Self { primary, replica })
    }

    /// Runs statements that only read, as one person. They may run twice: what a replica breaks off is read
    /// from the primary.
    ///
    /// # Errors
    /// When the primary fails as well, or `work` does.
    pub async fn read<T, F>(
        &self,
        user_id: Uuid,
        work: impl Fn(UserTx) -> F + Send,
    ) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>> + Send,
    {
        if let Some(replica) = &self.replica {
            let read = match replica.fresh(&self.primary, user_id).await {
                Ok(tx) => work(tx).await.map_err(Instead::Failed),
                Err(instead) => Err(instead),
            };
            let server = match read {
                Ok(found) => {
                    count("replica");
                    return Ok(found);
                }
                Err(Instead::Resting) => "primary_resting",
                Err(Instead::Behind) => {
                    replica.rest();
                    "primary_behind"
                }
                Err(Instead::Failed(error)) => {
                    tracing::warn!(
                        error = %error,
                        cause = std::error::Error::source(&error).map(tracing::field::display),
                        "failed to read from the replica; the primary is read"
                    );
                    replica.rest();
                    "primary_failed"
                }
            };
            count(server);
        }
        work(self.primary.user(user_id).await?).await
    }

    /// Measures for ever how long it takes until the replica has what the primary has. Returns at once
    /// where there is none.
    pub async fn watch(&self) {
        let Some(replica) = &self.replica else { return };
        // Since when the replica has been missing this much of the log.
        let mut missing: Option<(Instant, String)> = None;
        loop {
            let (since, lsn) = match missing.take() {
                Some(missing) => missing,
                None => match replica.ask(&self.primary).await {
                    Ok(lsn) => (Instant::now(), lsn),
                    Err(_) => {
                        tokio::time::sleep(LOOK_EVERY).await;
                        continue;
                    }
                },
            };
            let caught_up = replica.catches_up(&lsn, LOOK_EVERY).await;
            let up = f64::from(u8::from(caught_up.is_ok()));
            metrics::gauge!(DEPENDENCY_UP, "dependency" => "replica").set(up);
            metrics::gauge!(REPLICA_LAG).set(since.elapsed().as_secs_f64());
            if !matches!(caught_up, Ok(true)) {
                missing = Some((since, lsn));
            }
            if !matches!(caught_up, Ok(false)) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Closes the connections to the replica.
    pub async fn close(&self) {
        if let Some(replica) = &self.replica {
            replica.db.close().await;
        }
    }
}

fn count(server: &'static str) {
    metrics::counter!(HISTORY_READS, "server" => server).increment(1);
}

impl Replica {
    /// A transaction that sees everything the primary had when this was called.
    async fn fresh(&self, primary: &Db, user_id: Uuid) -> Result<UserTx, Instead> {
        if self.elapsed() < self.rests_until.load(Ordering::Relaxed) {
            return Err(Instead::Resting);
        }
        if !self.is_checked.load(Ordering::Relaxed) {
            self.db.check_role().await.map_err(Instead::Failed)?;
            self.is_checked.store(true, Ordering::Relaxed);
        }
        let asked = async {
            let lsn = self.ask(primary).await?;
            // Behind its address there may be several replicas: what is asked and what is read must be one
            // connection.
            let mut tx = self.db.user(user_id).await?;
            let has_it = replays(&mut tx, &lsn, PATIENCE).await?;
            Ok::<_, StoreError>(has_it.then_some(tx))
        };
        match asked.await {
            Ok(Some(tx)) => Ok(tx),
            Ok(None) => Err(Instead::Behind),
            Err(error) => Err(Instead::Failed(error)),
        }
    }

    /// How far the primary's log goes, asked after this was called. All who call while a question is on its
    /// way share the next one.
    async fn ask(&self, primary: &Db) -> StoreResult<String> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if last.0 > begun {
            return Ok(last.1.clone());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let lsn = log_position(primary).await?;
        *last = (number, lsn.clone());
        Ok(lsn)
    }

    /// Whether the replica gets so far in time.
    async fn catches_up(&self, lsn: &str, patience: Duration) -> StoreResult<bool> {
        // Nobody: the position is not a person's.
        let mut waited = Duration::ZERO;
        loop {
            // Each look is a transaction: one that waits for long is ended by the database.
            let mut tx = self.db.user(Uuid::nil()).await?;
            if replays(&mut tx, lsn, PATIENCE).await? {
                return Ok(true);
            }
            drop(tx);
            if waited >= patience {
                return Ok(false);
            }
            tokio::time::sleep(PATIENCE * 5).await;
            waited += PATIENCE * 6;
        }
    }

    fn rest(&self) {
        let rest = u64::try_from(REST.as_millis()).unwrap_or(u64::MAX);
        self.rests_until
            .store(self.elapsed() + rest, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The end of the log that commits which were acknowledged lie before. Where commits do not wait for the disk,
/// that is the end of what was written to memory.
async fn log_position(primary: &Db) -> StoreResult<String> {
    let mut tx = primary.begin("BEGIN READ ONLY").await?;
    let position = sqlx::query_scalar!(
        r#"SELECT (CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()
                        ELSE pg_current_wal_flush_lsn() END)::text AS "lsn!""#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(position)
}

/// Whether the server of this transaction is a replica that has replayed the log so far, or does within
/// `patience`. The next statement of the transaction then sees it.
async fn replays(tx: &mut UserTx, lsn: &str, patience: Duration) -> StoreResult<bool> {
    let (mut waited, mut wait) = (Duration::ZERO, FIRST_WAIT);
    loop {
        // A server that was promoted is no replica of anything.
        let has_it = sqlx::query_scalar!(
            r#"SELECT pg_is_in_recovery() AND coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false) AS "has_it!""#,
            lsn
        )
        .fetch_one(tx.conn())
        .await?;
        if has_it || waited >= patience {
            return Ok(has_it);
        }
        tokio::time::sleep(wait).await;
        waited += wait;
        wait *= 2;
    }
}
