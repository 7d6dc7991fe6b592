//! What the notification service is told, and what became of it.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

super::named_enum! {
    /// A way to the notification service.
    pub enum Destination {
        /// Signed HTTP requests.
        Http = "http",
        /// Messages of an exchange of RabbitMQ.
        Amqp = "amqp",
    }
}

super::named_enum! {
    /// What a notification tells.
    pub enum NotificationType {
        /// A generation has its reply, whole or cut at the token limit.
        Completed = "chat.generation.completed",
        /// A generation was given up.
        Failed = "chat.generation.failed",
        /// A generation was cancelled.
        Cancelled = "chat.generation.cancelled",
        /// An assessment reached a stage.
        AssessmentStage = "chat.assessment.stage",
    }
}

super::named_enum! {
    /// Why a notification is tried no more.
    pub enum DeadReason {
        /// The destination said that it wants no more (410).
        Gone = "gone",
        /// It was tried for a day.
        TriesExhausted = "tries_exhausted",
    }
}

/// A notification that was given up at one destination or at both.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadNotification {
    /// The notification's id, its `webhook-id`.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The conversation it tells of.
    pub conversation_id: Uuid,
    /// The generation it tells of; none for a stage of an assessment.
    pub generation_id: Option<Uuid>,
    /// What it tells.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// When what it tells happened.
    #[serde(with = "super::timestamp")]
    pub occurred_at: OffsetDateTime,
    /// The request that started it.
    pub request_id: Option<String>,
    /// Where it was given up.
    pub deliveries: Vec<DeadDelivery>,
}

/// A notification that one destination did not get.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadDelivery {
    /// The destination.
    pub destination: Destination,
    /// Why.
    pub reason: DeadReason,
    /// How often it was tried.
    pub attempts: i32,
    /// How the last try ended.
    pub last_error: Option<String>,
    /// When it was tried first.
    #[serde(with = "super::timestamp::option")]
    pub first_try_at: Option<OffsetDateTime>,
    /// When it was given up.
    #[serde(with = "super::timestamp")]
    pub dead_at: OffsetDateTime,
    /// How long it has been waiting for an operator, in seconds.
    pub age_seconds: i64,
}

/// How many dead notifications one destination did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadNotificationCount {
    /// The destination.
    pub destination: Destination,
    /// Why.
    pub reason: DeadReason,
    /// How many wait for an operator.
    pub count: i64,
}
