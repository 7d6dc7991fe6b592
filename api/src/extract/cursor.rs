//! Where a client wants to resume.

use axum::extract::FromRequestParts;
use http::request::Parts;
use shared::id::EventId;
use uuid::Uuid;

use crate::error::{Code, FieldError, Problem, Result};

/// The `Last-Event-ID` header, which browsers send by themselves when they reconnect.
#[derive(Clone, Copy, Debug)]
pub struct LastEventId(Option<EventId>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let Some(value) = parts.headers.get("last-event-id") else {
            return Ok(Self(None));
        };
        // The HTML standard resets the id with an empty one.
        if value.is_empty() {
            return Ok(Self(None));
        }
        let text = value
            .to_str()
            .map_err(|_| invalid("Last-Event-ID", "is not an event id"))?;
        parse("Last-Event-ID", text).map(Some).map(Self)
    }
}

impl LastEventId {
    /// The event to resume after. The header wins over `?after=`, because a browser that reconnects
    /// repeats the address it was first given.
    ///
    /// # Errors
    /// `invalid_cursor` when `after` is not an event id.
    pub fn or(self, after: Option<&str>) -> Result<Option<EventId>> {
        match (self.0, after) {
            (Some(id), _) => Ok(Some(id)),
            (None, Some(text)) => parse("after", text).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The same, for the log of one generation.
    ///
    /// # Errors
    /// `invalid_cursor` also when the event is another generation's.
    pub fn or_of(self, after: Option<&str>, generation_id: Uuid) -> Result<Option<EventId>> {
        of(self.or(after)?, generation_id)
    }
}

/// The event named by `after`, which must be one of this generation.
///
/// # Errors
/// `invalid_cursor` when it is not.
pub fn event_of(after: Option<&str>, generation_id: Uuid) -> Result<Option<EventId>> {
    of(
        after.map(|text| parse("after", text)).transpose()?,
        generation_id,
    )
}

fn of(id: Option<EventId>, generation_id: Uuid) -> Result<Option<EventId>> {
    match id {
        Some(id) if id.generation_id != generation_id => {
            Err(invalid("after", "is an event of another generation"))
        }
        id => Ok(id),
    }
}

fn parse(field: &str, text: &str) -> Result<EventId> {
    text.parse()
        .map_err(|error: shared::id::InvalidEventId| invalid(field, &error.to_string()))
}

fn invalid(field: &str, message: &str) -> Problem {
    let error = FieldError {
        field: field.to_owned(),
        message: message.to_owned(),
    };
    Problem::coded_fields(Code::InvalidCursor, vec![error])
}
