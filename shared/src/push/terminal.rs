//! The terminal event, the same whoever makes it: the worker that finished, the replica that
//! cancelled, or a reader that found the log gone.

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    Event, EventType, Generation, GenerationError, GenerationStatus, Message, Usage,
};
use crate::id::EventId;

/// The terminal event of a generation that has ended, with `assistant_message` filled in where
/// there is one; none while it has not ended.
#[must_use]
pub fn terminal_event(generation: &Generation) -> Option<Event> {
    let ended = match generation.status {
        GenerationStatus::Queued | GenerationStatus::InProgress => return None,
        GenerationStatus::Completed | GenerationStatus::Incomplete => Ended::Completed {
            status: generation.status,
            message: generation.assistant_message.as_ref(),
            usage: generation.usage.as_ref(),
        },
        GenerationStatus::Failed => Ended::Failed {
            error: generation.error.as_ref(),
        },
        GenerationStatus::Cancelled => Ended::Cancelled {
            partial: generation.partial_content.as_deref(),
        },
    };
    let attempt = u32::try_from(generation.attempts).unwrap_or(0);
    let at = generation
        .timings
        .finished_at
        .unwrap_or(generation.timings.queued_at);
    Some(ended.event(generation.id, generation.conversation_id, attempt, at))
}

/// How a generation ended.
#[derive(Clone, Copy, Debug)]
pub enum Ended<'a> {
    /// With a reply.
    Completed {
        /// Completed or incomplete.
        status: GenerationStatus,
        /// The reply; a title has none.
        message: Option<&'a Message>,
        /// What it took.
        usage: Option<&'a Usage>,
    },
    /// Without one.
    Failed {
        /// Why.
        error: Option<&'a GenerationError>,
    },
    /// By its user.
    Cancelled {
        /// The text so far.
        partial: Option<&'a str>,
    },
}

impl Ended<'_> {
    /// The event that says so.
    #[must_use]
    pub fn event(
        &self,
        generation_id: Uuid,
        conversation_id: Uuid,
        attempt: u32,
        at: OffsetDateTime,
    ) -> Event {
        let (kind, data): (EventType, Value) = match self {
            Self::Completed {
                status,
                message,
                usage,
            } => (
                EventType::Completed,
                json!({ "status": status, "assistant_message": message, "usage": usage }),
            ),
            Self::Failed { error } => (EventType::Failed, json!({ "error": error })),
            Self::Cancelled { partial } => {
                (EventType::Cancelled, json!({ "partial_content": partial }))
            }
        };
        Event::of_generation(
            EventId::terminal(generation_id, attempt),
            kind,
            conversation_id,
            at,
            &data,
        )
    }
}
