//! `/internal/usage`: what everybody's calls took, for whoever pays.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use shared::budgets::Limits;
use shared::domain::{Anomaly, DailySpending, Spending, credits, day};
use shared::operator::UsageReport;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::AppState;
use crate::csv;
use crate::error::{Checks, Result};
use crate::extract::{Internal, Query};

/// What to report.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct ReportQuery {
    /// How many days, today included.
    #[serde(default = "week")]
    #[param(minimum = 1, maximum = 366, default = 7, required = false)]
    days: u16,
    /// How many months, this one included.
    #[serde(default = "quarter")]
    #[param(minimum = 1, maximum = 24, default = 3, required = false)]
    months: u16,
    /// In which form.
    #[serde(default)]
    #[param(inline, required = false)]
    format: Format,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::routes) enum Format {
    /// An object.
    #[default]
    Json,
    /// A table, one line for each sum: what it is about, of which, and the numbers.
    Csv,
}

fn week() -> u16 {
    7
}

fn quarter() -> u16 {
    3
}

/// What everybody's calls took, by UTC.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Report {
    /// The first day.
    #[schema(format = Date)]
    from: String,
    /// The last day, today.
    #[schema(format = Date)]
    to: String,
    total: Spending,
    by_operation: BTreeMap<String, Spending>,
    by_model: BTreeMap<String, Spending>,
    /// The hundred people who cost most.
    by_user: Vec<UserCost>,
    /// Every day of the report.
    daily: Vec<DailySpending>,
    /// The last seven days.
    last_7_days: Vec<DailySpending>,
    /// The last months in which there were calls, by their first days.
    monthly: Vec<DailySpending>,
    /// People and models that took far more in the last 24 hours than on the days before.
    anomalies: Vec<Anomaly>,
    /// What is used of everybody's budgets of today and of this month; none while no budget is set.
    budgets: Vec<BudgetUse>,
}

/// What is used of one of everybody's budgets.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct BudgetUse {
    /// `day` or `month`.
    period: String,
    /// Its first day, by UTC.
    #[schema(format = Date)]
    starts_on: String,
    /// Credits; null where this period has no limit.
    #[serde(serialize_with = "credits::serialize")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    limit: Option<Decimal>,
    /// What is estimated of the work that has not ended.
    #[serde(serialize_with = "credits::serialize")]
    #[schema(value_type = f64, format = "decimal")]
    reserved: Option<Decimal>,
    /// What was spent.
    #[serde(serialize_with = "credits::serialize")]
    #[schema(value_type = f64, format = "decimal")]
    spent: Option<Decimal>,
}

/// What one person's calls took.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct UserCost {
    user_id: Uuid,
    #[serde(flatten)]
    spending: Spending,
}

/// What everybody's calls of models took: in all, by operation, model, person, day and month, in JSON or
/// as CSV. Money has all its digits; a cost that is not known is null (empty in CSV) and counted apart.
#[utoipa::path(
    get, path = "/internal/usage/report", operation_id = "report_usage", tag = "internal", params(ReportQuery),
    responses((status = 200, description = "The report.", content((Report = "application/json"), (String = "text/csv"))))
)]
pub(in crate::routes) async fn report(
    State(app): State<AppState>,
    _: Internal,
    Query(query): Query<ReportQuery>,
) -> Result<Response> {
    let mut checks = Checks::default();
    checks.require(
        (1..=366).contains(&query.days),
        "days",
        "must be a number between 1 and 366",
    );
    checks.require(
        (1..=24).contains(&query.months),
        "months",
        "must be a number between 1 and 24",
    );
    checks.finish()?;
    let report = app
        .operator
        .usage_report(query.days, query.months, &app.gate.config.anomalies)
        .await?;
    let report = Report::new(report, &app.gate.config.budgets.limits);
    Ok(match query.format {
        Format::Json => axum::Json(report).into_response(),
        Format::Csv => {
            let name = format!("attachment; filename=\"usage-{}.csv\"", report.to);
            let headers = [
                (CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
                (CONTENT_DISPOSITION, name),
            ];
            (headers, table(&report)).into_response()
        }
    })
}

impl Report {
    fn new(report: UsageReport, limits: &Limits) -> Self {
        let budgets = report.budgets.into_iter().map(|used| BudgetUse {
            limit: match used.period.as_str() {
                "day" => limits.total_day,
                _ => limits.total_month,
            },
            period: used.period,
            starts_on: day(used.starts_on),
            reserved: Some(used.reserved),
            spent: Some(used.spent),
        });
        let users = report.by_user.into_iter().map(|user| UserCost {
            user_id: user.user_id,
            spending: user.spending,
        });
        Self {
            from: day(report.from),
            to: day(report.to),
            total: report.totals.total,
            by_operation: report.totals.by_operation,
            by_model: report.totals.by_model,
            by_user: users.collect(),
            daily: report.totals.daily,
            last_7_days: report.last_7_days,
            monthly: report.monthly,
            anomalies: report.anomalies,
            budgets: budgets.collect(),
        }
    }
}

const COLUMNS: [&str; 10] = [
    "about",
    "of",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cost",
    "unknown_cost_calls",
    "wasted_calls",
    "wasted_cost",
];

fn table(report: &Report) -> String {
    let mut table = csv::Table::new(&COLUMNS);
    let mut line = |about: &str, of: &str, sums: &Spending| {
        table.line(&[
            about,
            of,
            &sums.calls.to_string(),
            &sums.prompt_tokens.to_string(),
            &sums.completion_tokens.to_string(),
            &sums.total_tokens.to_string(),
            &credits::text(sums.cost),
            &sums.unknown_cost_calls.to_string(),
            &sums.wasted_calls.to_string(),
            &credits::text(sums.wasted_cost),
        ]);
    };
    line("total", "", &report.total);
    for (operation, sums) in &report.by_operation {
        line("operation", operation, sums);
    }
    for (model, sums) in &report.by_model {
        line("model", model, sums);
    }
    for user in &report.by_user {
        line("user", &user.user_id.to_string(), &user.spending);
    }
    for (about, days) in [
        ("day", &report.daily),
        ("last_7_days", &report.last_7_days),
        ("month", &report.monthly),
    ] {
        for daily in days {
            line(about, &day(daily.date), &daily.spending);
        }
    }
    table.finish()
}
