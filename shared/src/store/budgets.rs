//! Reserving and spending credits. A reservation is made in the transaction that accepts a generation, and
//! given back a moment after the generation has ended and the cost of its calls is known; what was spent is
//! counted by the database itself, with the row of usage that says so.

use std::time::Duration;

use rust_decimal::Decimal;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::generations::chain_json;
use super::{OperatorTx, StoreError, StoreResult, SweepTx, UserTx};
use crate::budgets::Limits;
use crate::models::Model;

/// What became of the wish to reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Which budget is used up, if one is; then nothing was reserved.
    pub refused: Option<Exhausted>,
    /// Budgets of which most is used, to be told of now and not again in their period: `user day`.
    pub warned: Vec<String>,
}

/// A budget that is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Whose: `user` or `total`.
    pub scope: String,
    /// `day` or `month`.
    pub period: String,
    /// When the next one begins.
    pub resets_at: OffsetDateTime,
}

/// What everybody has used of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TotalUse {
    /// `day` or `month`.
    pub period: String,
    /// Its first day, by UTC.
    pub starts_on: Date,
    /// Estimates of what is not done yet.
    pub reserved: Decimal,
    /// What was spent.
    pub spent: Decimal,
}

/// Reserves `credits` for a generation that was accepted in this transaction. What is locked for it stays
/// locked until the transaction ends, so this is the last thing to be done in it.
///
/// # Errors
/// When the database fails.
pub async fn reserve(
    tx: &mut UserTx,
    generation_id: Uuid,
    credits: Decimal,
    limits: &Limits,
) -> StoreResult<Reservation> {
    let user_id = tx.user_id();
    let row = sqlx::query!(
        r#"SELECT refused_scope, refused_period, resets_at, warned AS "warned!"
           FROM chat.reserve_budget($1, $2, $3, $4, $5, $6, $7)"#,
        generation_id,
        user_id,
        credits,
        limits.user_day,
        limits.user_month,
        limits.total_day,
        limits.total_month,
    )
    .fetch_one(tx.conn())
    .await?;
    let refused = match (row.refused_scope, row.refused_period, row.resets_at) {
        (Some(scope), Some(period), Some(resets_at)) => Some(Exhausted {
            scope,
            period,
            resets_at,
        }),
        _ => None,
    };
    Ok(Reservation {
        refused,
        warned: row.warned,
    })
}

/// Reserves `credits` for calls in the name of a generation that are no part of its own, under `id`, for `longest`
/// or until [`let_go`].
///
/// # Errors
/// When the database fails.
pub async fn hold(
    tx: &mut UserTx,
    (id, calls_of): (Uuid, Uuid),
    credits: Decimal,
    limits: &Limits,
    longest: Duration,
) -> StoreResult<Reservation> {
    let reservation = reserve(tx, id, credits, limits).await?;
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.budget_reservations r
         SET calls_of = $3, held_until = now() + $4 * interval '1 second'
         WHERE r.generation_id = $1 AND r.user_id = $2",
        id,
        user_id,
        calls_of,
        longest.as_secs_f64(),
    )
    .execute(tx.conn())
    .await?;
    Ok(reservation)
}

/// What was held is given back as soon as the cost of its calls is known.
///
/// # Errors
/// When the database fails.
pub async fn let_go(tx: &mut UserTx, id: Uuid) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.budget_reservations r SET held_until = now() WHERE r.generation_id = $1 AND r.user_id = $2",
        id,
        user_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Makes the rows of this period and the next one of every total that is set, without which nothing is counted
/// in it.
///
/// # Errors
/// When the database fails.
pub async fn open_totals(tx: &mut SweepTx, limits: &Limits) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO chat.budget_totals (period, starts_on)
         SELECT p.period, (p.starts_on + n.ahead * p.length)::date
         FROM (VALUES ('day', date_trunc('day', now() AT TIME ZONE 'UTC'), interval '1 day', $1::boolean),
                      ('month', date_trunc('month', now() AT TIME ZONE 'UTC'), interval '1 month', $2::boolean))
              AS p (period, starts_on, length, is_set)
         CROSS JOIN (VALUES (0), (1)) AS n (ahead)
         WHERE p.is_set ORDER BY 1, 2 ON CONFLICT DO NOTHING",
        limits.total_day.is_some(),
        limits.total_month.is_some(),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether something is reserved for this generation.
///
/// # Errors
/// When the database fails.
pub async fn is_reserved(tx: &mut UserTx, generation_id: Uuid) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let is_reserved = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM chat.budget_reservations WHERE generation_id = $1 AND user_id = $2) AS "is!""#,
        generation_id,
        user_id,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(is_reserved)
}

/// Has a generation that was accepted in this transaction made by these models instead.
///
/// # Errors
/// When the database fails, or there is none.
pub async fn use_models(tx: &mut UserTx, generation_id: Uuid, chain: &[Model]) -> StoreResult<()> {
    let user_id = tx.user_id();
    let Some(first) = crate::models::likely_first(chain) else {
        return Err(StoreError::Corrupt("a generation needs a model".to_owned()));
    };
    sqlx::query!(
        "UPDATE chat.generations g SET model_chain = $3, model = $4, is_free_model = $5
         WHERE g.id = $1 AND g.user_id = $2 AND g.claim_token IS NULL",
        generation_id,
        user_id,
        chain_json(chain),
        first.name,
        first.free,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Budgets of which four fifths are used by now, by what was spent or reserved, and of which nobody was told yet: as
/// `user day` with whose it is. They are told of once.
///
/// # Errors
/// When the database fails.
pub async fn used_up_to_warn(
    tx: &mut SweepTx,
    limits: &Limits,
) -> StoreResult<Vec<(String, Option<Uuid>)>> {
    let totals = sqlx::query_scalar!(
        r#"UPDATE chat.budget_totals t SET warned_at = now()
           WHERE t.warned_at IS NULL AND t.spent + t.reserved >= 0.8 * CASE
               WHEN t.period = 'day' AND t.starts_on = (now() AT TIME ZONE 'UTC')::date THEN $1::numeric
               WHEN t.period = 'month' AND t.starts_on = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN $2
           END RETURNING t.period"#,
        limits.total_day,
        limits.total_month,
    )
    .fetch_all(tx.conn())
    .await?;
    let users = sqlx::query!(
        r#"UPDATE chat.budget_users u SET warned_at = now()
           WHERE u.warned_at IS NULL AND u.spent + u.reserved >= 0.8 * CASE
               WHEN u.period = 'day' AND u.starts_on = (now() AT TIME ZONE 'UTC')::date THEN $1::numeric
               WHEN u.period = 'month' AND u.starts_on = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN $2
           END RETURNING u.user_id, u.period"#,
        limits.user_day,
        limits.user_month,
    )
    .fetch_all(tx.conn())
    .await?;
    let totals = totals
        .into_iter()
        .map(|period| (format!("total {period}"), None));
    let users = users
        .into_iter()
        .map(|row| (format!("user {}", row.period), Some(row.user_id)));
    Ok(totals.chain(users).collect())
}

/// Switches the counting of what is spent on, or off where nobody has wanted it for a day. Writers of usage wait
/// for it, so it gives up soon: call it again. Returns whether anything changed.
///
/// # Errors
/// When the database fails, or somebody is in the way.
pub async fn switch(tx: &mut SweepTx, on: bool) -> StoreResult<bool> {
    let changed = sqlx::query_scalar!(r#"SELECT chat.switch_budgets($1) AS "changed!""#, on)
        .fetch_one(tx.conn())
        .await?;
    Ok(changed)
}

/// Gives back what is reserved for generations that have ended and whose costs are known, or not waited for
/// any more: because nobody asks again, or the call is older than `patience`. Looks at no more than `most` reservations
/// after that of `after`. Returns where to go on, none at the end, and how many were given back.
///
/// # Errors
/// When the database fails.
pub async fn release(
    tx: &mut SweepTx,
    after: Option<Uuid>,
    most: i32,
    patience: Duration,
) -> StoreResult<(Option<Uuid>, i64)> {
    let row = sqlx::query!(
        r#"SELECT seen, released AS "released!" FROM chat.release_budgets($1, $2, $3::float8 * interval '1 second')"#,
        after.unwrap_or_default(),
        most,
        patience.as_secs_f64(),
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((row.seen, row.released))
}

/// Forgets the periods of more than two months ago, at most `limit` of them.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut SweepTx, limit: i64) -> StoreResult<u64> {
    let forgotten = sqlx::query!(
        "DELETE FROM chat.budget_users u WHERE (u.user_id, u.period, u.starts_on) IN (
             SELECT o.user_id, o.period, o.starts_on FROM chat.budget_users o
             WHERE o.starts_on < (now() - interval '70 days')::date LIMIT $1)",
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(forgotten.rows_affected())
}

/// What everybody has used of this day and of this month; nothing while no budget is set.
///
/// # Errors
/// When the database fails.
pub async fn totals(tx: &mut OperatorTx) -> StoreResult<Vec<TotalUse>> {
    let totals = sqlx::query_as!(
        TotalUse,
        "SELECT t.period, t.starts_on, t.reserved, t.spent FROM chat.budget_totals t
         WHERE (t.period = 'day' AND t.starts_on = (now() AT TIME ZONE 'UTC')::date)
            OR (t.period = 'month' AND t.starts_on = date_trunc('month', now() AT TIME ZONE 'UTC')::date)
         ORDER BY t.period"
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(totals)
}
