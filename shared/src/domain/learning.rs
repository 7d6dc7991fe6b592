//! What the help desk may learn from people who took over.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

super::named_enum! {
    /// What was decided about a proposal.
    pub enum ProposalState {
        /// Nothing yet.
        Open = "open",
        /// It became an entry.
        Approved = "approved",
        /// It did not.
        Dismissed = "dismissed",
    }
}

/// An entry that may be added: what was asked and what a person answered. Whose it is is not said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Proposal {
    /// UUIDv7.
    pub id: Uuid,
    /// What was decided.
    pub state: ProposalState,
    /// What was asked, without what could name somebody; empty once it is decided.
    pub issue: String,
    /// What was answered; likewise.
    pub solution: String,
    /// How the matter ended, in the words of the one who took over; likewise.
    pub resolution: String,
    /// When the matter was resolved.
    #[serde(with = "super::timestamp")]
    pub created_at: OffsetDateTime,
    /// When it was decided.
    #[serde(with = "super::timestamp::option")]
    pub decided_at: Option<OffsetDateTime>,
    /// By which administrator.
    pub decided_by: Option<Uuid>,
    /// What makes the entry.
    pub ingestion_id: Option<Uuid>,
}

/// A question that the knowledge base did not answer, or not well. Whose it is is not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its id; later ones are larger.
    pub id: Uuid,
    /// Its conversation.
    pub conversation_id: Uuid,
    /// Its words, without what could name somebody.
    pub question: String,
    /// What it is about.
    pub intent: String,
    /// Whether there was an answer, which then did not help.
    pub answered: bool,
    /// When it was asked.
    pub asked_at: OffsetDateTime,
}
