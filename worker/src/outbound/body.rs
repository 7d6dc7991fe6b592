//! What a notification says: the same bytes on every try and at every destination.

use bytes::Bytes;
use serde::Serialize;
use shared::domain::assessment::StageNotice;
use shared::domain::{
    ContentType, GenerationError, GenerationKind, GenerationStatus, NotificationType, Usage,
    timestamp,
};
use shared::store::notifications::{Content, Taken, TakenStage};
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
