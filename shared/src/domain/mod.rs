//! The words of Balas as types: what the API shows, the worker makes and the store keeps.

pub mod assessment;
mod conversation;
pub mod credits;
mod event;
mod fleet;
mod generation;
mod knowledge;
mod learning;
mod message;
mod notification;
mod parked;
mod spending;
pub mod timestamp;
mod user;

pub use conversation::{
    ContextType, Conversation, ConversationStatus, DEFAULT_TITLE, SupportState,
};
pub use event::{Event, EventType};
pub use fleet::{DeadLetter, DeadLetterCount, FleetWorker, Queue, WorkerStatus};
pub use generation::{
    ContextUse, FailureCode, Generation, GenerationError, GenerationKind, GenerationStatus,
    Priority, TEMPLATE, Timings, Usage,
};
pub use knowledge::{
    EmbeddingProfile, EntryText, Ingestion, IngestionKind, IngestionStatus, KnowledgeDocument,
    KnowledgeProfile, Leg, ProfileState, SkippedRow, Synonym,
};
pub use learning::{Gap, Proposal, ProposalState};
pub use message::{Attachment, ContentType, Message, SenderType, estimate_tokens, safe_tokens};
pub use notification::{
    DeadDelivery, DeadNotification, DeadNotificationCount, DeadReason, Destination,
    NotificationType,
};
pub use parked::{Before, Parked, WaitsFor};
pub use spending::{Anomaly, DailySpending, Spending, day};
pub use user::{Role, Tier};

/// Declares an enum whose variants have one stable name in SQL, JSON and configuration.
macro_rules! named_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        $vis enum $name { $($(#[$variant_meta])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name, as in SQL and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::domain::UnknownName {
                        expected: &[$($text),+],
                    }),
                }
            }
        }
    };
}
use named_enum;

/// A text that is none of the names of an enum.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("must be one of {}", expected.join(", "))]
pub struct UnknownName {
    /// The names that would have been understood.
    pub expected: &'static [&'static str],
}
