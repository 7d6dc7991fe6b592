//! Costs that come late: which calls the upstream is to be asked about, and what it said.

use std::time::Duration;

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{StoreResult, SweepTx};

/// Who reads the ledger for calls of unknown cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Comes a minute after the calls.
    Soon,
    /// Comes hours after them, for what was written late.
    Late,
}

impl Reader {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Soon => "soon",
            Self::Late => "late",
        }
    }
}

/// A call that the upstream is to be asked about.
#[derive(Clone, Debug)]
pub struct Question {
    /// The row of the ledger.
    pub call_id: Uuid,
    /// The upstream's id of it.
    pub upstream_id: String,
    /// The model that was asked.
    pub model_asked: String,
    /// The label of the key that the call was made with.
    pub key_label: String,
    /// What the call was for.
    pub operation: String,
    /// How often it was asked, this time included.
    pub tries: i32,
}

/// What the upstream says about a call that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Credits; zero is known to be zero.
    pub cost: Decimal,
    /// Tokens read.
    pub prompt_tokens: i32,
    /// Tokens written.
    pub completion_tokens: i32,
    /// The model that served.
    pub model: Option<String>,
}

/// Notes the calls of unknown cost among the next `most` rows of the ledger that are older than `age`.
/// Returns how many rows were read and how many of them are new questions. One that has not ended, as
/// far as the ledger knows, is asked about only once nobody can be making it any more.
///
/// # Errors
/// When the database fails.
pub async fn gather(
    tx: &mut SweepTx,
    reader: Reader,
    age: Duration,
    most: i64,
) -> StoreResult<(i64, i64)> {
    let row = sqlx::query!(
        r#"WITH batch AS MATERIALIZED (
               SELECT a.id, a.user_id, a.upstream_id, a.cost_credits, a.outcome, a.wasted, a.started_at
               FROM chat.attempts a
               WHERE a.id > (SELECT r.up_to FROM chat.ledger_readers r WHERE r.name = $1)
                 AND a.id < chat.uuid7_floor(now() - $2 * interval '1 second')
               ORDER BY a.id LIMIT $3
           ), noted AS (
               INSERT INTO chat.cost_questions (call_id, user_id, upstream_id, ask_at)
               SELECT b.id, b.user_id, b.upstream_id,
                      CASE WHEN b.outcome = 'running' THEN b.started_at + interval '90 minutes' ELSE now() END
               FROM batch b
               WHERE b.cost_credits IS NULL AND b.upstream_id IS NOT NULL
                 AND (b.wasted OR b.outcome IN ('running', 'completed'))
               ON CONFLICT DO NOTHING RETURNING 1
           ), moved AS (
               UPDATE chat.ledger_readers r SET up_to = l.id
               FROM (SELECT b.id FROM batch b ORDER BY b.id DESC LIMIT 1) l WHERE r.name = $1
           )
           SELECT (SELECT count(*) FROM batch) AS "read!", (SELECT count(*) FROM noted) AS "noted!""#,
        reader.as_str(),
        age.as_secs_f64(),
        most,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((row.read, row.noted))
}

/// Takes at most `most` questions that are due. Each is due again later, twice as late every time, so that
/// one whose asker dies is not lost; to ask twice does no harm.
///
/// # Errors
/// When the database fails.
pub async fn due(tx: &mut SweepTx, first_wait: Duration, most: i64) -> StoreResult<Vec<Question>> {
    let questions = sqlx::query_as!(
        Question,
        r#"WITH due AS MATERIALIZED (
               SELECT q.call_id FROM chat.cost_questions q
               WHERE q.given_up_at IS NULL AND q.ask_at <= now()
               ORDER BY q.ask_at LIMIT $2 FOR UPDATE SKIP LOCKED
           ), taken AS (
               UPDATE chat.cost_questions q
               SET tries = q.tries + 1,
                   ask_at = now() + $1 * power(2, least(q.tries, 12)) * (0.8 + 0.4 * random()) * interval '1 second'
               FROM due d WHERE q.call_id = d.call_id
               RETURNING q.call_id, q.upstream_id, q.tries
           )
           SELECT t.call_id, t.upstream_id, a.model_asked, a.key_label, a.operation, t.tries
           FROM taken t JOIN chat.attempts a ON a.id = t.call_id"#,
        first_wait.as_secs_f64(),
        most,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(questions)
}

/// Writes what the upstream said into the ledger and into what was used, unless the cost is known by
/// now. A call that nobody has ended was its worker's last, and came to nothing. The generation keeps
/// the usage that it ended with: what was told about it does not change. Returns whether the call was wasted,
/// and nothing where it was no news.
///
/// # Errors
/// When the database fails.
pub async fn settle(
    tx: &mut SweepTx,
    call_id: Uuid,
    bill: &Bill,
    is_free_model: bool,
) -> StoreResult<Option<bool>> {
    let settled = sqlx::query_scalar!(
        r#"WITH question AS (
               DELETE FROM chat.cost_questions q WHERE q.call_id = $1
           ), call AS (
               UPDATE chat.attempts a
               SET cost_credits = $2, prompt_tokens = $3, completion_tokens = $4,
                   model_served = COALESCE(a.model_served, $5),
                   wasted = a.wasted OR a.outcome = 'running',
                   outcome = CASE WHEN a.outcome = 'running' THEN 'lost' ELSE a.outcome END,
                   finished_at = COALESCE(a.finished_at, now())
               WHERE a.id = $1 AND a.cost_credits IS NULL
               RETURNING a.*
           ), older AS (
               -- Before calls and what they used had the same id, the usage of a reply had one of its own.
               UPDATE chat.usage_tracking u
               SET cost_credits = $2, prompt_tokens = $3, completion_tokens = $4
               FROM call c
               WHERE NOT c.wasted AND c.operation IN ('completion', 'title') AND u.user_id = c.user_id
                 AND u.generation_id = c.generation_id AND u.operation = c.operation AND NOT u.wasted
                 AND u.cost_credits IS NULL AND u.id <> c.id
                 AND u.id >= chat.uuid7_floor(c.started_at - interval '1 day')
                 AND u.id < chat.uuid7_floor(c.started_at + interval '2 days')
               RETURNING u.wasted
           ), used AS (
           INSERT INTO chat.usage_tracking AS u
               (id, user_id, conversation_id, generation_id, operation, model, prompt_tokens, completion_tokens,
                cost_credits, is_free_model, wasted, processing_time_ms, created_at)
           SELECT c.id, c.user_id, (SELECT g.conversation_id FROM chat.generations g WHERE g.id = c.generation_id),
                  c.generation_id, c.operation, COALESCE(c.model_served, c.model_asked), $3, $4, $2, $6, c.wasted,
                  least(greatest(extract(epoch FROM c.finished_at - c.started_at) * 1000, 0), 2147483647)::integer,
                  c.started_at
           FROM call c WHERE NOT EXISTS (SELECT FROM older)
           ON CONFLICT (id) DO UPDATE
           SET cost_credits = EXCLUDED.cost_credits, prompt_tokens = EXCLUDED.prompt_tokens,
               completion_tokens = EXCLUDED.completion_tokens
           WHERE u.cost_credits IS NULL
           RETURNING u.wasted
           )
           SELECT x.wasted AS "wasted!" FROM (SELECT * FROM used UNION ALL SELECT * FROM older) x LIMIT 1"#,
        call_id,
        bill.cost,
        bill.prompt_tokens,
        bill.completion_tokens,
        bill.model,
        is_free_model,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(settled)
}

/// Asks no more about a call; its cost stays unknown.
///
/// # Errors
/// When the database fails.
pub async fn give_up(tx: &mut SweepTx, call_id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.cost_questions q SET given_up_at = now() WHERE q.call_id = $1 AND q.given_up_at IS NULL",
        call_id
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets the questions that were given up a month ago, or that nobody has asked for as long, at most `limit`; the ledger keeps their rows.
///
/// # Errors
/// When the database fails.
pub async fn forget(tx: &mut SweepTx, limit: i64) -> StoreResult<u64> {
    let forgotten = sqlx::query!(
        "DELETE FROM chat.cost_questions q WHERE q.call_id IN (
             SELECT o.call_id FROM chat.cost_questions o
             WHERE o.ask_at < now() - interval '30 days' LIMIT $1)",
        limit
    )
    .execute(tx.conn())
    .await?;
    Ok(forgotten.rows_affected())
}
