//! What became of tries.

use std::time::Duration;

use uuid::Uuid;

use super::{Held, TRIP};
use crate::domain::Destination;
use crate::store::{StoreResult, SweepTx};

/// The longest a destination is left alone after failures.
const LONGEST_PAUSE: f64 = 60.0;
/// What waited for its next try while the destination was away comes back within so many seconds.
const RETURN_WITHIN: f64 = 10.0;
/// Of it, so many rows.
const RETURNING: i64 = 1_000;

/// How one try ended.
#[derive(Clone, Debug)]
pub enum Settlement {
    /// The destination has it.
    Delivered,
    /// There is nothing left to tell.
    Void,
    /// It was not tried after all.
    Untried,
    /// The destination does not have it, or nobody knows.
    Failed(Failure),
}

/// A try that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Status or kind of failure, for operators; never what the receiver said.
    pub error: String,
    /// How long to wait before the next try.
    pub wait: Duration,
    /// The destination wants no more.
    pub gone: bool,
    /// The destination asked to be left alone for so long.
    pub pause: Option<Duration>,
}

/// What was settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Delivered ones that are gone.
    pub delivered: u64,
    /// Those that had nothing left to tell.
    pub void: u64,
    /// Those that will be tried again.
    pub retried: u64,
    /// Those that were given up.
    pub dead: u64,
    /// Those whose claim had run out: somebody else tries them.
    pub lost: u64,
}

/// Settles tries. What failed is tried again after its wait, or given up once it has been tried for
/// `give_up_after`. `jitter` is a random number from 0 to 1.
///
/// # Errors
/// When the database fails.
pub async fn settle(
    tx: &mut SweepTx,
    destination: Destination,
    ended: &[(Held, Settlement)],
    give_up_after: Duration,
    jitter: f64,
) -> StoreResult<Settled> {
    let mut settled = Settled {
        lost: ended.len() as u64,
        ..Settled::default()
    };
    let of = |wanted: fn(&Settlement) -> bool| -> Vec<Held> {
        let matching = ended.iter().filter(|(_, how)| wanted(how));
        matching.map(|(held, _)| *held).collect()
    };
    let delivered = of(|how| matches!(how, Settlement::Delivered));
    let void = of(|how| matches!(how, Settlement::Void));
    let untried = of(|how| matches!(how, Settlement::Untried));
    let failed: Vec<(Held, &Failure)> = ended
        .iter()
        .filter_map(|(held, how)| match how {
            Settlement::Failed(failure) => Some((*held, failure)),
            _ => None,
        })
        .collect();
    if !delivered.is_empty() {
        settled.delivered = remove(tx, destination, &delivered).await?;
    }
    if !void.is_empty() {
        settled.void = remove(tx, destination, &void).await?;
    }
    if !untried.is_empty() {
        settled.lost -= give_back(tx, destination, &untried).await?;
    }
    if !failed.is_empty() {
        (settled.retried, settled.dead) = fail(tx, destination, &failed, give_up_after).await?;
    }
    settled.lost -= settled.delivered + settled.void + settled.retried + settled.dead;
    let pause = failed.iter().filter_map(|(_, failure)| failure.pause).max();
    if !delivered.is_empty() {
        answered(tx, destination).await?;
    } else if !failed.is_empty() {
        refused(tx, destination, failed.len(), jitter).await?;
    }
    if let Some(pause) = pause {
        leave_alone(tx, destination, pause).await?;
    }
    Ok(settled)
}

fn columns(held: &[Held]) -> (Vec<Uuid>, Vec<Uuid>) {
    held.iter().map(|held| (held.id, held.token)).unzip()
}

/// Removes rows, and lets the next of their conversations go at once: a failure of the one before may
/// have put it off.
async fn remove(tx: &mut SweepTx, destination: Destination, held: &[Held]) -> StoreResult<u64> {
    let (ids, tokens) = columns(held);
    let removed = sqlx::query_scalar!(
        r#"WITH gone AS (
               DELETE FROM chat.notifications n USING unnest($2::uuid[], $3::uuid[]) AS h (id, token)
               WHERE n.id = h.id AND n.destination = $1 AND n.claim_token = h.token
               RETURNING n.conversation_id, n.place
           ), next AS (
               UPDATE chat.notifications f SET next_try_at = now()
               FROM gone g CROSS JOIN LATERAL (
                   SELECT o.id FROM chat.notifications o
                   WHERE o.conversation_id = g.conversation_id AND o.destination = $1 AND o.dead_at IS NULL
                     AND o.place > g.place
                   ORDER BY o.place LIMIT 1) n
               WHERE f.id = n.id AND f.destination = $1 AND f.claim_token IS NULL AND f.next_try_at > now()
           )
           SELECT count(*) AS "removed!" FROM gone"#,
        destination.as_str(),
        &ids,
        &tokens,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(u64::try_from(removed).unwrap_or(0))
}

async fn give_back(tx: &mut SweepTx, destination: Destination, held: &[Held]) -> StoreResult<u64> {
    let (ids, tokens) = columns(held);
    let given = sqlx::query!(
        "UPDATE chat.notifications n
         SET claim_token = NULL, next_try_at = now(), attempts = n.attempts - 1,
             first_try_at = CASE WHEN n.attempts > 1 THEN n.first_try_at END
         FROM unnest($2::uuid[], $3::uuid[]) AS h (id, token)
         WHERE n.id = h.id AND n.destination = $1 AND n.claim_token = h.token",
        destination.as_str(),
        &ids,
        &tokens,
    )
    .execute(tx.conn())
    .await?;
    Ok(given.rows_affected())
}

/// Those behind a row that waits wait as long as it does, so that nobody looks at them in vain. Those
/// behind a dead one go at once.
async fn fail(
    tx: &mut SweepTx,
    destination: Destination,
    failed: &[(Held, &Failure)],
    give_up_after: Duration,
) -> StoreResult<(u64, u64)> {
    let held: Vec<Held> = failed.iter().map(|(held, _)| *held).collect();
    let (ids, tokens) = columns(&held);
    let row = sqlx::query!(
        r#"WITH failed AS (
               UPDATE chat.notifications n
               SET claim_token = NULL, last_error = h.error, next_try_at = now() + h.wait * interval '1 second',
                   dead_at = CASE WHEN h.gone OR n.first_try_at + $7 * interval '1 second' <= now() THEN now() END,
                   dead_reason = CASE WHEN h.gone THEN 'gone'
                                      WHEN n.first_try_at + $7 * interval '1 second' <= now()
                                      THEN 'tries_exhausted' END
               FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::float8[], $6::boolean[])
                    AS h (id, token, error, wait, gone)
               WHERE n.id = h.id AND n.destination = $1 AND n.claim_token = h.token
               RETURNING n.conversation_id, n.place, n.next_try_at, n.dead_at
           ), behind AS (
               UPDATE chat.notifications f
               SET next_try_at = CASE WHEN d.dead_at IS NULL THEN d.next_try_at ELSE now() END
               FROM failed d
               WHERE f.conversation_id = d.conversation_id AND f.destination = $1 AND f.place > d.place
                 AND f.dead_at IS NULL AND f.claim_token IS NULL
                 AND CASE WHEN d.dead_at IS NULL THEN f.next_try_at < d.next_try_at ELSE f.next_try_at > now() END
           )
           SELECT count(*) FILTER (WHERE dead_at IS NULL) AS "retried!",
                  count(*) FILTER (WHERE dead_at IS NOT NULL) AS "dead!" FROM failed"#,
        destination.as_str(),
        &ids,
        &tokens,
        failed.iter().map(|(_, failure)| failure.error.as_str()).collect::<Vec<_>>() as _,
        &failed.iter().map(|(_, failure)| failure.wait.as_secs_f64()).collect::<Vec<_>>(),
        &failed.iter().map(|(_, failure)| failure.gone).collect::<Vec<_>>(),
        give_up_after.as_secs_f64(),
    )
    .fetch_one(tx.conn())
    .await?;
    let number = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok((number(row.retried), number(row.dead)))
}

/// The destination works. What waited because it did not comes back, spread over some seconds.
async fn answered(tx: &mut SweepTx, destination: Destination) -> StoreResult<()> {
    let was = sqlx::query_scalar!(
        r#"WITH was AS (
               SELECT d.name, d.failures FROM chat.notification_destinations d
               WHERE d.name = $1 AND d.failures > 0 FOR NO KEY UPDATE
           )
           UPDATE chat.notification_destinations d
           SET failures = 0,
               paused_until = CASE WHEN w.failures >= $2 THEN '-infinity' ELSE d.paused_until END
           FROM was w WHERE d.name = w.name
           RETURNING w.failures"#,
        destination.as_str(),
        TRIP,
    )
    .fetch_optional(tx.conn())
    .await?;
    if was.is_none_or(|failures| failures < TRIP) {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE chat.notifications n SET next_try_at = LEAST(n.next_try_at, now() + random() * $2 * interval '1 second')
         FROM (SELECT o.id FROM chat.notifications o
               WHERE o.destination = $1 AND o.dead_at IS NULL AND o.next_try_at > now() AND o.claim_token IS NULL
               ORDER BY o.next_try_at LIMIT $3 FOR UPDATE SKIP LOCKED) w
         WHERE n.id = w.id AND n.destination = $1",
        destination.as_str(),
        RETURN_WITHIN,
        RETURNING,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Counts failures in a row. A pause grows with each single try that fails after it, and not with those
/// that were on their way when it began.
async fn refused(
    tx: &mut SweepTx,
    destination: Destination,
    failures: usize,
    jitter: f64,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.notification_destinations d
         SET failures = n.failures,
             paused_until = CASE WHEN n.failures >= $3 THEN GREATEST(d.paused_until,
                 now() + LEAST($4::float8, power(2, LEAST(n.failures - $3, 16))) * (0.5 + $5::float8 / 2) * interval '1 second')
                 ELSE d.paused_until END
         FROM (SELECT o.name, CASE WHEN o.failures < $3 THEN LEAST(o.failures + $2, $3)
                                   ELSE LEAST(o.failures + 1, 1000000) END AS failures
               FROM chat.notification_destinations o
               WHERE o.name = $1 AND (o.failures < $3 OR o.paused_until <= now()) FOR NO KEY UPDATE) n
         WHERE d.name = n.name",
        destination.as_str(),
        i32::try_from(failures).unwrap_or(TRIP),
        TRIP,
        LONGEST_PAUSE,
        jitter,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn leave_alone(
    tx: &mut SweepTx,
    destination: Destination,
    pause: Duration,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.notification_destinations d
         SET paused_until = GREATEST(d.paused_until, now() + $2 * interval '1 second') WHERE d.name = $1",
        destination.as_str(),
        pause.as_secs_f64(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
