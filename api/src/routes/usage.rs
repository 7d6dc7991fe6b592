//! `/api/chat/usage` and a conversation's own: what calls of models took.

use std::collections::BTreeMap;

use axum::extract::State;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use shared::domain::{DailySpending, Spending, credits};
use shared::store::usage::{self, Span};
use shared::store::{UserTx, conversations, usage::Part};
use time::{Date, Month, OffsetDateTime, Weekday};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::conversation::not_found;
use crate::app::AppState;
use crate::error::{Checks, Problem, Result};
use crate::extract::{Path, Query, User};

/// Which stretch of time to add up, by UTC.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SummaryQuery {
    /// How long a stretch; this month unless said otherwise.
    #[serde(default)]
    #[param(required = false)]
    period: Period,
    /// Of which year: with `month` and `year` only, and this year unless said otherwise.
    #[param(minimum = 2000, maximum = 9998)]
    year: Option<i32>,
    /// Which month of the year: with `month` only, and this month unless said otherwise.
    #[param(minimum = 1, maximum = 12)]
    month: Option<u8>,
}

/// A stretch of time by the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Period {
    /// Today.
    Day,
    /// This week, which begins on Monday.
    Week,
    /// A calendar month.
    #[default]
    Month,
    /// A calendar year.
    Year,
}

/// What a person's calls took in a stretch of time.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Summary {
    period: Period,
    /// When the stretch begins.
    #[serde(with = "shared::domain::timestamp")]
    from: OffsetDateTime,
    /// When it ends; this moment is no part of it.
    #[serde(with = "shared::domain::timestamp")]
    until: OffsetDateTime,
    total_tokens: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    /// Credits, to the last digit, of the calls whose cost is known; null where none of them is.
    #[serde(serialize_with = "credits::serialize")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    total_cost: Option<Decimal>,
    /// Calls whose cost is not known, or not yet.
    unknown_cost_calls: i64,
    /// Calls of models, wasted ones included.
    calls: i64,
    /// Calls that no reply came of.
    wasted_calls: i64,
    /// What those cost, as far as it is known.
    #[serde(serialize_with = "credits::serialize")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    wasted_cost: Option<Decimal>,
    /// Conversations in which something was asked or answered.
    conversations_count: i64,
    /// Messages that were sent, and replies to them.
    messages_count: i64,
    by_model: BTreeMap<String, Spending>,
    by_operation: BTreeMap<String, Spending>,
    /// The days on which there were calls.
    daily: Vec<DailySpending>,
}

/// What a conversation's calls took.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConversationUsage {
    total_tokens: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    /// Credits, to the last digit, of the calls whose cost is known; null where none of them is.
    #[serde(serialize_with = "credits::serialize")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    total_cost: Option<Decimal>,
    /// Calls whose cost is not known, or not yet.
    unknown_cost_calls: i64,
    /// By what it was for and the model that served.
    cost_breakdown: Vec<CostPart>,
    /// By the model that served.
    model_usage: BTreeMap<String, Spending>,
}

/// A part of what a conversation cost.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CostPart {
    /// `completion`, `title`, `embedding` or `classification`.
    operation: String,
    /// The model that served.
    model: String,
    #[serde(flatten)]
    spending: Spending,
}

/// What your calls of models took, in all and by model, operation and day. Calls that came to nothing are
/// part of it, as far as the upstream charges for them.
#[utoipa::path(
    get, path = "/api/chat/usage/summary", operation_id = "summarise_usage", tag = "usage", params(SummaryQuery),
    responses((status = 200, body = Summary))
)]
pub(super) async fn summary(
    State(app): State<AppState>,
    User(user): User,
    Query(query): Query<SummaryQuery>,
) -> Result<axum::Json<Summary>> {
    let span = span(&query, app.gate.clock.now())?;
    let found = app.history.read(user.id, |mut tx: UserTx| async move {
        let totals = usage::summary(&mut tx, span).await?;
        Ok((totals, usage::activity(&mut tx, span).await?))
    });
    let (totals, activity) = found.await?;
    let total = totals.total;
    Ok(axum::Json(Summary {
        period: query.period,
        from: span.from,
        until: span.until,
        total_tokens: total.total_tokens,
        prompt_tokens: total.prompt_tokens,
        completion_tokens: total.completion_tokens,
        total_cost: total.cost,
        unknown_cost_calls: total.unknown_cost_calls,
        calls: total.calls,
        wasted_calls: total.wasted_calls,
        wasted_cost: total.wasted_cost,
        conversations_count: activity.conversations,
        messages_count: activity.messages,
        by_model: totals.by_model,
        by_operation: totals.by_operation,
        daily: totals.daily,
    }))
}

/// What a conversation's calls of models took.
#[utoipa::path(
    get, path = "/api/chat/conversations/{conversation_id}/usage", operation_id = "read_conversation_usage", tag = "usage",
    params(("conversation_id" = Uuid, Path)),
    responses((status = 200, body = ConversationUsage), (status = 404, description = "conversation_not_found"))
)]
pub(super) async fn of_conversation(
    State(app): State<AppState>,
    User(user): User,
    Path(conversation_id): Path<Uuid>,
) -> Result<axum::Json<ConversationUsage>> {
    let found = app.history.read(user.id, |mut tx: UserTx| async move {
        let known = conversations::find(&mut tx, conversation_id).await?;
        if known.is_none() {
            return Ok(None);
        }
        let parts = usage::of_conversation(&mut tx, conversation_id).await?;
        Ok(Some(parts))
    });
    let parts = found.await?.ok_or_else(not_found)?;
    let total = usage::together(parts.iter().map(|part| &part.spending));
    Ok(axum::Json(ConversationUsage {
        total_tokens: total.total_tokens,
        prompt_tokens: total.prompt_tokens,
        completion_tokens: total.completion_tokens,
        total_cost: total.cost,
        unknown_cost_calls: total.unknown_cost_calls,
        model_usage: by_model(&parts),
        cost_breakdown: parts.into_iter().map(CostPart::from).collect(),
    }))
}

impl From<Part> for CostPart {
    fn from(part: Part) -> Self {
        Self {
            operation: part.operation,
            model: part.model,
            spending: part.spending,
        }
    }
}

fn by_model(parts: &[Part]) -> BTreeMap<String, Spending> {
    let mut models = BTreeMap::<String, Spending>::new();
    for part in parts {
        let so_far = models.get(&part.model);
        let sum = usage::together(so_far.into_iter().chain([&part.spending]));
        models.insert(part.model.clone(), sum);
    }
    models
}

/// The stretch of time that is meant, by UTC.
fn span(query: &SummaryQuery, now: OffsetDateTime) -> Result<Span> {
    let today = now.to_offset(time::UtcOffset::UTC).date();
    let mut checks = Checks::default();
    let by_year = matches!(query.period, Period::Month | Period::Year);
    checks.require(
        query.year.is_none() || by_year,
        "year",
        "goes with the periods month and year only",
    );
    checks.require(
        query.year.is_none_or(|year| (2000..=9998).contains(&year)),
        "year",
        "must be a number between 2000 and 9998",
    );
    checks.require(
        query.month.is_none() || query.period == Period::Month,
        "month",
        "goes with the period month only",
    );
    let month = query.month.map(Month::try_from).transpose();
    checks.require(month.is_ok(), "month", "must be a number between 1 and 12");
    checks.finish()?;
    let year = query.year.unwrap_or(today.year());
    let month = month.ok().flatten().unwrap_or(today.month());
    dates(query.period, today, year, month)
        .map(|(from, until)| Span {
            from: from.midnight().assume_utc(),
            until: until.midnight().assume_utc(),
        })
        .ok_or_else(|| Problem::field("year", "is beyond the calendar"))
}

/// The first day, and the first one after.
fn dates(period: Period, today: Date, year: i32, month: Month) -> Option<(Date, Date)> {
    let day = |year, month| Date::from_calendar_date(year, month, 1).ok();
    Some(match period {
        Period::Day => (today, today.next_day()?),
        Period::Week => {
            let monday = std::iter::successors(Some(today), |day| day.previous_day())
                .find(|day| day.weekday() == Weekday::Monday)?;
            (monday, monday.checked_add(time::Duration::WEEK)?)
        }
        Period::Month => {
            let next_year = year + i32::from(month == Month::December);
            (day(year, month)?, day(next_year, month.next())?)
        }
        Period::Year => (day(year, Month::January)?, day(year + 1, Month::January)?),
    })
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};

    use super::*;

    fn shown(period: Period, year: Option<i32>, month: Option<u8>) -> String {
        let query = SummaryQuery {
            period,
            year,
            month,
        };
        match span(&query, datetime!(2026-12-31 23:30 -01:00)) {
            Ok(span) => format!("{} {}", span.from.date(), span.until.date()),
            Err(problem) => problem.detail().to_owned(),
        }
    }

    #[test]
    fn periods_follow_the_calendar_of_utc() {
        assert_eq!(shown(Period::Day, None, None), "2027-01-01 2027-01-02");
        assert_eq!(shown(Period::Week, None, None), "2026-12-28 2027-01-04");
        assert_eq!(shown(Period::Month, None, None), "2027-01-01 2027-02-01");
        assert_eq!(
            shown(Period::Month, Some(2025), Some(12)),
            "2025-12-01 2026-01-01"
        );
        assert_eq!(
            shown(Period::Year, Some(2024), None),
            "2024-01-01 2025-01-01"
        );
        assert_eq!(
            date!(2026 - 12 - 28).weekday(),
            Weekday::Monday,
            "the week above begins well"
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (period, year, month) in [
            (Period::Day, Some(2026), None),
            (Period::Week, None, Some(1)),
            (Period::Year, Some(2026), Some(1)),
            (Period::Month, Some(1999), None),
            (Period::Month, None, Some(13)),
        ] {
            let text = shown(period, year, month);
            assert!(
                text.starts_with("year:") || text.starts_with("month:"),
                "{text}"
            );
        }
    }
}
