//! What there is to judge: the ledger, the rows as they are in the end, and the model's calls.

use std::collections::HashMap;

use anyhow::Context;
use loadtest::simulator::{CallRecord, Endpoint, Outcome};
use shared::testing::Session;
use uuid::Uuid;

use crate::load::Books;
use crate::receiver::Told;

/// A row of `chat.generations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GenerationRow {
    pub(crate) id: Uuid,
    pub(crate) user: Uuid,
    pub(crate) conversation: Uuid,
    pub(crate) is_title: bool,
    pub(crate) status: String,
    pub(crate) attempt: i64,
    pub(crate) forgiven: i64,
    pub(crate) max_attempts: i64,
    pub(crate) user_message: Option<Uuid>,
    pub(crate) reply: Option<Uuid>,
    pub(crate) error: Option<String>,
    /// Microseconds since 1970; it had not ended before.
    pub(crate) finished_us: Option<u64>,
    /// When the last change of the row was committed: it had ended by then.
    pub(crate) changed_us: Option<u64>,
    /// Rows of completion usage that are not wasted.
    pub(crate) usages: i64,
}

/// A row of `chat.messages`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessageRow {
    pub(crate) id: Uuid,
    pub(crate) conversation: Uuid,
    pub(crate) is_reply: bool,
    pub(crate) parent: Option<Uuid>,
    pub(crate) superseded_by: Option<Uuid>,
    pub(crate) content: String,
}

/// How long a worker lets a summary of a conversation become, and nothing else: replies have `MAX_TOKENS`.
const SUMMARY_TOKENS: u32 = 500;

/// A call of the model for a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The wish it was made for; none when it was made for nothing we have sent.
    pub(crate) number: Option<usize>,
    /// The message that the model was shown last.
    pub(crate) asked: Option<usize>,
    /// Who called.
    pub(crate) worker: String,
    /// Microseconds since 1970.
    pub(crate) at_us: u64,
    /// The whole answer was sent.
    pub(crate) is_answered: bool,
}

impl Call {
    /// None for a title or a summary. `keys` are the numbers of the wishes by their keys.
    pub(crate) fn of(record: &CallRecord, keys: &HashMap<&str, usize>) -> Option<Self> {
        let is_summary = record.max_tokens == Some(SUMMARY_TOKENS);
        (record.endpoint == Endpoint::Chat && !is_summary).then(|| Self {
            number: record
                .request_id
                .as_deref()
                .and_then(|key| keys.get(key).copied()),
            asked: Books::number(&record.last_user_message),
            worker: record.key.clone(),
            at_us: record.at_us,
            is_answered: record.outcome == Outcome::Completed,
        })
    }
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) books: Books,
    /// By id, so in the order in which they were accepted.
    pub(crate) generations: Vec<GenerationRow>,
    /// By id.
    pub(crate) messages: Vec<MessageRow>,
    /// The generation in the kept answer of each idempotency key.
    pub(crate) kept: HashMap<String, Uuid>,
    pub(crate) calls: Vec<Call>,
    /// What the notification service was told.
    pub(crate) told: Told,
    /// Notifications that are not delivered.
    pub(crate) untold: u64,
}

const GENERATIONS: &str = "SELECT g.id::text, g.conversation_id::text, (g.kind = 'title')::text, g.status, g.attempt::text,
    g.forgiven::text, g.max_attempts::text, g.user_message_id::text, g.assistant_message_id::text, g.error_code,
    (extract(epoch FROM g.finished_at) * 1000000)::bigint::text, COALESCE(u.count, 0)::text, g.user_id::text,
    (extract(epoch FROM pg_xact_commit_timestamp(g.xmin)) * 1000000)::bigint::text
    FROM chat.generations g LEFT JOIN (
        SELECT generation_id, count(*) FROM chat.usage_tracking WHERE operation = 'completion' AND NOT wasted GROUP BY 1
    ) u ON u.generation_id = g.id
    ORDER BY g.id";
const MESSAGES: &str = "SELECT id::text, conversation_id::text, (sender_type = 'assistant')::text, parent_message_id::text,
    content, superseded_by::text FROM chat.messages ORDER BY id";
const KEPT: &str = "SELECT key, body::jsonb -> 'generation' ->> 'id' FROM chat.idempotency_keys
    WHERE body::jsonb ? 'generation'";
const UNTOLD: &str = "SELECT count(*)::text FROM chat.notifications";

impl Facts {
    /// Reads the tables.
    pub(crate) async fn read(
        url: &str,
        books: Books,
        calls: &[CallRecord],
        told: Told,
    ) -> anyhow::Result<Self> {
        let refused = |refused| anyhow::anyhow!("Postgres refused: {refused:?}");
        let mut session = Session::open(url).await.map_err(refused)?;
        let mut rows = async |sql| session.rows(sql).await.map_err(refused);
        let generations = rows(GENERATIONS).await?;
        let messages = rows(MESSAGES).await?;
        let kept = rows(KEPT).await?;
        let untold = rows(UNTOLD).await?;
        let keys: HashMap<&str, usize> = books
            .requests
            .iter()
            .enumerate()
            .map(|(number, request)| (request.key.as_str(), number))
            .collect();
        let calls = calls
            .iter()
            .filter_map(|call| Call::of(call, &keys))
            .collect();
        Ok(Self {
            calls,
            told,
            untold: untold
                .first()
                .and_then(|row| row[0].as_deref()?.parse().ok())
                .context("failed to count the notifications")?,
            books,
            generations: generations
                .iter()
                .map(|row| generation(row))
                .collect::<Option<_>>()
                .context("failed to read the generations")?,
            messages: messages
                .iter()
                .map(|row| message(row))
                .collect::<Option<_>>()
                .context("failed to read the messages")?,
            kept: kept
                .iter()
                .map(|row| Some((row[0].clone()?, id(&row[1])?)))
                .collect::<Option<_>>()
                .context("failed to read the kept answers")?,
        })
    }
}

fn id(text: &Option<String>) -> Option<Uuid> {
    text.as_deref()?.parse().ok()
}

fn generation(row: &[Option<String>]) -> Option<GenerationRow> {
    let number = |place: usize| -> Option<i64> { row[place].as_deref()?.parse().ok() };
    let micros = |place: usize| number(place).and_then(|micros| u64::try_from(micros).ok());
    Some(GenerationRow {
        id: id(&row[0])?,
        conversation: id(&row[1])?,
        is_title: row[2].as_deref()? == "true",
        status: row[3].clone()?,
        attempt: number(4)?,
        forgiven: number(5)?,
        max_attempts: number(6)?,
        user_message: id(&row[7]),
        reply: id(&row[8]),
        error: row[9].clone(),
        finished_us: micros(10),
        usages: number(11)?,
        user: id(&row[12])?,
        changed_us: micros(13),
    })
}

fn message(row: &[Option<String>]) -> Option<MessageRow> {
    Some(MessageRow {
        id: id(&row[0])?,
        conversation: id(&row[1])?,
        is_reply: row[2].as_deref()? == "true",
        parent: id(&row[3]),
        content: row[4].clone()?,
        superseded_by: id(&row[5]),
    })
}
