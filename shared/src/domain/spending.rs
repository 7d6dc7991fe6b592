//! What calls of models took together.

use rust_decimal::Decimal;
use serde::Serialize;
use time::Date;
use utoipa::ToSchema;

/// Sums over calls that were answered, or that broke off after the upstream had taken them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Spending {
    /// Calls, wasted ones included.
    pub calls: i64,
    /// Tokens read, the cached ones included.
    pub prompt_tokens: i64,
    /// Tokens written.
    pub completion_tokens: i64,
    /// Their sum.
    pub total_tokens: i64,
    /// Credits, to the last digit, of the calls whose cost is known; null where none of them is.
    #[serde(with = "super::credits")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    pub cost: Option<Decimal>,
    /// Calls whose cost is not known, or not yet.
    pub unknown_cost_calls: i64,
    /// Calls that no reply came of.
    pub wasted_calls: i64,
    /// Credits of those among them whose cost is known; null where none is.
    #[serde(with = "super::credits")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    pub wasted_cost: Option<Decimal>,
}

impl Spending {
    /// What no call at all takes: nothing, and that is known.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            cost: Some(Decimal::ZERO),
            wasted_cost: Some(Decimal::ZERO),
            ..Self::default()
        }
    }
}

/// What one day took, by UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DailySpending {
    /// The day.
    #[serde(serialize_with = "date")]
    #[schema(value_type = String, format = Date)]
    pub date: Date,
    /// Its sums.
    #[serde(flatten)]
    pub spending: Spending,
}

/// Somebody, or a model, that takes far more than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Anomaly {
    /// `user` or `model`.
    pub about: String,
    /// The person's id or the model's name.
    pub of: String,
    /// What is counted: `credits` or `tokens`.
    pub unit: String,
    /// How much of it the last 24 hours took.
    #[serde(with = "super::credits")]
    #[schema(value_type = f64, format = "decimal")]
    pub amount: Option<Decimal>,
    /// How much the days of the two weeks before took on the average, those without any left out.
    #[serde(with = "super::credits")]
    #[schema(value_type = f64, format = "decimal")]
    pub usual: Option<Decimal>,
}

/// A day as text, for example `2026-11-22`.
#[must_use]
pub fn day(date: Date) -> String {
    let (year, month, day) = date.to_calendar_date();
    format!("{year:04}-{:02}-{day:02}", u8::from(month))
}

fn date<S: serde::Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    day(*date).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_null_and_nothing_is_zero() {
        let unknown = Spending {
            calls: 1,
            unknown_cost_calls: 1,
            ..Spending::nothing()
        };
        let unknown = Spending {
            cost: None,
            ..unknown
        };
        let daily = DailySpending {
            date: time::macros::date!(2026 - 02 - 03),
            spending: unknown,
        };
        assert_eq!(
            serde_json::to_string(&daily).unwrap(),
            r#"{"date":"2026-02-03","calls":1,"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"cost":null,"unknown_cost_calls":1,"wasted_calls":0,"wasted_cost":0}"#
        );
    }
}
