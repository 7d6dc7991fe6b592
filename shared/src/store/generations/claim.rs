//! A worker takes, keeps and gives back generations.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Room;
use super::history::{Columns, History, with_histories};
use crate::domain::{ContextType, GenerationKind, Priority};
use crate::models::{Model, for_context};
use crate::store::{StoreResult, SweepTx};

/// Who claims, and how.
#[derive(Clone, Copy, Debug)]
pub struct Claimer<'a> {
    /// Stable name and boot of the worker.
    pub worker_id: &'a str,
    /// How long a claim holds unless it is renewed.
    pub lease: Duration,
    /// The newest messages of so many tokens come with the claim.
    pub history_tokens: u32,
}

/// What a worker holds after a claim: everything the job needs.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The generation.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// Its conversation.
    pub conversation_id: Uuid,
    /// What it makes.
    pub kind: GenerationKind,
    /// The queue it waited in.
    pub priority: Priority,
    /// The number of this attempt.
    pub attempt: i32,
    /// Attempts that count against the cap, this one included.
    pub counted_attempts: i32,
    /// The cap.
    pub max_attempts: i32,
    /// Guards every statement of this attempt.
    pub token: Uuid,
    /// The models it may use.
    pub chain: Vec<Model>,
    /// Whether clients want the text as it comes.
    pub stream: bool,
    /// The message to answer.
    pub user_message_id: Option<Uuid>,
    /// What the conversation is about.
    pub context_type: ContextType,
    /// When it was accepted.
    pub queued_at: OffsetDateTime,
    /// How long the attempt may still take before the deadline.
    pub time_left: Duration,
    /// Correlation.
    pub request_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What was said before; without messages where nothing is answered, the message is gone, or
    /// this version cannot read one of them.
    pub history: History,
}

struct ClaimRow {
    id: Uuid,
    user_id: Uuid,
    conversation_id: Uuid,
    kind: GenerationKind,
    priority: Priority,
    attempt: i32,
    forgiven: i32,
    max_attempts: i32,
    claim_token: Option<Uuid>,
    model_chain: Json<Vec<Model>>,
    stream: bool,
    user_message_id: Option<Uuid>,
    context_type: ContextType,
    queued_at: OffsetDateTime,
    seconds_left: f64,
    request_id: Option<String>,
    traceparent: Option<String>,
    context_data: Option<Value>,
    message_count: Option<i32>,
    ids: Option<Vec<Uuid>>,
    senders: Option<Vec<String>>,
    contents: Option<Vec<String>>,
    attachments: Option<Vec<Json<Value>>>,
    tokens: Option<Vec<i32>>,
}

impl From<ClaimRow> for Claim {
    fn from(row: ClaimRow) -> Self {
        let history = Columns {
            context_data: row.context_data,
            message_count: row.message_count,
            ids: row.ids,
            senders: row.senders,
            contents: row.contents,
            attachments: row.attachments,
            tokens: row.tokens,
        };
        Self {
            id: row.id,
            user_id: row.user_id,
            conversation_id: row.conversation_id,
            kind: row.kind,
            priority: row.priority,
            attempt: row.attempt,
            counted_attempts: row.attempt - row.forgiven,
            max_attempts: row.max_attempts,
            token: row.claim_token.unwrap_or_default(),
            chain: for_context(row.model_chain.0, row.context_type),
            stream: row.stream,
            user_message_id: row.user_message_id,
            context_type: row.context_type,
            queued_at: row.queued_at,
            time_left: Duration::try_from_secs_f64(row.seconds_left).unwrap_or_default(),
            request_id: row.request_id,
            traceparent: row.traceparent,
            history: history.read().unwrap_or_else(|| {
                tracing::error!(generation.id = %row.id, "its history cannot be read");
                History::default()
            }),
        }
    }
}

/// A claim and its history in one statement: what the history shows is of the same moment as the
/// look at the conversation's other generations, so a predecessor's reply is in it.
///
/// The commit does not wait for the disk: a claim's token is random, so one that is lost in a crash of
/// the database can never match a later one.
macro_rules! claim_query {
    ($candidates:literal, $from:expr, $claimer:expr) => {{
        let claimer: &Claimer<'_> = $claimer;
        with_histories!(
            ClaimRow,
            [$candidates r#", claimed AS (
               UPDATE chat.generations g
               SET status = 'in_progress', attempt = g.attempt + 1, claim_token = gen_random_uuid(),
                   lease_until = now() + $2 * interval '1 second', worker_id = $3, started_at = now(),
                   first_token_at = NULL
               FROM candidate k
               WHERE g.id = k.id AND k.status = 'queued' AND k.run_at <= now() AND k.deadline_at > now()
                 AND NOT EXISTS (
                      SELECT FROM chat.generations o
                      WHERE o.conversation_id = k.conversation_id AND o.id < k.id
                        AND o.status IN ('queued', 'in_progress') AND (o.kind = 'title') = (k.kind = 'title')
                      OFFSET 0)
               RETURNING g.*
           ), wanted AS MATERIALIZED (
               SELECT c.*, CASE WHEN c.kind = ANY($5) THEN c.user_message_id END AS answering, $4::bigint AS budget,
                      set_config('synchronous_commit', 'off', true)
               FROM claimed c
           )"#],
            r#"w.id, w.user_id, w.conversation_id, w.kind AS "kind: GenerationKind",
               w.priority AS "priority: Priority", w.attempt, w.forgiven, w.max_attempts, w.claim_token,
               w.model_chain AS "model_chain: Json<Vec<Model>>", w.stream, w.user_message_id,
               w.context_type AS "context_type: ContextType", w.queued_at,
               extract(epoch FROM w.deadline_at - now())::float8 AS "seconds_left!", w.request_id, w.traceparent,"#,
            $from,
            claimer.lease.as_secs_f64(),
            claimer.worker_id,
            i64::from(claimer.history_tokens),
            &answering_kinds(),
        )
    }};
}

/// The kinds whose prompts see what was said before.
fn answering_kinds() -> Vec<String> {
    let answering = GenerationKind::ALL.iter().filter(|kind| kind.answers());
    answering.map(|kind| kind.as_str().to_owned()).collect()
}

/// Claims those of `ids` that can be claimed: queued, due, and the oldest unfinished one of their
/// conversation. The others belong to somebody else or have not got their turn, and are dropped.
///
/// The candidates are locked and read first, by id alone, so that no planner can be tempted to
/// answer a batch of ids from the partial index of ready rows; rows that somebody else has locked
/// are skipped. And the look at the other generations is made for each candidate alone (`OFFSET 0`
/// says so): as a join it would read all unfinished rows that there are.
///
/// # Errors
/// When the database fails.
pub async fn claim(
    tx: &mut SweepTx,
    ids: &[Uuid],
    claimer: &Claimer<'_>,
) -> StoreResult<Vec<Claim>> {
    let rows = claim_query!(
        "WITH candidate AS MATERIALIZED (
             SELECT * FROM chat.generations WHERE id = ANY($1) FOR UPDATE SKIP LOCKED
         )",
        ids,
        claimer
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Claim::from).collect())
}

/// Claims as many ready generations as there is `room` for straight from the table, for a worker whose
/// lists gave nothing: Redis is away, or has lost what was pushed. Each queue is read in the order of
/// the index of ready rows, so that a long backlog is not sorted. Paused ones are left alone.
///
/// # Errors
/// When the database fails.
pub async fn claim_ready(
    tx: &mut SweepTx,
    room: &Room,
    claimer: &Claimer<'_>,
) -> StoreResult<Vec<Claim>> {
    let room: Vec<Value> = room
        .order
        .iter()
        .map(|(queue, most)| json!({ "name": queue, "most": most, "lower": room.lower, "places": room.all }))
        .collect();
    let rows = claim_query!(
        "WITH found AS MATERIALIZED (
             SELECT r.*, p.rank, p.lower, p.places
             FROM ROWS FROM (jsonb_to_recordset($1) AS (name text, most bigint, lower bigint, places bigint))
                  WITH ORDINALITY AS p (name, most, lower, places, rank)
             CROSS JOIN LATERAL (
                 SELECT * FROM chat.generations r
                 WHERE r.priority = p.name AND r.status = 'queued' AND r.run_at <= now()
                   AND NOT EXISTS (SELECT FROM chat.queues q WHERE q.name = p.name AND q.paused_at IS NOT NULL)
                   AND NOT EXISTS (
                        SELECT FROM chat.generations o
                        WHERE o.conversation_id = r.conversation_id AND o.id < r.id
                          AND o.status IN ('queued', 'in_progress') AND (o.kind = 'title') = (r.kind = 'title')
                        OFFSET 0)
                 ORDER BY r.run_at, r.id LIMIT p.most FOR UPDATE SKIP LOCKED
             ) r
         ), counted AS (
             SELECT f.*, count(*) OVER w AS so_far, count(*) FILTER (WHERE f.priority <> 'premium') OVER w AS so_far_lower
             FROM found f WINDOW w AS (ORDER BY f.rank, f.run_at, f.id)
         ), candidate AS MATERIALIZED (
             SELECT * FROM counted c
             WHERE c.so_far <= c.places AND (c.priority = 'premium' OR c.so_far_lower <= c.lower)
         )",
        Value::from(room),
        claimer
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(Claim::from).collect())
}

/// Extends the leases of everything this worker runs, in one statement. Returns the ids that are
/// still its own; the others were cancelled or taken over and must be aborted.
///
/// # Errors
/// When the database fails.
pub async fn renew(
    tx: &mut SweepTx,
    claims: &[(Uuid, Uuid)],
    lease: Duration,
) -> StoreResult<Vec<Uuid>> {
    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = claims.iter().copied().unzip();
    let renewed = sqlx::query_scalar!(
        "UPDATE chat.generations g SET lease_until = now() + $3 * interval '1 second'
         FROM unnest($1::uuid[], $2::uuid[]) AS mine (id, token)
         WHERE g.id = mine.id AND g.claim_token = mine.token
         RETURNING g.id",
        &ids,
        &tokens,
        lease.as_secs_f64(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(renewed)
}

/// Gives claims back at once and uncounted, because the worker drains. Returns what became free.
///
/// # Errors
/// When the database fails.
pub async fn release(
    tx: &mut SweepTx,
    claims: &[(Uuid, Uuid)],
) -> StoreResult<Vec<(Uuid, Priority)>> {
    let (ids, tokens): (Vec<Uuid>, Vec<Uuid>) = claims.iter().copied().unzip();
    let released = sqlx::query!(
        r#"UPDATE chat.generations g
           SET status = 'queued', claim_token = NULL, lease_until = NULL, run_at = now(), forgiven = g.forgiven + 1
           FROM unnest($1::uuid[], $2::uuid[]) AS mine (id, token)
           WHERE g.id = mine.id AND g.claim_token = mine.token
           RETURNING g.id, g.priority AS "priority: Priority""#,
        &ids,
        &tokens,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(released
        .into_iter()
        .map(|row| (row.id, row.priority))
        .collect())
}

/// Puts a claim back to be tried after `delay`. `forgive` leaves the attempt uncounted: waiting for
/// a limit is not a failure. Returns false when the claim was lost meanwhile.
///
/// # Errors
/// When the database fails.
pub async fn retry_later(
    tx: &mut SweepTx,
    id: Uuid,
    token: Uuid,
    delay: Duration,
    forgive: bool,
    reason: &str,
) -> StoreResult<bool> {
    let updated = sqlx::query!(
        "UPDATE chat.generations g
         SET status = 'queued', claim_token = NULL, lease_until = NULL, error_detail = $5,
             run_at = now() + $3 * interval '1 second', forgiven = g.forgiven + $4::boolean::integer
         WHERE g.id = $1 AND g.claim_token = $2",
        id,
        token,
        delay.as_secs_f64(),
        forgive,
        reason,
    )
    .execute(tx.conn())
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// How a worker takes over from its predecessor.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// When it asked who of its name lives.
    pub called_at: OffsetDateTime,
    /// How long those had time to sign.
    pub wait: Duration,
    /// See [`free_predecessor`].
    pub stagger: Duration,
}

/// Frees what an earlier life of this worker left: same name, other boot, and it has ended, is not
/// known, or did not sign the register within `wait` after the call. Its attempt counts, so that a
/// generation that kills its worker is given up in the end: the lease of one whose attempts are used up
/// ends now, and the next sweep fails it.
///
/// What has been lost before comes back at a random moment within `stagger`, twice that the next time,
/// and so on: one that kills its worker must not meet the same neighbours again and again.
///
/// # Errors
/// When the database fails.
pub async fn free_predecessor(
    tx: &mut SweepTx,
    name: &str,
    worker_id: &str,
    handover: &Handover,
) -> StoreResult<Vec<(Uuid, Priority)>> {
    let freed = sqlx::query!(
        r#"WITH left_behind AS MATERIALIZED (
               SELECT g.id, g.attempt - g.forgiven AS counted, g.attempt - g.forgiven >= g.max_attempts AS spent
               FROM chat.generations g LEFT JOIN chat.workers w ON w.name || '/' || w.boot = g.worker_id
               WHERE g.status = 'in_progress' AND split_part(g.worker_id, '/', 1) = $1 AND g.worker_id <> $2
                 AND (w.boot IS NULL OR w.stopped_at IS NOT NULL
                      OR w.last_seen_at <= $3 AND now() >= $3 + $4 * interval '1 second')
               FOR UPDATE OF g SKIP LOCKED
           )
           UPDATE chat.generations g
           SET status = CASE WHEN l.spent THEN 'in_progress' ELSE 'queued' END,
               claim_token = CASE WHEN l.spent THEN g.claim_token END,
               lease_until = CASE WHEN l.spent THEN now() END,
               run_at = now() + CASE WHEN l.counted < 2 THEN 0
                                     ELSE random() * $5 * power(2, least(l.counted - 2, 6)) END * interval '1 second'
           FROM left_behind l WHERE g.id = l.id
           RETURNING g.id, g.priority AS "priority: Priority", l.spent AS "spent!""#,
        name,
        worker_id,
        handover.called_at,
        handover.wait.as_secs_f64(),
        handover.stagger.as_secs_f64(),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(freed
        .into_iter()
        .filter(|row| !row.spent)
        .map(|row| (row.id, row.priority))
        .collect())
}
