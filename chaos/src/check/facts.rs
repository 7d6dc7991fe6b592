//! What there is to judge: the ledger, the rows as they are in the end, and the model's calls.

use std::collections::HashMap;

use anyhow::Context;
use loadtest::simulator::{CallRecord, Endpoint, Outcome};
use shared::testing::Session;
use uuid::Uuid;

use crate::load::Books;

/// A row of `chat.generations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GenerationRow {
    pub(crate) id: Uuid,
    pub(crate) conversation: Uuid,
    pub(crate) is_title: bool,
    pub(crate) status: String,
    pub(crate) attempt: i64,
    pub(crate) forgiven: i64,
    pub(crate) max_attempts: i64,
    pub(crate) user_message: Option<Uuid>,
    pub(crate) reply: Option<Uuid>,
    pub(crate) error: Option<String>,
    /// Microseconds since 1970.
    pub(crate) finished_us: Option<u64>,
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
    pub(crate) content: String,
}

/// A call of the model for a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The message it was made for; none when it was made for nothing we have sent.
    pub(crate) number: Option<usize>,
    /// Who called.
    pub(crate) worker: String,
    /// Microseconds since 1970.
    pub(crate) at_us: u64,
    /// The whole answer was sent.
    pub(crate) is_answered: bool,
}

impl Call {
    /// None for a title.
    pub(crate) fn of(record: &CallRecord) -> Option<Self> {
        (record.endpoint == Endpoint::Chat).then(|| Self {
            number: Books::number(&record.last_user_message),
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
}

const GENERATIONS: &str = "SELECT g.id::text, g.conversation_id::text, (g.kind = 'title')::text, g.status, g.attempt::text,
    g.forgiven::text, g.max_attempts::text, g.user_message_id::text, g.assistant_message_id::text, g.error_code,
    (extract(epoch FROM g.finished_at) * 1000000)::bigint::text, COALESCE(u.count, 0)::text
    FROM chat.generations g LEFT JOIN (
        SELECT generation_id, count(*) FROM chat.usage_tracking WHERE operation = 'completion' AND NOT wasted GROUP BY 1
    ) u ON u.generation_id = g.id
    ORDER BY g.id";
const MESSAGES: &str = "SELECT id::text, conversation_id::text, (sender_type = 'assistant')::text, parent_message_id::text,
    content FROM chat.messages ORDER BY id";
const KEPT: &str = "SELECT key, body::jsonb -> 'generation' ->> 'id' FROM chat.idempotency_keys
    WHERE body::jsonb ? 'generation'";

impl Facts {
    /// Reads the tables.
    pub(crate) async fn read(
        url: &str,
        books: Books,
        calls: &[CallRecord],
    ) -> anyhow::Result<Self> {
        let refused = |refused| anyhow::anyhow!("Postgres refused: {refused:?}");
        let mut session = Session::open(url).await.map_err(refused)?;
        let mut rows = async |sql| session.rows(sql).await.map_err(refused);
        let generations = rows(GENERATIONS).await?;
        let messages = rows(MESSAGES).await?;
        let kept = rows(KEPT).await?;
        Ok(Self {
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
            calls: calls.iter().filter_map(Call::of).collect(),
        })
    }
}

fn id(text: &Option<String>) -> Option<Uuid> {
    text.as_deref()?.parse().ok()
}

fn generation(row: &[Option<String>]) -> Option<GenerationRow> {
    let number = |place: usize| -> Option<i64> { row[place].as_deref()?.parse().ok() };
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
        finished_us: number(10).and_then(|micros| u64::try_from(micros).ok()),
        usages: number(11)?,
    })
}

fn message(row: &[Option<String>]) -> Option<MessageRow> {
    Some(MessageRow {
        id: id(&row[0])?,
        conversation: id(&row[1])?,
        is_reply: row[2].as_deref()? == "true",
        parent: id(&row[3]),
        content: row[4].clone()?,
    })
}
