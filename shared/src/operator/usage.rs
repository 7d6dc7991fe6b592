//! What everybody's calls took.

use time::{Date, Duration};

use super::Operator;
use crate::budgets::AnomalyRules;
use crate::domain::{Anomaly, DailySpending, Spending};
use crate::store::budgets::{self, TotalUse};
use crate::store::usage::{self, Span, Totals, UserSpending};
use crate::store::{StoreResult, anomalies};

/// People that a report names.
const USERS: i64 = 100;

/// Days that a report always tells of one by one.
const WEEK: u16 = 7;

/// What everybody's calls took, by UTC days and months.
#[derive(Clone, Debug)]
pub struct UsageReport {
    /// The first day of it.
    pub from: Date,
    /// The last one, today.
    pub to: Date,
    /// All of it; each of its days stands in `daily`.
    pub totals: Totals,
    /// Those people who cost most.
    pub by_user: Vec<UserSpending>,
    /// The last seven days, whatever days the report is about.
    pub last_7_days: Vec<DailySpending>,
    /// The last months, by their first days, this one included.
    pub monthly: Vec<DailySpending>,
    /// Who and what takes far more than before, right now.
    pub anomalies: Vec<Anomaly>,
    /// What is used of everybody's budgets; nothing while there is none.
    pub budgets: Vec<TotalUse>,
}

impl Operator {
    /// What everybody's calls took in the last `days`, and in the last `months`; and by `rules`, what is odd
    /// about it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage_report(
        &self,
        days: u16,
        months: u16,
        rules: &AnomalyRules,
    ) -> StoreResult<UsageReport> {
        let today = self.clock.now().to_offset(time::UtcOffset::UTC).date();
        let from = before(today, days);
        let mut tx = self.view.operator().await?;
        let mut totals = usage::of_everybody(&mut tx, span(from, today)).await?;
        let by_user = usage::by_user(&mut tx, span(from, today), USERS).await?;
        let week = before(today, WEEK);
        let last_7_days = match days {
            WEEK => totals.daily.clone(),
            _ => usage::of_everybody(&mut tx, span(week, today)).await?.daily,
        };
        let first = first_of_month(today, months);
        let monthly = usage::by_month(&mut tx, span(first, today)).await?;
        totals.daily = every_day(from, today, &totals.daily);
        Ok(UsageReport {
            from,
            to: today,
            by_user,
            last_7_days: every_day(week, today, &last_7_days),
            monthly,
            anomalies: anomalies::now(&mut tx, rules).await?,
            budgets: budgets::totals(&mut tx).await?,
            totals,
        })
    }
}

/// The first of so many days that end with `today`.
pub(super) fn before(today: Date, days: u16) -> Date {
    let back = Duration::days(i64::from(days.max(1)) - 1);
    today.checked_sub(back).unwrap_or(Date::MIN)
}

/// The first day of the first of so many months that end with today's.
fn first_of_month(today: Date, months: u16) -> Date {
    let mut first = today.replace_day(1).unwrap_or(today);
    for _ in 1..months {
        let before = first.previous_day().unwrap_or(first);
        first = before.replace_day(1).unwrap_or(before);
    }
    first
}

pub(super) fn span(from: Date, to: Date) -> Span {
    let after = to.next_day().unwrap_or(to);
    Span {
        from: from.midnight().assume_utc(),
        until: after.midnight().assume_utc(),
    }
}

/// Each day, those without calls too.
fn every_day(from: Date, to: Date, known: &[DailySpending]) -> Vec<DailySpending> {
    let days = std::iter::successors(Some(from), |day| day.next_day());
    days.take_while(|day| *day <= to)
        .map(|date| {
            let found = known.iter().find(|daily| daily.date == date);
            found.copied().unwrap_or(DailySpending {
                date,
                spending: Spending::nothing(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn days_and_months_are_counted_back_from_today() {
        let today = date!(2026 - 01 - 03);
        assert_eq!(before(today, 7), date!(2025 - 12 - 28));
        assert_eq!(before(today, 1), today);
        assert_eq!(first_of_month(today, 1), date!(2026 - 01 - 01));
        assert_eq!(first_of_month(today, 3), date!(2025 - 11 - 01));
    }

    #[test]
    fn a_day_without_calls_took_nothing() {
        let days = every_day(date!(2025 - 12 - 30), date!(2026 - 01 - 02), &[]);
        let shown: Vec<_> = days
            .iter()
            .map(|daily| crate::domain::day(daily.date))
            .collect();
        assert_eq!(
            shown,
            ["2025-12-30", "2025-12-31", "2026-01-01", "2026-01-02"]
        );
        assert_eq!(days[1].spending, Spending::nothing());
    }
}
