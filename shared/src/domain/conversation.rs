//! A thread of messages of one user.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// The title of a conversation that was given none; the first reply replaces it.
pub const DEFAULT_TITLE: &str = "New conversation";

super::named_enum! {
    /// What a conversation is about; it decides the system prompt.
    #[derive(Default)]
    pub enum ContextType {
        /// Anything.
        #[default]
        General = "general",
        /// The results of a career assessment.
        Assessment = "assessment",
        /// Career questions without an assessment.
        CareerGuidance = "career_guidance",
        /// The help desk.
        Support = "support",
    }
}

super::named_enum! {
    /// Whether a conversation takes messages and is shown.
    pub enum ConversationStatus {
        /// Takes messages.
        Active = "active",
        /// Read-only.
        Archived = "archived",
        /// Gone from every read.
        Deleted = "deleted",
    }
}

super::named_enum! {
    /// Who answers in a conversation of the help desk.
    pub enum SupportState {
        /// The assistant.
        Bot = "bot",
        /// The assistant, until somebody takes over; they have been told.
        WaitingForHuman = "waiting_for_human",
        /// A person, and nobody else.
        Human = "human",
        /// Nobody any more; another message begins anew.
        Resolved = "resolved",
    }
}

/// A conversation as clients see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    /// UUIDv7.
    pub id: Uuid,
    /// The owner.
    pub user_id: Uuid,
    /// At most 255 characters.
    pub title: String,
    /// What it is about.
    pub context_type: ContextType,
    /// Active or archived; a deleted one is never shown.
    pub status: ConversationStatus,
    /// Whatever the client stored with it.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// The assessment it was prepared from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assessment_id: Option<Uuid>,
    /// Messages of all senders, superseded replies included.
    pub message_count: i32,
    /// When the newest message was stored.
    #[serde(with = "super::timestamp::option")]
    pub last_message_at: Option<OffsetDateTime>,
    /// When it was created.
    #[serde(with = "super::timestamp")]
    pub created_at: OffsetDateTime,
    /// When anything of it last changed.
    #[serde(with = "super::timestamp")]
    pub updated_at: OffsetDateTime,
    /// Counts edits, for the `ETag`; a new message is not an edit.
    #[serde(skip)]
    pub version: i32,
}
