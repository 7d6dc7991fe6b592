//! One piece of work that makes one assistant message.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Message;

super::named_enum! {
    /// What a generation makes.
    pub enum GenerationKind {
        /// The answer to a message.
        Reply = "reply",
        /// Another answer to the same message.
        Regenerate = "regenerate",
        /// The first message of a conversation prepared from an assessment.
        Welcome = "welcome",
        /// A short title for the conversation; it makes no message.
        Title = "title",
        /// An answer of the help desk.
        Support = "support",
    }
}

impl GenerationKind {
    /// Whether it answers a message of the person, and so sees what was said before.
    #[must_use]
    pub const fn answers(self) -> bool {
        matches!(self, Self::Reply | Self::Regenerate | Self::Support)
    }
}

super::named_enum! {
    /// Where a generation is in its life.
    pub enum GenerationStatus {
        /// Waits for its turn.
        Queued = "queued",
        /// A worker holds its lease.
        InProgress = "in_progress",
        /// Has its reply.
        Completed = "completed",
        /// Has a reply that was cut at the token limit.
        Incomplete = "incomplete",
        /// Ended without a reply.
        Failed = "failed",
        /// Stopped by its user.
        Cancelled = "cancelled",
    }
}

impl GenerationStatus {
    /// No transition leaves a terminal status.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Incomplete | Self::Failed | Self::Cancelled
        )
    }

    /// The state machine of design.md; `store::generations` makes no other transition.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use GenerationStatus::{Cancelled, Completed, Failed, InProgress, Incomplete, Queued};
        matches!(
            (self, next),
            (Queued, InProgress | Cancelled | Failed)
                | (
                    InProgress,
                    Queued | Completed | Incomplete | Failed | Cancelled
                )
        )
    }
}

super::named_enum! {
    /// Which of the three queues a generation waits in.
    pub enum Priority {
        /// Replies to premium users.
        Premium = "premium",
        /// Replies to everybody else.
        Standard = "standard",
        /// Nobody waits for it: titles.
        Background = "background",
    }
}

super::named_enum! {
    /// Why a generation failed; stable, shown to clients.
    pub enum FailureCode {
        /// No model of the chain gave an answer.
        UpstreamExhausted = "upstream_exhausted",
        /// The upstream refused the content by its policy.
        ContentRefused = "content_refused",
        /// The upstream calls our request malformed.
        UpstreamRejected = "upstream_rejected",
        /// Not even the newest message fits the model's window.
        ContextTooLong = "context_too_long",
        /// Every key is refused or out of credit.
        UpstreamUnauthorised = "upstream_unauthorised",
        /// The deadline passed before an answer came.
        Expired = "expired",
        /// It was tried as often as allowed; workers died or lost their lease each time.
        AttemptsExhausted = "attempts_exhausted",
        /// A fault of Balas itself.
        Internal = "internal",
    }
}

impl FailureCode {
    /// Whether the same request may succeed when it is made again.
    #[must_use]
    pub const fn retryable(self) -> bool {
        !matches!(
            self,
            Self::ContentRefused | Self::ContextTooLong | Self::UpstreamRejected
        )
    }

    /// What the person may read.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::UpstreamExhausted => "No model could answer right now. Please try again.",
            Self::ContentRefused => {
                "The model's provider declined this message because of its content policy."
            }
            Self::UpstreamRejected => "The model's provider could not process this request.",
            Self::ContextTooLong => "The message is too long for the model.",
            Self::UpstreamUnauthorised => {
                "The service cannot reach its model provider at the moment."
            }
            Self::Expired => "The answer took too long and was given up.",
            Self::AttemptsExhausted => "The answer failed several times and was given up.",
            Self::Internal => "Something went wrong on our side.",
        }
    }
}

/// Why a generation failed, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationError {
    /// The stable code.
    pub code: FailureCode,
    /// What the person may read.
    pub message: String,
    /// Whether asking again may help.
    pub retryable: bool,
}

impl From<FailureCode> for GenerationError {
    fn from(code: FailureCode) -> Self {
        Self {
            code,
            message: code.message().to_owned(),
            retryable: code.retryable(),
        }
    }
}

/// When a generation passed its stages.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Timings {
    /// When it was accepted.
    #[serde(with = "super::timestamp")]
    pub queued_at: OffsetDateTime,
    /// When the newest attempt began.
    #[serde(with = "super::timestamp::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When the first token of the reply came; while it runs, when its first text was published, and null where
    /// none is (yet), as with `"stream": false`.
    #[serde(with = "super::timestamp::option")]
    pub first_token_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "super::timestamp::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// What names an answer that no model gave, where a model would stand; reports leave it out.
pub const TEMPLATE: &str = "template";

/// What a reply took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// The model that served it.
    pub model: String,
    /// Tokens read, the cached ones included.
    pub prompt_tokens: i32,
    /// Tokens written.
    pub completion_tokens: i32,
    /// Their sum.
    pub total_tokens: i32,
    /// Prompt tokens that came from the provider's cache.
    pub cached_tokens: i32,
    /// Completion tokens spent on reasoning.
    pub reasoning_tokens: i32,
    /// In the upstream's credits (OpenRouter: US dollars), to the last digit; null while unknown.
    #[serde(with = "super::credits")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    pub cost_credits: Option<Decimal>,
    /// Whether the model is free of charge.
    pub is_free_model: bool,
    /// From the start of the attempt to its end, in milliseconds.
    pub processing_time_ms: i32,
}

/// How much of what was said the model was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextUse {
    /// Tokens of the history that was shown, the summary included.
    pub used: i64,
    /// The most there is room for.
    pub budget: i64,
    /// Earlier messages that were shown as a summary.
    pub summarised: i64,
    /// Earlier messages that the model learnt nothing of.
    pub dropped: i64,
}

/// A generation as clients see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Generation {
    /// UUIDv7.
    pub id: Uuid,
    /// The conversation it belongs to.
    pub conversation_id: Uuid,
    /// What it makes.
    pub kind: GenerationKind,
    /// Where it is in its life.
    pub status: GenerationStatus,
    /// The model that serves or served it; before that, the first of its chain.
    pub model: String,
    /// Claims by workers so far.
    pub attempts: i32,
    /// Generations that start before this one, while it is queued: 0 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i64>,
    /// How long the reply may still take, in milliseconds, while it has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_response_time_ms: Option<i64>,
    /// Whether the model is free of charge.
    pub is_free_model: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<GenerationError>,
    /// The text so far of a cancelled one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_content: Option<String>,
    /// When it passed its stages.
    pub timings: Timings,
    /// The message it answers.
    pub user_message_id: Option<Uuid>,
    /// The reply it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assistant_message_id: Option<Uuid>,
    /// The reply itself, where a single generation is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assistant_message: Option<Message>,
    /// What it took, once it completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How much of the conversation the model was shown, once it completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub context: Option<ContextUse>,
}

#[cfg(test)]
mod tests {
    use super::GenerationStatus;

    #[test]
    fn the_state_machine_is_the_documented_one() {
        let table: String = GenerationStatus::ALL
            .iter()
            .map(|from| {
                let to = GenerationStatus::ALL
                    .iter()
                    .filter(|to| from.may_become(**to));
                let names: Vec<_> = to.map(|to| to.as_str()).collect();
                format!("{from}: {}\n", names.join(" "))
            })
            .collect();
        assert_eq!(
            table,
            "queued: in_progress failed cancelled\n\
             in_progress: queued completed incomplete failed cancelled\n\
             completed: \nincomplete: \nfailed: \ncancelled: \n"
        );
    }
}
