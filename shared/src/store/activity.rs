//! How many people are talking.

use std::time::Duration;

use super::{OperatorTx, StoreResult};

/// Generations that are looked at, the newest first.
const MOST: i64 = 100_000;

/// Conversations in which something was asked for in the last `within`, among the newest 100,000 generations.
///
/// # Errors
/// When the database fails.
pub async fn conversations(tx: &mut OperatorTx, within: Duration) -> StoreResult<i64> {
    let active = sqlx::query_scalar!(
        r#"SELECT count(DISTINCT recent.conversation_id) AS "active!"
           FROM (SELECT g.conversation_id FROM chat.generations g
                 WHERE g.id >= chat.uuid7_floor(now() - $1 * interval '1 second')
                 ORDER BY g.id DESC LIMIT $2) recent"#,
        within.as_secs_f64(),
        MOST,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(active)
}
