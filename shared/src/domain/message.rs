//! One turn of a conversation.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

super::named_enum! {
    /// Who wrote a message.
    pub enum SenderType {
        /// The person.
        User = "user",
        /// A model.
        Assistant = "assistant",
        /// Balas itself.
        System = "system",
    }
}

super::named_enum! {
    /// What a message carries.
    #[derive(Default)]
    pub enum ContentType {
        /// Text only.
        #[default]
        Text = "text",
        /// Text about attached images.
        Image = "image",
        /// Text about attached files.
        File = "file",
    }
}

/// Something attached to a message, by address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// An http or https address of at most 2,048 bytes.
    #[schema(max_length = 2048)]
    pub url: String,
    /// An IANA media type, for example `image/png`.
    #[schema(max_length = 255)]
    pub media_type: String,
}

/// A message as clients see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Message {
    /// UUIDv7; ids of one conversation order as its messages do.
    pub id: Uuid,
    /// The conversation it belongs to.
    pub conversation_id: Uuid,
    /// Who wrote it.
    pub sender_type: SenderType,
    /// The text.
    pub content: String,
    /// What it carries.
    pub content_type: ContentType,
    /// What is attached, at most 10.
    pub attachments: Vec<Attachment>,
    /// For replies: how they came about.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// The message it answers or continues.
    pub parent_message_id: Option<Uuid>,
    /// The reply that replaced this one.
    pub superseded_by: Option<Uuid>,
    /// When it was stored.
    #[serde(with = "super::timestamp")]
    pub created_at: OffsetDateTime,
}

/// How many tokens a text may take, an upper estimate that needs no vocabulary: a token of the
/// models in use covers about four bytes of Latin text and rarely less than two bytes of any other.
#[must_use]
pub fn estimate_tokens(text: &str) -> u32 {
    let (ascii, other) = text.bytes().fold((0_u32, 0_u32), |(ascii, other), byte| {
        if byte.is_ascii() {
            (ascii + 1, other)
        } else {
            (ascii, other + 1)
        }
    });
    ascii.div_ceil(4) + other.div_ceil(2)
}

/// The same with a margin of a quarter, which is stored as a message's size until a model or its vocabulary has counted
/// it: a tokeniser that has seen little Indonesian makes a fifth more of it than is estimated.
#[must_use]
pub fn safe_tokens(text: &str) -> u32 {
    let tokens = estimate_tokens(text);
    tokens.saturating_add(tokens.div_ceil(4))
}
