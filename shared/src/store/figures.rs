//! Figures of the whole fleet, a row for each day.

use std::collections::BTreeMap;

use time::Date;
use uuid::Uuid;

use super::conn::Conn;
use super::{OperatorTx, StoreResult, SweepTx};
use crate::figures::{BUCKETS, Figure, Sum};

/// Days that are kept.
const KEPT_DAYS: i32 = 400;

/// What a worker remembers of questions' vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSize {
    /// How many.
    pub entries: i64,
    /// What they take.
    pub bytes: i64,
}

/// Adds what a worker has counted to today's figures, by the database's clock.
///
/// # Errors
/// When the database fails.
pub async fn add(tx: &mut SweepTx, sums: &BTreeMap<Figure, Sum>) -> StoreResult<()> {
    write(tx.conn(), sums).await
}

/// The same for a process that is no worker.
///
/// # Errors
/// When the database fails.
pub async fn add_as_operator(tx: &mut OperatorTx, sums: &BTreeMap<Figure, Sum>) -> StoreResult<()> {
    write(tx.conn(), sums).await
}

/// In the order of their names, so that two processes do not wait for each other in a circle.
async fn write(connection: Conn<'_>, sums: &BTreeMap<Figure, Sum>) -> StoreResult<()> {
    let mut names: Vec<(String, &Sum)> = sums
        .iter()
        .map(|(figure, sum)| (figure.as_str().to_owned(), sum))
        .collect();
    names.sort_by(|left, right| left.0.cmp(&right.0));
    let flat: Vec<i64> = names
        .iter()
        .flat_map(|(_, sum)| sum.buckets.iter().copied())
        .collect();
    sqlx::query!(
        "INSERT INTO chat.figures AS f (day, name, calls, failed, sum_ms, buckets)
         SELECT (now() AT TIME ZONE 'UTC')::date, n.name, n.calls, n.failed, n.sum_ms,
                ($5::bigint[])[((n.place - 1) * $6 + 1)::integer : (n.place * $6)::integer]
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::double precision[]) WITH ORDINALITY
              n (name, calls, failed, sum_ms, place)
         ORDER BY n.name
         ON CONFLICT (day, name) DO UPDATE
         SET calls = f.calls + EXCLUDED.calls, failed = f.failed + EXCLUDED.failed, sum_ms = f.sum_ms + EXCLUDED.sum_ms,
             buckets = (SELECT array_agg(COALESCE(b.old, 0) + COALESCE(b.new, 0) ORDER BY b.place)
                        FROM unnest(f.buckets, EXCLUDED.buckets) WITH ORDINALITY b (old, new, place))",
        &names.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
        &names.iter().map(|(_, sum)| sum.calls).collect::<Vec<_>>(),
        &names.iter().map(|(_, sum)| sum.failed).collect::<Vec<_>>(),
        &names.iter().map(|(_, sum)| sum.sum_ms).collect::<Vec<_>>(),
        &flat,
        i64::try_from(BUCKETS).unwrap_or(i64::MAX),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes what a worker remembers.
///
/// # Errors
/// When the database fails.
pub async fn remembers(tx: &mut SweepTx, boot: Uuid, size: CacheSize) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.workers SET cache_entries = $2, cache_bytes = $3
         WHERE boot = $1 AND (cache_entries, cache_bytes) IS DISTINCT FROM ($2, $3)",
        boot,
        size.entries,
        size.bytes,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What the workers that live remember together.
///
/// # Errors
/// When the database fails.
pub async fn remembered(tx: &mut OperatorTx) -> StoreResult<CacheSize> {
    let size = sqlx::query_as!(
        CacheSize,
        r#"SELECT COALESCE(sum(w.cache_entries), 0)::bigint AS "entries!", COALESCE(sum(w.cache_bytes), 0)::bigint AS "bytes!"
           FROM chat.workers w WHERE w.stopped_at IS NULL AND w.last_seen_at >= now() - w.lease"#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(size)
}

/// What was counted on these days, the last one included.
///
/// # Errors
/// When the database fails.
pub async fn between(
    tx: &mut OperatorTx,
    from: Date,
    to: Date,
) -> StoreResult<BTreeMap<Figure, Sum>> {
    let rows = sqlx::query!(
        "SELECT f.name, f.calls, f.failed, f.sum_ms, f.buckets FROM chat.figures f WHERE f.day BETWEEN $1 AND $2",
        from,
        to,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut sums: BTreeMap<Figure, Sum> = BTreeMap::new();
    for row in rows {
        // A newer version may count what this one does not know.
        let Some(figure) = Figure::from_name(&row.name) else {
            continue;
        };
        sums.entry(figure).or_default().add(&Sum {
            calls: row.calls,
            failed: row.failed,
            sum_ms: row.sum_ms,
            buckets: row.buckets,
        });
    }
    Ok(sums)
}

/// Forgets figures of long ago.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut SweepTx) -> StoreResult<()> {
    sqlx::query!(
        "DELETE FROM chat.figures WHERE day < (now() AT TIME ZONE 'UTC')::date - $1::integer",
        KEPT_DAYS
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
