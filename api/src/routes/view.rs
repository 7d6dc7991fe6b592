//! The shapes of answers.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::domain::{Conversation, Generation, Message, Usage};
use shared::store::idempotency::Replay;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Problem, Result};

/// A page of conversations.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Conversations {
    pub conversations: Vec<Conversation>,
    /// How many match in all.
    pub total: i64,
    pub pagination: OffsetPage,
}

/// Where a page stands that is counted from the newest.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OffsetPage {
    pub limit: i64,
    pub offset: i64,
    pub has_more: bool,
}

/// A conversation with its newest messages, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConversationWithMessages {
    pub conversation: Conversation,
    pub messages: Vec<Message>,
}

/// A page of messages, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Messages {
    pub messages: Vec<Message>,
    pub pagination: CursorPage,
}

/// Where a page stands that is counted by message ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CursorPage {
    pub limit: i64,
    /// The `before_id` (or `after_id`, where that was asked for) of the next page.
    pub next_cursor: Option<Uuid>,
    pub has_more: bool,
}

impl CursorPage {
    /// The next page, if there is one, begins after `edge`, the last item of this one.
    pub(in crate::routes) fn up_to(edge: Option<Uuid>, limit: i64, has_more: bool) -> Self {
        Self {
            limit,
            next_cursor: edge.filter(|_| has_more),
            has_more,
        }
    }
}

/// A page of generations, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Generations {
    pub generations: Vec<Generation>,
    pub pagination: OffsetPage,
}

/// A message that is stored and whose reply is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// The message as stored; absent when a reply is made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_message: Option<Message>,
    pub generation: Generation,
    pub links: Links,
}

/// Where to follow a generation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Links {
    #[serde(rename = "self")]
    pub this: String,
    pub events: String,
    pub cancel: String,
}

impl Links {
    pub(super) fn of(generation_id: Uuid) -> Self {
        let this = format!("/api/chat/generations/{generation_id}");
        Self {
            events: format!("{this}/events"),
            cancel: format!("{this}/cancel"),
            this,
        }
    }
}

/// A message with its reply. Where the generation ended without one, `generation` says why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Replied {
    pub user_message: Message,
    pub assistant_message: Option<Message>,
    pub usage: Option<Usage>,
    pub generation: Generation,
}

/// Another reply to the same message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Regenerated {
    pub new_message: Option<Message>,
    pub usage: Option<Usage>,
    pub generation: Generation,
}

/// An answer whose bytes are final, so that it can be kept for a repeated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer(pub Replay);

impl Answer {
    pub(super) fn new(
        status: StatusCode,
        location: Option<String>,
        body: &impl Serialize,
    ) -> Result<Self> {
        let body = serde_json::to_string(body).map_err(Problem::internal)?;
        Ok(Self(Replay {
            status: status.as_u16(),
            location,
            body,
        }))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Self(Replay {
            status,
            location,
            body,
        }) = self;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = (
            status,
            [(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )],
            body,
        )
            .into_response();
        if let Some(location) = location.and_then(|text| HeaderValue::from_str(&text).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// The `ETag` of a conversation: its version.
pub(super) fn tag(conversation: &Conversation) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", conversation.version))]
}
