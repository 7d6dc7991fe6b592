//! Questions to the help desk and what became of them.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::desk::mask;
use crate::domain::Gap;
use crate::store::{EditorTx, OperatorTx, StoreResult, UserTx};

/// Characters of a question that are kept.
const KEPT: usize = 500;
/// How long nobody may ask on before a matter counts as settled; who comes back later has reopened it.
const SETTLED_HOURS: f64 = 24.0;
/// The most questions that one report is made of, the newest.
pub const MOST: i64 = 100_000;

/// A question as it is about to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The person's message.
    pub message_id: Uuid,
    /// Its conversation.
    pub conversation_id: Uuid,
    /// The generation that answers.
    pub generation_id: Uuid,
    /// Its words.
    pub question: &'a str,
    /// What it is about.
    pub intent: &'a str,
    /// Whether the knowledge base has an answer, or none is needed.
    pub answered: bool,
    /// The entries that the answer is made of.
    pub documents: &'a [Uuid],
}

/// Notes a question. Its words are kept only where it has no answer; whether it is handed over is noted by the
/// statement that ends its generation.
///
/// # Errors
/// When the database fails.
pub async fn asked(tx: &mut UserTx, asked: &Asked<'_>) -> StoreResult<()> {
    let user_id = tx.user_id();
    let words = (!asked.answered).then(|| mask(asked.question, KEPT));
    sqlx::query!(
        "INSERT INTO chat.support_questions AS q (message_id, user_id, conversation_id, generation_id, question, intent,
                                                  answered, documents)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (message_id) DO UPDATE
         SET generation_id = EXCLUDED.generation_id, question = EXCLUDED.question, intent = EXCLUDED.intent,
             answered = EXCLUDED.answered, documents = EXCLUDED.documents,
             -- What was thought of another answer says nothing of this one.
             rating = CASE WHEN q.generation_id = EXCLUDED.generation_id THEN q.rating END",
        asked.message_id,
        user_id,
        asked.conversation_id,
        asked.generation_id,
        words,
        asked.intent,
        asked.answered,
        asked.documents,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes that a person has taken over, for the newest question of a conversation; the first
/// reason stays.
///
/// # Errors
/// When the database fails.
pub async fn handed_over(tx: &mut UserTx, conversation_id: Uuid, reason: &str) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.support_questions q SET escalation = COALESCE(q.escalation, $3)
         WHERE q.user_id = $2 AND q.message_id = (
             SELECT n.message_id FROM chat.support_questions n WHERE n.conversation_id = $1
             ORDER BY n.message_id DESC LIMIT 1)",
        conversation_id,
        user_id,
        reason,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes what somebody thinks of the answer to a question of theirs; `reply_id` is that answer. The words of
/// the question are kept while the answer did not help. Nothing happens for replies that are none of the
/// help desk, or were superseded.
///
/// # Errors
/// When the database fails.
pub async fn rated(tx: &mut UserTx, reply_id: Uuid, up: bool) -> StoreResult<()> {
    let user_id = tx.user_id();
    let found = sqlx::query!(
        r#"SELECT q.message_id, q.answered, m.content
           FROM chat.messages r
           JOIN chat.support_questions q ON q.message_id = r.parent_message_id AND q.user_id = $2
           JOIN chat.messages m ON m.id = q.message_id
           WHERE r.id = $1 AND r.user_id = $2 AND r.superseded_by IS NULL"#,
        reply_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(found) = found else { return Ok(()) };
    let words = (!up || !found.answered).then(|| mask(&found.content, KEPT));
    sqlx::query!(
        "UPDATE chat.support_questions SET rating = $3, question = $4 WHERE message_id = $1 AND user_id = $2",
        found.message_id,
        user_id,
        if up { "up" } else { "down" },
        words,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets the words of a conversation that its person has deleted: no editor reads them any more. What
/// became of its questions stays counted.
///
/// # Errors
/// When the database fails.
pub async fn forget_words(tx: &mut UserTx, conversation_id: Uuid) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.support_questions SET question = NULL
         WHERE conversation_id = $1 AND user_id = $2 AND question IS NOT NULL",
        conversation_id,
        user_id,
    )
    .execute(tx.conn())
    .await?;
    sqlx::query!(
        "DELETE FROM chat.knowledge_proposals WHERE conversation_id = $1 AND user_id = $2",
        conversation_id,
        user_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The newest questions without a good answer of the last `days`, at most `limit` of them, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn gaps(tx: &mut EditorTx, days: u16, limit: i64) -> StoreResult<Vec<Gap>> {
    let mut gaps = sqlx::query_as!(
        Gap,
        r#"SELECT q.message_id AS id, q.conversation_id, q.question AS "question!", q.intent, q.answered, q.asked_at
           FROM chat.support_questions q
           WHERE q.question IS NOT NULL AND q.message_id >= chat.uuid7_floor(now() - $1 * interval '1 day')
           ORDER BY q.message_id DESC LIMIT $2"#,
        f64::from(days),
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    gaps.reverse();
    Ok(gaps)
}

/// What people thought of answers that were made of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatedEntry {
    /// The entry.
    pub document_id: Uuid,
    /// Where in the application it happens.
    pub menu: String,
    /// What it is about.
    pub issue: String,
    /// Answers that helped.
    pub up: i64,
    /// Answers that did not.
    pub down: i64,
}

/// The entries whose answers helped least in the last `days`, by how many did not help; at most `limit`, of
/// the newest [`MOST`] ratings.
///
/// # Errors
/// When the database fails.
pub async fn rated_entries(
    tx: &mut EditorTx,
    days: u16,
    limit: i64,
) -> StoreResult<Vec<RatedEntry>> {
    let entries = sqlx::query_as!(
        RatedEntry,
        r#"WITH rated AS MATERIALIZED (
               SELECT q.documents, q.rating FROM chat.support_questions q
               WHERE q.rating IS NOT NULL AND q.message_id >= chat.uuid7_floor(now() - $1 * interval '1 day')
               ORDER BY q.message_id DESC LIMIT $3
           ), counted AS MATERIALIZED (
               SELECT u.id, count(*) FILTER (WHERE r.rating = 'up') AS up, count(*) FILTER (WHERE r.rating = 'down') AS down
               FROM rated r CROSS JOIN LATERAL unnest(r.documents) u (id) GROUP BY u.id
           )
           SELECT d.id AS document_id, d.menu, d.issue, c.up AS "up!", c.down AS "down!"
           FROM counted c JOIN chat.knowledge_documents d ON d.id = c.id
           WHERE c.down > 0 ORDER BY c.down DESC, c.up, d.id LIMIT $2"#,
        f64::from(days),
        limit,
        MOST,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(entries)
}

/// How far the help desk gets without people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Questions.
    pub questions: i64,
    /// Those that the knowledge base answered, or that needed no entry.
    pub answered: i64,
    /// Those that people said were answered well.
    pub rated_up: i64,
    /// Those that people said were not.
    pub rated_down: i64,
    /// Conversations they were asked in.
    pub sessions: i64,
    /// Those of them that may still go on: nobody was handed over, and the last question is younger than a day.
    pub open: i64,
    /// Those in which a person should have taken over, or did.
    pub handed_over: i64,
    /// Those, not handed over, to which somebody came back after a day or later.
    pub reopened: i64,
    /// Those that ended with an answer nobody complained about, without hand-over and without coming back.
    pub deflected: i64,
    /// Only the newest [`MOST`] questions were looked at.
    pub truncated: bool,
}

/// What became of the questions since `from`.
///
/// # Errors
/// When the database fails.
pub async fn outcomes(tx: &mut OperatorTx, from: OffsetDateTime) -> StoreResult<Outcomes> {
    let row = sqlx::query!(
        r#"WITH asked AS MATERIALIZED (
               SELECT q.message_id, q.conversation_id, q.answered, q.escalation, q.rating, q.asked_at
               FROM chat.support_questions q
               WHERE q.message_id >= chat.uuid7_floor($1::timestamptz - interval '1 day') AND q.asked_at >= $1
               ORDER BY q.message_id DESC LIMIT $2
           ), placed AS MATERIALIZED (
               SELECT a.*,
                      a.asked_at - lag(a.asked_at) OVER w > $3 * interval '1 hour' AS came_back,
                      lead(a.message_id) OVER w IS NULL AS is_last
               FROM asked a WINDOW w AS (PARTITION BY a.conversation_id ORDER BY a.message_id)
           ), sessions AS MATERIALIZED (
               SELECT p.conversation_id, bool_or(p.escalation IS NOT NULL) AS handed_over,
                      COALESCE(bool_or(p.came_back), false) AS reopened,
                      max(p.asked_at) > now() - $3 * interval '1 hour' AS is_young,
                      bool_or(p.is_last AND p.answered AND p.rating IS DISTINCT FROM 'down') AS helped
               FROM placed p GROUP BY p.conversation_id
           )
           SELECT (SELECT count(*) FROM asked) AS "questions!",
                  (SELECT count(*) FROM asked WHERE answered) AS "answered!",
                  (SELECT count(*) FROM asked WHERE rating = 'up') AS "rated_up!",
                  (SELECT count(*) FROM asked WHERE rating = 'down') AS "rated_down!",
                  count(*) AS "sessions!",
                  count(*) FILTER (WHERE NOT s.handed_over AND s.is_young) AS "open!",
                  count(*) FILTER (WHERE s.handed_over) AS "handed_over!",
                  count(*) FILTER (WHERE NOT s.handed_over AND NOT s.is_young AND s.reopened) AS "reopened!",
                  count(*) FILTER (WHERE NOT s.handed_over AND NOT s.is_young AND NOT s.reopened AND s.helped)
                      AS "deflected!"
           FROM sessions s"#,
        from,
        MOST,
        SETTLED_HOURS,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(Outcomes {
        questions: row.questions,
        answered: row.answered,
        rated_up: row.rated_up,
        rated_down: row.rated_down,
        sessions: row.sessions,
        open: row.open,
        handed_over: row.handed_over,
        reopened: row.reopened,
        deflected: row.deflected,
        truncated: row.questions >= MOST,
    })
}
