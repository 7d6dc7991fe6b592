//! What a notification says: the same bytes on every try and at every destination.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use shared::domain::assessment::StageNotice;
use shared::domain::{
    ContentType, GenerationError, GenerationKind, GenerationStatus, NotificationType, SenderType,
    Usage, timestamp,
};
use shared::store::notifications::{Content, Handoff, Taken, TakenStage};
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Serialize)]
struct Notification<T> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: NotificationType,
    user_id: Uuid,
    #[serde(with = "timestamp")]
    occurred_at: OffsetDateTime,
    data: T,
}

/// Nothing here changes after the end of the generation; the text so far of a cancelled one does, so
/// it is not told.
#[derive(Serialize)]
struct Data<'a> {
    conversation_id: Uuid,
    generation_id: Option<Uuid>,
    kind: GenerationKind,
    status: GenerationStatus,
    user_message_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assistant_message: Option<AssistantMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<GenerationError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    support: Option<Support<'a>>,
}

/// What a person who takes over from the help desk's assistant should know.
#[derive(Serialize)]
struct Support<'a> {
    reason: &'a Value,
    intent: &'a Value,
    confidence: &'a Value,
    sentiment: &'a Value,
    language: &'a Value,
    sources: &'a Value,
    /// How the mood went: that of each question that was answered, and of this one, oldest first.
    sentiment_trend: Vec<&'a Value>,
    /// What the assistant answered before, oldest first.
    tried: Vec<Tried<'a>>,
    transcript: Vec<Spoken<'a>>,
}

/// An answer of the assistant that did not settle the matter.
#[derive(Serialize)]
struct Tried<'a> {
    #[serde(with = "timestamp")]
    at: OffsetDateTime,
    intent: &'a Value,
    /// Whether the knowledge base had an answer.
    answered: &'a Value,
    /// Whether it was written without a model.
    template: &'a Value,
    /// The entries it was made of.
    sources: &'a Value,
}

#[derive(Serialize)]
struct Spoken<'a> {
    sender_type: SenderType,
    content: &'a str,
    #[serde(with = "timestamp")]
    created_at: OffsetDateTime,
}

impl<'a> Support<'a> {
    fn of(handoff: &'a Handoff) -> Self {
        let note = &handoff.support;
        let answers = handoff.transcript.iter();
        let answers =
            answers.filter_map(|spoken| Some((spoken.created_at, spoken.support.as_ref()?)));
        let tried = answers.clone().map(|(at, noted)| Tried {
            at,
            intent: &noted["intent"],
            answered: &noted["answered"],
            template: &noted["template"],
            sources: &noted["sources"],
        });
        let mut sentiment_trend: Vec<&Value> =
            answers.map(|(_, noted)| &noted["sentiment"]).collect();
        // The answer that hands over is the last of the transcript; where there is none, its question is.
        let has_answer = handoff
            .transcript
            .last()
            .is_some_and(|last| last.support.is_some());
        if !has_answer {
            sentiment_trend.push(&note["sentiment"]);
        }
        let spoken = handoff.transcript.iter().map(|spoken| Spoken {
            sender_type: spoken.sender_type,
            content: &spoken.content,
            created_at: spoken.created_at,
        });
        Self {
            reason: &note["escalation_reason"],
            intent: &note["intent"],
            confidence: &note["confidence"],
            sentiment: &note["sentiment"],
            language: &note["language"],
            sources: &note["sources"],
            tried: tried.collect(),
            sentiment_trend,
            transcript: spoken.collect(),
        }
    }
}

#[derive(Serialize)]
struct AssistantMessage<'a> {
    id: Uuid,
    content: &'a str,
    content_type: ContentType,
    #[serde(with = "timestamp")]
    created_at: OffsetDateTime,
}

/// The body of a notification.
pub(super) fn body(taken: &Taken, content: &Content) -> Bytes {
    let reply = content.reply.as_ref();
    let notification = Notification {
        id: taken.held.id,
        kind: taken.kind,
        user_id: taken.user_id,
        occurred_at: taken.occurred_at,
        data: Data {
            conversation_id: taken.conversation_id,
            generation_id: taken.generation_id,
            kind: content.kind,
            status: content.status,
            user_message_id: content.user_message_id,
            assistant_message: reply.map(|reply| AssistantMessage {
                id: reply.id,
                content: &reply.content,
                content_type: reply.content_type,
                created_at: reply.created_at,
            }),
            usage: content.usage.as_ref(),
            error: content.error_code.map(GenerationError::from),
            support: content
                .handoff
                .as_ref()
                .filter(|_| taken.kind == NotificationType::Escalated)
                .map(Support::of),
        },
    };
    serde_json::to_vec(&notification).unwrap_or_default().into()
}

/// The body of a notification that tells of a stage.
pub(super) fn stage(taken: &Taken, stage: &TakenStage) -> Bytes {
    let at = taken.occurred_at;
    let notification = Notification {
        id: taken.held.id,
        kind: taken.kind,
        user_id: taken.user_id,
        occurred_at: at,
        data: StageNotice::new(stage.stage, stage.assessment_id, stage.language, at),
    };
    serde_json::to_vec(&notification).unwrap_or_default().into()
}
