//! One item of a generation's log, as pushed to clients.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::id::EventId;

super::named_enum! {
    /// What an event tells.
    pub enum EventType {
        /// Waits; `{position, estimated_response_time_ms}`.
        Queued = "generation.queued",
        /// An attempt began; `{model, attempt}`.
        InProgress = "generation.in_progress",
        /// More text; `{text}`.
        Delta = "generation.delta",
        /// Nothing came for a while; `{message}`, never stored.
        Interim = "generation.interim",
        /// The text so far is void; `{model, reason, next_model, delay_ms}`.
        Retrying = "generation.retrying",
        /// The reply is stored; `{assistant_message, usage}`.
        Completed = "generation.completed",
        /// It ended without a reply; `{error}`.
        Failed = "generation.failed",
        /// Its user stopped it; `{partial_content}`.
        Cancelled = "generation.cancelled",
        /// Title, status or metadata changed; `{conversation}`, with the status `deleted` once it is gone.
        ConversationUpdated = "conversation.updated",
        /// An assessment reached a stage; the data is that of `chat.assessment.stage`.
        AssessmentStage = "assessment.stage",
    }
}

impl EventType {
    /// Whether the event ends a generation's log.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// An event as clients see it. The data stays serialised from the producer to the socket.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Ordered within a generation; see [`EventId`].
    #[schema(value_type = String)]
    pub id: EventId,
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The generation, or null for an event of the conversation itself.
    pub generation_id: Option<Uuid>,
    /// The conversation.
    pub conversation_id: Uuid,
    /// When it happened.
    #[serde(with = "super::timestamp")]
    pub at: OffsetDateTime,
    /// What the type says.
    #[schema(value_type = Object)]
    pub data: Box<RawValue>,
}

impl Event {
    /// An event of a generation.
    #[must_use]
    pub fn of_generation(
        id: EventId,
        kind: EventType,
        conversation_id: Uuid,
        at: OffsetDateTime,
        data: &impl Serialize,
    ) -> Self {
        Self {
            id,
            kind,
            generation_id: Some(id.generation_id),
            conversation_id,
            at,
            data: raw(data),
        }
    }

    /// The event that a conversation's own fields changed. Its id carries the conversation's
    /// version, so it is unique, but there is no log to resume it from: a client that missed it
    /// reads the conversation.
    #[must_use]
    pub fn conversation_updated(conversation: &super::Conversation, at: OffsetDateTime) -> Self {
        let version = u32::try_from(conversation.version).unwrap_or(0);
        Self {
            id: EventId {
                generation_id: conversation.id,
                attempt: 0,
                seq: version,
            },
            kind: EventType::ConversationUpdated,
            generation_id: None,
            conversation_id: conversation.id,
            at,
            data: raw(&serde_json::json!({ "conversation": conversation })),
        }
    }

    /// The event that an assessment reached a stage. There is no log to resume it from: a client that
    /// missed it asks how far the assessment is.
    #[must_use]
    pub fn assessment_stage(
        notice: &super::assessment::StageNotice,
        conversation_id: Uuid,
    ) -> Self {
        let rank = u32::try_from(notice.stage.rank()).unwrap_or(0);
        Self {
            id: EventId {
                generation_id: notice.assessment_id,
                attempt: 0,
                seq: rank,
            },
            kind: EventType::AssessmentStage,
            generation_id: None,
            conversation_id,
            at: notice.timestamp,
            data: raw(notice),
        }
    }

    /// The event as JSON, as stored in Redis and sent on SSE and WebSocket.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn raw(data: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(data).unwrap_or_default()
}
