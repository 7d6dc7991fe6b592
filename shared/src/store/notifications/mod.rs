//! The outbox of notifications. Rows are made by a trigger on `chat.generations`, in the statement
//! that ends a generation; this module takes, settles and forgets them.
//!
//! **Rule:** of a conversation only the oldest undelivered notification is tried at a destination. A
//! row is taken with a token and a lease, and whoever settles it shows the token; it is gone once it
//! was delivered.

mod dead;
mod settle;
mod take;

pub use dead::{Filter, Which, counts, discard, like, list, owners, replay};
pub use settle::{Failure, Settled, Settlement, settle};
pub use take::{Content, Taken, TakenStage, contents, is_work, take};

use uuid::Uuid;

use super::{StoreResult, SweepTx};
use crate::domain::Destination;

/// Failures in a row after which one notification at a time is tried.
pub const TRIP: i32 = 5;
/// Rows of a backlog that are counted; one that is longer is shown as this.
const COUNTED: i64 = 100_000;

/// Makes these the wanted destinations. Returns whether anything changed.
///
/// # Errors
/// When the database fails; a conflict, when writers of generations did not make room in time. It may
/// be called again.
pub async fn switch(tx: &mut SweepTx, destinations: &[Destination]) -> StoreResult<bool> {
    let names: Vec<String> = destinations.iter().map(ToString::to_string).collect();
    let changed = sqlx::query_scalar!(
        r#"SELECT chat.switch_notifications($1) AS "changed!""#,
        &names
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(changed)
}

/// How the notifications of one destination are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backlog {
    /// Undelivered ones, dead ones aside; counted up to 100,000.
    pub undelivered: i64,
    /// Since how many seconds the oldest of them waits.
    pub oldest_seconds: Option<f64>,
    /// Those that wait for an operator.
    pub dead: i64,
    /// Whether so many tries failed in a row that one at a time is tried.
    pub tripped: bool,
}

/// Measures one destination.
///
/// # Errors
/// When the database fails.
pub async fn backlog(tx: &mut SweepTx, destination: Destination) -> StoreResult<Backlog> {
    let backlog = sqlx::query_as!(
        Backlog,
        r#"SELECT (SELECT count(*) FROM (SELECT FROM chat.notifications n
                   WHERE n.destination = d.name AND n.dead_at IS NULL LIMIT $2) few) AS "undelivered!",
                  extract(epoch FROM now() - (
                      SELECT n.occurred_at FROM chat.notifications n
                      WHERE n.dead_at IS NULL AND n.destination = d.name ORDER BY n.id, n.destination LIMIT 1
                  ))::float8 AS oldest_seconds,
                  (SELECT count(*) FROM (SELECT FROM chat.notifications n
                   WHERE n.destination = d.name AND n.dead_at IS NOT NULL LIMIT $2) few) AS "dead!",
                  d.failures >= $3 AS "tripped!"
           FROM chat.notification_destinations d WHERE d.name = $1"#,
        destination.as_str(),
        COUNTED,
        TRIP,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(backlog)
}

/// Forgets what is older than 30 days: dead notifications that no operator settled, and those of a
/// destination that nobody serves any more. At most `limit` of them. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut SweepTx, limit: i64) -> StoreResult<u64> {
    let forgotten = sqlx::query!(
        "DELETE FROM chat.notifications WHERE (id, destination) IN (
             SELECT id, destination FROM chat.notifications
             WHERE id < chat.uuid7_floor(now() - interval '30 days') AND claim_token IS NULL
             ORDER BY id, destination LIMIT $1)",
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(forgotten.rows_affected())
}

/// Names one notification at one destination while it is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The notification.
    pub id: Uuid,
    /// Proves the claim.
    pub token: Uuid,
}
