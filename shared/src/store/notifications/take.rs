//! Taking notifications to deliver.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Held, TRIP};
use crate::desk;
use crate::domain::assessment::{Language, Stage};
use crate::domain::{
    ContentType, Destination, FailureCode, GenerationKind, GenerationStatus, NotificationType,
    SenderType, Usage,
};
use crate::store::{StoreResult, SweepTx};

/// A notification that was taken: whoever has it tries it once.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The notification's id, and the proof of the claim.
    pub held: Held,
    /// Whose it is.
    pub user_id: Uuid,
    /// The conversation it tells of.
    pub conversation_id: Uuid,
    /// The generation it tells of; none for a stage.
    pub generation_id: Option<Uuid>,
    /// The stage it tells of.
    pub stage: Option<TakenStage>,
    /// What it tells.
    pub kind: NotificationType,
    /// When that happened.
    pub occurred_at: OffsetDateTime,
    /// Tries, this one included.
    pub attempts: i32,
    /// Correlation.
    pub request_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// A stage of an assessment as it waits to be told.
#[derive(Clone, Copy, Debug)]
pub struct TakenStage {
    /// The assessment.
    pub assessment_id: Uuid,
    /// The stage.
    pub stage: Stage,
    /// The person's language.
    pub language: Language,
}

/// Whether there may be anything to take. It locks nothing and reads one index.
///
/// # Errors
/// When the database fails.
pub async fn is_work(tx: &mut SweepTx, destination: Destination) -> StoreResult<bool> {
    let is_work = sqlx::query_scalar!(
        r#"SELECT d.paused_until <= now() AND EXISTS (
                      SELECT FROM chat.notifications n WHERE n.destination = d.name AND n.dead_at IS NULL
                        AND n.next_try_at <= CASE WHEN d.failures >= $2 THEN 'infinity' ELSE now() END) AS "is_work!"
           FROM chat.notification_destinations d WHERE d.name = $1"#,
        destination.as_str(),
        TRIP,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(is_work)
}

/// Takes up to `most` notifications that are due, the longest due first; so many that the whole fleet
/// has no more than `fleet` of this destination. Where too many tries failed in a row it is a single
/// one, due or not, and none before the pause is over.
///
/// # Errors
/// When the database fails.
pub async fn take(
    tx: &mut SweepTx,
    destination: Destination,
    token: Uuid,
    most: i64,
    fleet: i64,
    lease: Duration,
) -> StoreResult<Vec<Taken>> {
    // A statement of its own takes the lock: the next one then sees what others took before it.
    let gate = sqlx::query!(
        r#"SELECT d.failures >= $2 AS "tripped!", d.paused_until > now() AS "paused!"
           FROM chat.notification_destinations d WHERE d.name = $1 FOR NO KEY UPDATE"#,
        destination.as_str(),
        TRIP,
    )
    .fetch_one(tx.conn())
    .await?;
    if gate.paused {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"WITH places AS MATERIALIZED (
               SELECT GREATEST(LEAST($2::bigint, CASE WHEN $3 THEN 1 ELSE $4::bigint END - count(*)), 0) AS free
               FROM chat.notifications n
               WHERE n.destination = $1 AND n.claim_token IS NOT NULL AND n.next_try_at > now()
           ), head AS MATERIALIZED (
               SELECT n.id FROM chat.notifications n
               WHERE n.destination = $1 AND n.dead_at IS NULL
                 AND n.next_try_at <= CASE WHEN $3 THEN 'infinity' ELSE now() END
                 AND NOT EXISTS (
                     SELECT FROM chat.notifications o
                     WHERE o.conversation_id = n.conversation_id AND o.destination = n.destination
                       AND o.place < n.place AND o.dead_at IS NULL)
               ORDER BY n.next_try_at LIMIT (SELECT free FROM places) FOR UPDATE SKIP LOCKED
           )
           UPDATE chat.notifications n
           SET claim_token = $5, next_try_at = now() + $6 * interval '1 second', attempts = n.attempts + 1,
               first_try_at = COALESCE(n.first_try_at, now())
           FROM head h WHERE n.id = h.id AND n.destination = $1
           RETURNING n.id, n.user_id, n.conversation_id, n.generation_id, n.type AS "kind: NotificationType",
                     n.occurred_at, n.attempts, n.request_id, n.traceparent, n.assessment_id,
                     n.stage AS "stage: Stage", n.language AS "language: Language""#,
        destination.as_str(),
        most,
        gate.tripped,
        fleet,
        token,
        lease.as_secs_f64(),
    )
    .fetch_all(tx.conn())
    .await?;
    let taken = rows.into_iter().map(|row| Taken {
        held: Held { id: row.id, token },
        user_id: row.user_id,
        conversation_id: row.conversation_id,
        generation_id: row.generation_id,
        stage: row
            .assessment_id
            .zip(row.stage)
            .map(|(assessment_id, stage)| TakenStage {
                assessment_id,
                stage,
                language: row.language.unwrap_or_default(),
            }),
        kind: row.kind,
        occurred_at: row.occurred_at,
        attempts: row.attempts,
        request_id: row.request_id,
        traceparent: row.traceparent,
    });
    Ok(taken.collect())
}

/// What a notification tells besides itself. Nothing in it changes once the generation has ended.
#[derive(Clone, Debug)]
pub struct Content {
    /// What the generation made.
    pub kind: GenerationKind,
    /// How it ended.
    pub status: GenerationStatus,
    /// The message it answered.
    pub user_message_id: Option<Uuid>,
    /// Why it failed.
    pub error_code: Option<FailureCode>,
    /// What it took.
    pub usage: Option<Usage>,
    /// The reply.
    pub reply: Option<Reply>,
    /// What the person who is to take over should know, where the help desk hands over.
    pub handoff: Option<Handoff>,
}

/// What a person who takes over from the help desk's assistant should know.
#[derive(Clone, Debug)]
pub struct Handoff {
    /// What the help desk noted with the answer: intent, mood, language, entries, reason. Where there is no
    /// answer, what it thinks of the question.
    pub support: Value,
    /// The newest messages up to the answer, oldest first; up to the question where there is none.
    pub transcript: Vec<Spoken>,
}

/// A message of a transcript.
#[derive(Clone, Debug)]
pub struct Spoken {
    /// Who wrote it.
    pub sender_type: SenderType,
    /// The text.
    pub content: String,
    /// When it was stored.
    pub created_at: OffsetDateTime,
    /// What the help desk noted with it, with its answers only.
    pub support: Option<Value>,
}

/// Messages of a transcript.
const TRANSCRIPT: i64 = 30;

/// A reply as it is told.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The message.
    pub id: Uuid,
    /// The text.
    pub content: String,
    /// How to show it.
    pub content_type: ContentType,
    /// When it was stored.
    pub created_at: OffsetDateTime,
}

/// What the notifications of these generations tell, in their order; none where that was erased or its
/// conversation deleted.
///
/// # Errors
/// When the database fails.
pub async fn contents(tx: &mut SweepTx, generations: &[Uuid]) -> StoreResult<Vec<Option<Content>>> {
    let rows = sqlx::query!(
        r#"SELECT w.place AS "place!", g.kind AS "kind: GenerationKind", g.status AS "status: GenerationStatus",
                  g.user_message_id, g.error_code AS "error_code: FailureCode", g.usage AS "usage: Json<Usage>",
                  g.assistant_message_id IS NOT NULL AS "replied!", m.id AS "reply_id?", m.content AS "content?",
                  m.content_type AS "content_type?: ContentType", m.created_at AS "created_at?",
                  g.conversation_id, m.metadata -> 'support' AS "support?",
                  g.context_type = 'support' AS "is_support!"
           FROM unnest($1::uuid[]) WITH ORDINALITY AS w (id, place)
           JOIN chat.generations g ON g.id = w.id
           JOIN chat.conversations c ON c.id = g.conversation_id AND c.status <> 'deleted'
           LEFT JOIN chat.messages m ON m.id = g.assistant_message_id AND m.conversation_id = g.conversation_id"#,
        generations
    )
    .fetch_all(tx.conn())
    .await?;
    let mut contents = vec![None; generations.len()];
    for row in rows {
        let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
        let Some(content) = contents.get_mut(place) else {
            continue;
        };
        let reply = match (row.reply_id, row.content, row.content_type, row.created_at) {
            (Some(id), Some(content), Some(content_type), Some(created_at)) => Some(Reply {
                id,
                content,
                content_type,
                created_at,
            }),
            _ => None,
        };
        // A reply that is gone was erased.
        if row.replied && reply.is_none() {
            continue;
        }
        let handoff = match (row.support, &reply, row.user_message_id) {
            (Some(support), Some(reply), _) if support["should_escalate"] == true => {
                Some(Handoff {
                    transcript: transcript(tx, row.conversation_id, reply.id).await?,
                    support,
                })
            }
            (_, None, Some(question))
                if row.is_support && row.status == GenerationStatus::Failed =>
            {
                let transcript = transcript(tx, row.conversation_id, question).await?;
                Some(unanswered(transcript))
            }
            _ => None,
        };
        *content = Some(Content {
            kind: row.kind,
            status: row.status,
            user_message_id: row.user_message_id,
            error_code: row.error_code,
            usage: row.usage.map(|usage| usage.0),
            reply,
            handoff,
        });
    }
    Ok(contents)
}

/// What is known where the help desk had no say: nobody looked the question up.
fn unanswered(transcript: Vec<Spoken>) -> Handoff {
    let question = transcript.last().map(|spoken| spoken.content.as_str());
    let judgement = desk::judge(question.unwrap_or_default());
    let support = json!({
        "escalation_reason": desk::Reason::ToolFailure,
        "intent": judgement.intent,
        "confidence": judgement.confidence,
        "sentiment": judgement.sentiment,
        "language": judgement.language,
        "sources": [],
    });
    Handoff {
        support,
        transcript,
    }
}

/// The newest messages of a conversation up to one of them, oldest first.
async fn transcript(
    tx: &mut SweepTx,
    conversation_id: Uuid,
    last: Uuid,
) -> StoreResult<Vec<Spoken>> {
    let mut spoken = sqlx::query_as!(
        Spoken,
        r#"SELECT m.sender_type AS "sender_type: SenderType", m.content, m.created_at,
                  m.metadata -> 'support' AS "support?" FROM chat.messages m
           WHERE m.conversation_id = $1 AND m.id > $1 AND m.id <= $2 ORDER BY m.id DESC LIMIT $3"#,
        conversation_id,
        last,
        TRANSCRIPT,
    )
    .fetch_all(tx.conn())
    .await?;
    spoken.reverse();
    Ok(spoken)
}
