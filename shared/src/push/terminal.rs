//! The terminal event, the same whoever makes it: the worker that finished, the replica that
//! cancelled, or a reader that found the log gone.

use serde_json::json;

use crate::domain::{Event, EventType, Generation, GenerationStatus};
use crate::id::EventId;

/// The terminal event of a generation that has ended, with `assistant_message` filled in where
/// there is one; none while it has not ended.
#[must_use]
pub fn terminal_event(generation: &Generation) -> Option<Event> {
    let (kind, data) = match generation.status {
        GenerationStatus::Queued | GenerationStatus::InProgress => return None,
        GenerationStatus::Completed | GenerationStatus::Incomplete => (
            EventType::Completed,
            json!({
                "status": generation.status,
                "assistant_message": generation.assistant_message,
                "usage": generation.usage,
            }),
        ),
        GenerationStatus::Failed => (EventType::Failed, json!({ "error": generation.error })),
        GenerationStatus::Cancelled => (
            EventType::Cancelled,
            json!({ "partial_content": generation.partial_content }),
        ),
    };
    let attempt = u32::try_from(generation.attempts).unwrap_or(0);
    let at = generation
        .timings
        .finished_at
        .unwrap_or(generation.timings.queued_at);
    let id = EventId::terminal(generation.id, attempt);
    Some(Event::of_generation(
        id,
        kind,
        generation.conversation_id,
        at,
        &data,
    ))
}
