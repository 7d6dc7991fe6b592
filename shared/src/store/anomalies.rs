//! Who and what takes far more than before.

use super::conn::Conn;
use super::{OperatorTx, StoreResult, SweepTx};
use crate::budgets::AnomalyRules;
use crate::domain::Anomaly;

/// The anomalies of the last 24 hours, the worst first, at most a hundred, as an operator looks.
///
/// # Errors
/// When the database fails.
pub async fn now(tx: &mut OperatorTx, rules: &AnomalyRules) -> StoreResult<Vec<Anomaly>> {
    find(tx.conn(), rules).await
}

/// The same, for the worker that watches.
///
/// # Errors
/// When the database fails.
pub async fn sweep(tx: &mut SweepTx, rules: &AnomalyRules) -> StoreResult<Vec<Anomaly>> {
    find(tx.conn(), rules).await
}

/// What was taken within 24 hours is held against the days before it, counted back from now. Whoever has
/// not been active on three of them has no history to be far above of. Three deviations are asked for,
/// too, so that what varies much is not reported every other day.
async fn find(conn: Conn<'_>, rules: &AnomalyRules) -> StoreResult<Vec<Anomaly>> {
    if rules.factor.is_zero() {
        return Ok(Vec::new());
    }
    let anomalies = sqlx::query_as!(
        Anomaly,
        r#"WITH days AS MATERIALIZED (
               SELECT u.user_id, u.model,
                      greatest(floor(extract(epoch FROM now() - u.created_at) / 86400), 0)::integer AS ago,
                      sum(u.cost_credits) AS credits, sum(u.prompt_tokens::numeric + u.completion_tokens) AS tokens
               FROM chat.usage_tracking u
               WHERE u.created_at > now() - interval '15 days' AND u.id >= chat.uuid7_floor(now() - interval '16 days')
               GROUP BY 1, 2, 3
           ), subjects AS (
               SELECT 'user' AS about, d.user_id::text AS name, d.ago, sum(d.credits) AS credits, sum(d.tokens) AS tokens
               FROM days d GROUP BY d.user_id, d.ago
               UNION ALL
               SELECT 'model', d.model, d.ago, sum(d.credits), sum(d.tokens) FROM days d GROUP BY d.model, d.ago
           ), measured AS (
               SELECT s.about, s.name, m.unit, sum(m.amount) FILTER (WHERE s.ago = 0) AS amount,
                      avg(m.amount) FILTER (WHERE s.ago > 0 AND m.amount > 0) AS usual,
                      stddev_pop(m.amount) FILTER (WHERE s.ago > 0 AND m.amount > 0) AS deviation,
                      count(*) FILTER (WHERE s.ago > 0 AND m.amount > 0) AS active_days
               FROM subjects s CROSS JOIN LATERAL (VALUES ('credits', s.credits), ('tokens', s.tokens)) AS m (unit, amount)
               GROUP BY s.about, s.name, m.unit
           )
           SELECT m.about AS "about!", m.name AS "of!", m.unit AS "unit!", m.amount, round(m.usual, 12) AS usual
           FROM measured m
           WHERE m.active_days >= 3 AND m.amount > greatest(m.usual * $1, m.usual + 3 * m.deviation)
             AND m.amount >= CASE m.unit WHEN 'credits' THEN $2::numeric ELSE $3::bigint END
           ORDER BY m.amount / m.usual DESC, m.about, m.name, m.unit LIMIT 100"#,
        rules.factor,
        rules.min_credits,
        i64::from(rules.min_tokens),
    )
    .fetch_all(conn)
    .await?;
    Ok(anomalies)
}
