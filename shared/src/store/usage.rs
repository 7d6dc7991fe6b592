//! What calls took, added up: for their person, and for operators.
//!
//! The rows are found by their ids, which tell the time by the clock of the process that made the call;
//! which day they belong to, the database's clock has said. A day on either side bridges the two.
//!
//! An answer that no model gave has a row as well, so that every reply has one, under a name that is no model's
//! ([`TEMPLATE`](crate::domain::TEMPLATE)). It was no call, and is left out of everything here.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{OperatorTx, StoreResult, UserTx};
use crate::domain::{DailySpending, Spending};

/// A stretch of time, its end excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: OffsetDateTime,
    /// Its end.
    pub until: OffsetDateTime,
}

/// What somebody or everybody used.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// All of it.
    pub total: Spending,
    /// By the model that served.
    pub by_model: BTreeMap<String, Spending>,
    /// By what it was for: completion, title, embedding, classification.
    pub by_operation: BTreeMap<String, Spending>,
    /// By day, those without any calls left out.
    pub daily: Vec<DailySpending>,
}

/// What was done in conversations, beside what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Conversations in which something was asked or answered.
    pub conversations: i64,
    /// Messages that were sent, and replies to them.
    pub messages: i64,
}

/// A part of what a conversation used.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it was for.
    pub operation: String,
    /// The model that served.
    pub model: String,
    /// Its sums.
    pub spending: Spending,
}

/// What one person used.
#[derive(Clone, Copy, Debug)]
pub struct UserSpending {
    /// Who.
    pub user_id: Uuid,
    /// Their sums.
    pub spending: Spending,
}

/// The sums of a row. A macro, because each query has a record type of its own.
macro_rules! spending {
    ($row:expr) => {
        sums(Sums {
            calls: $row.calls,
            prompt_tokens: $row.prompt_tokens,
            completion_tokens: $row.completion_tokens,
            cost: $row.cost,
            unknown: $row.unknown,
            wasted: $row.wasted,
            wasted_cost: $row.wasted_cost,
        })
    };
}

struct Sums {
    calls: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    cost: Option<Decimal>,
    unknown: i64,
    wasted: i64,
    wasted_cost: Option<Decimal>,
}

/// A sum over nothing is zero; a sum over what is not known is not known.
fn sums(row: Sums) -> Spending {
    let zero_of_none = |count: i64| (count == 0).then_some(Decimal::ZERO);
    Spending {
        calls: row.calls,
        prompt_tokens: row.prompt_tokens,
        completion_tokens: row.completion_tokens,
        total_tokens: row.prompt_tokens + row.completion_tokens,
        cost: row.cost.or(zero_of_none(row.calls)),
        unknown_cost_calls: row.unknown,
        wasted_calls: row.wasted,
        wasted_cost: row.wasted_cost.or(zero_of_none(row.wasted)),
    }
}

/// The columns of [`Sums`] over rows `u`.
macro_rules! usage_query {
    ($head:literal + $tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query!(
            $head + r#" count(*) AS "calls!", COALESCE(sum(u.prompt_tokens), 0)::bigint AS "prompt_tokens!",
                 COALESCE(sum(u.completion_tokens), 0)::bigint AS "completion_tokens!",
                 sum(u.cost_credits) AS cost, count(*) FILTER (WHERE u.cost_credits IS NULL) AS "unknown!",
                 count(*) FILTER (WHERE u.wasted) AS "wasted!",
                 sum(u.cost_credits) FILTER (WHERE u.wasted) AS wasted_cost "# + $tail
            $(, $arg)*
        )
    };
}

struct Grouped {
    model: Option<String>,
    operation: Option<String>,
    day: Option<Date>,
    spending: Spending,
}

fn totals(rows: impl IntoIterator<Item = Grouped>) -> Totals {
    let mut totals = Totals {
        total: Spending::nothing(),
        ..Totals::default()
    };
    for row in rows {
        match row {
            Grouped {
                model: Some(model),
                spending,
                ..
            } => {
                totals.by_model.insert(model, spending);
            }
            Grouped {
                operation: Some(operation),
                spending,
                ..
            } => {
                totals.by_operation.insert(operation, spending);
            }
            Grouped {
                day: Some(date),
                spending,
                ..
            } => totals.daily.push(DailySpending { date, spending }),
            Grouped { spending, .. } => totals.total = spending,
        }
    }
    totals.daily.sort_unstable_by_key(|daily| daily.date);
    totals
}

/// What the person used.
///
/// # Errors
/// When the database fails.
pub async fn summary(tx: &mut UserTx, span: Span) -> StoreResult<Totals> {
    let user_id = tx.user_id();
    let rows = usage_query!(
        r#"SELECT u.model AS "model?", u.operation AS "operation?", u.day AS "day?","#
            + "FROM (
                 SELECT u.*, (u.created_at AT TIME ZONE 'UTC')::date AS day FROM chat.usage_tracking u
                 WHERE u.model <> 'template' AND u.user_id = $1 AND u.created_at >= $2 AND u.created_at < $3
                   AND u.id >= chat.uuid7_floor($2 - interval '1 day')
                   AND u.id < chat.uuid7_floor($3 + interval '1 day')
             ) u GROUP BY GROUPING SETS ((), (u.model), (u.operation), (u.day))",
        user_id,
        span.from,
        span.until,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(totals(rows.into_iter().map(|row| Grouped {
        spending: spending!(row),
        model: row.model,
        operation: row.operation,
        day: row.day,
    })))
}

/// How much the person did.
///
/// # Errors
/// When the database fails.
pub async fn activity(tx: &mut UserTx, span: Span) -> StoreResult<Activity> {
    let user_id = tx.user_id();
    let row = sqlx::query!(
        r#"SELECT count(DISTINCT g.conversation_id) AS "conversations!",
                  count(*) FILTER (WHERE g.kind = 'reply') + count(g.assistant_message_id) AS "messages!"
           FROM chat.generations g
           WHERE g.user_id = $1 AND g.kind <> 'title' AND g.queued_at >= $2 AND g.queued_at < $3
             AND g.id >= chat.uuid7_floor($2 - interval '1 day') AND g.id < chat.uuid7_floor($3 + interval '1 day')"#,
        user_id,
        span.from,
        span.until,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Activity {
        conversations: row.conversations,
        messages: row.messages,
    })
}

/// What a conversation of the person used, by operation and model.
///
/// # Errors
/// When the database fails.
pub async fn of_conversation(tx: &mut UserTx, conversation_id: Uuid) -> StoreResult<Vec<Part>> {
    let user_id = tx.user_id();
    // What a conversation used has ids after its own.
    let rows = usage_query!(
        "SELECT u.operation, u.model,"
            + "FROM chat.usage_tracking u
             WHERE u.model <> 'template' AND u.user_id = $1 AND u.id > $2 AND u.conversation_id = $2
             GROUP BY u.operation, u.model ORDER BY u.operation, u.model",
        user_id,
        conversation_id,
    )
    .fetch_all(tx.conn())
    .await?;
    let parts = rows.into_iter().map(|row| Part {
        spending: spending!(row),
        operation: row.operation,
        model: row.model,
    });
    Ok(parts.collect())
}

/// The sum of several sums.
#[must_use]
pub fn together<'a>(all: impl IntoIterator<Item = &'a Spending>) -> Spending {
    let mut sum = Sums {
        calls: 0,
        prompt_tokens: 0,
        completion_tokens: 0,
        cost: None,
        unknown: 0,
        wasted: 0,
        wasted_cost: None,
    };
    for one in all.into_iter().filter(|one| one.calls > 0) {
        sum.calls += one.calls;
        sum.prompt_tokens += one.prompt_tokens;
        sum.completion_tokens += one.completion_tokens;
        sum.unknown += one.unknown_cost_calls;
        sum.wasted += one.wasted_calls;
        sum.cost = plus(sum.cost, one.cost);
        if one.wasted_calls > 0 {
            sum.wasted_cost = plus(sum.wasted_cost, one.wasted_cost);
        }
    }
    sums(sum)
}

fn plus(sum: Option<Decimal>, more: Option<Decimal>) -> Option<Decimal> {
    match (sum, more) {
        (Some(sum), Some(more)) => Some(sum + more),
        (sum, more) => sum.or(more),
    }
}

/// What everybody used.
///
/// # Errors
/// When the database fails.
pub async fn of_everybody(tx: &mut OperatorTx, span: Span) -> StoreResult<Totals> {
    let rows = usage_query!(
        r#"SELECT u.model AS "model?", u.operation AS "operation?", u.day AS "day?","#
            + "FROM (
                 SELECT u.*, (u.created_at AT TIME ZONE 'UTC')::date AS day FROM chat.usage_tracking u
                 WHERE u.model <> 'template' AND u.created_at >= $1 AND u.created_at < $2
                   AND u.id >= chat.uuid7_floor($1 - interval '1 day')
                   AND u.id < chat.uuid7_floor($2 + interval '1 day')
             ) u GROUP BY GROUPING SETS ((), (u.model), (u.operation), (u.day))",
        span.from,
        span.until,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(totals(rows.into_iter().map(|row| Grouped {
        spending: spending!(row),
        model: row.model,
        operation: row.operation,
        day: row.day,
    })))
}

/// What everybody used, by operation and model.
///
/// # Errors
/// When the database fails.
pub async fn parts_of_everybody(tx: &mut OperatorTx, span: Span) -> StoreResult<Vec<Part>> {
    let rows = usage_query!(
        "SELECT u.operation, u.model,"
            + "FROM chat.usage_tracking u
             WHERE u.model <> 'template' AND u.created_at >= $1 AND u.created_at < $2
               AND u.id >= chat.uuid7_floor($1 - interval '1 day') AND u.id < chat.uuid7_floor($2 + interval '1 day')
             GROUP BY u.operation, u.model ORDER BY u.operation, u.model",
        span.from,
        span.until,
    )
    .fetch_all(tx.conn())
    .await?;
    let parts = rows.into_iter().map(|row| Part {
        spending: spending!(row),
        operation: row.operation,
        model: row.model,
    });
    Ok(parts.collect())
}

/// What each person used, those of the highest cost first, at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn by_user(
    tx: &mut OperatorTx,
    span: Span,
    limit: i64,
) -> StoreResult<Vec<UserSpending>> {
    let rows = usage_query!(
        "SELECT u.user_id,"
            + "FROM chat.usage_tracking u
             WHERE u.model <> 'template' AND u.created_at >= $1 AND u.created_at < $2
               AND u.id >= chat.uuid7_floor($1 - interval '1 day') AND u.id < chat.uuid7_floor($2 + interval '1 day')
             GROUP BY u.user_id
             ORDER BY sum(u.cost_credits) DESC NULLS LAST, sum(u.prompt_tokens + u.completion_tokens) DESC, u.user_id
             LIMIT $3",
        span.from,
        span.until,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let users = rows.into_iter().map(|row| UserSpending {
        user_id: row.user_id,
        spending: spending!(row),
    });
    Ok(users.collect())
}

/// What each month took, by its first day and UTC; those without any calls are left out.
///
/// # Errors
/// When the database fails.
pub async fn by_month(tx: &mut OperatorTx, span: Span) -> StoreResult<Vec<DailySpending>> {
    let rows = usage_query!(
        r#"SELECT date_trunc('month', u.created_at AT TIME ZONE 'UTC')::date AS "month!","#
            + "FROM chat.usage_tracking u
             WHERE u.model <> 'template' AND u.created_at >= $1 AND u.created_at < $2
               AND u.id >= chat.uuid7_floor($1 - interval '1 day') AND u.id < chat.uuid7_floor($2 + interval '1 day')
             GROUP BY 1 ORDER BY 1",
        span.from,
        span.until,
    )
    .fetch_all(tx.conn())
    .await?;
    let months = rows.into_iter().map(|row| DailySpending {
        date: row.month,
        spending: spending!(row),
    });
    Ok(months.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_costs_do_not_make_a_sum_of_zero() {
        let known = Spending {
            calls: 1,
            cost: Some(Decimal::new(5, 1)),
            ..Spending::nothing()
        };
        let unknown = Spending {
            calls: 2,
            cost: None,
            unknown_cost_calls: 2,
            wasted_calls: 1,
            wasted_cost: None,
            ..Spending::nothing()
        };
        assert_eq!(together([]), Spending::nothing());
        assert_eq!(together([&unknown]).cost, None);
        let both = together([&known, &unknown]);
        assert_eq!((both.calls, both.unknown_cost_calls), (3, 2));
        assert_eq!(both.cost, Some(Decimal::new(5, 1)));
        assert_eq!(both.wasted_cost, None);
    }
}
