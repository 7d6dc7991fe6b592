//! What an operator sees of the work and of those who do it.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{FailureCode, GenerationError, GenerationKind, Priority};

/// A generation that was given up and waits for an operator.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLetter {
    /// The generation's id.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// Its conversation.
    pub conversation_id: Uuid,
    /// What it was to make.
    pub kind: GenerationKind,
    /// The queue it waited in.
    pub queue: Priority,
    /// The models it could use, the first tried first.
    pub models: Vec<String>,
    /// How often workers claimed it.
    pub attempts: i32,
    /// Why it was given up, as its client was told.
    pub error: GenerationError,
    /// What went wrong last, in the words of the log.
    pub last_error: Option<String>,
    /// The worker that had it last: name and boot.
    pub worker: Option<String>,
    /// The request it came with.
    pub request_id: Option<String>,
    /// When it was accepted.
    #[serde(with = "super::timestamp")]
    pub queued_at: OffsetDateTime,
    /// When it was given up.
    #[serde(with = "super::timestamp")]
    pub failed_at: OffsetDateTime,
    /// How long it has been waiting for an operator, in seconds.
    pub age_seconds: i64,
}

/// How many dead letters have one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadLetterCount {
    /// The reason.
    pub error_code: FailureCode,
    /// How many wait for an operator.
    pub count: i64,
}

/// How one queue is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Queue {
    /// The priority of what waits in it.
    pub name: Priority,
    /// Queued generations that may be claimed, now or when a retry is due.
    pub depth: i64,
    /// Queued generations that wait for their turn in a conversation, or until fewer of their person
    /// are active.
    pub parked: i64,
    /// How long the generation that is due for longest has been, in seconds; null when none is due.
    pub oldest_wait_seconds: Option<f64>,
    /// Generations that workers run.
    pub in_flight: i64,
    /// Generations that ended in a second, over the last half minute.
    pub rate_per_second: f64,
    /// How long the queue takes to empty at the pace that was measured, of what is parked, too; null while it is paused or the
    /// pace is not known.
    pub eta_seconds: Option<f64>,
    /// Whether workers leave it alone.
    pub paused: bool,
    /// Since when.
    #[serde(with = "super::timestamp::option")]
    pub paused_at: Option<OffsetDateTime>,
    /// By whom.
    pub paused_by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

super::named_enum! {
    /// Whether a worker works.
    pub enum WorkerStatus {
        /// It takes work.
        Running = "running",
        /// It was told to stop and finishes what it has.
        Draining = "draining",
        /// It ended in order, or another start of the same name took its place.
        Stopped = "stopped",
        /// It was not heard of for longer than its leases hold.
        Lost = "lost",
    }
}

/// One start of a worker.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FleetWorker {
    /// Stays the same over restarts.
    pub name: String,
    /// Names this start.
    pub boot: Uuid,
    /// The version of Balas.
    pub version: String,
    /// Whether it works.
    pub status: WorkerStatus,
    /// When it started.
    #[serde(with = "super::timestamp")]
    pub started_at: OffsetDateTime,
    /// How long ago, in seconds.
    pub age_seconds: i64,
    /// When it was heard of last.
    #[serde(with = "super::timestamp")]
    pub last_seen_at: OffsetDateTime,
    /// How long ago, in seconds.
    pub last_seen_seconds: f64,
    /// Generations it runs at most.
    pub concurrency: i32,
    /// Generations it ran when it was heard of last.
    pub in_flight: i32,
    /// Leases it holds by the generations' rows.
    pub leases: i64,
    /// Those of them that have run out and will be taken from it.
    pub leases_overdue: i64,
    /// How long until the first of its leases runs out, in seconds; negative when it has.
    pub lease_expires_in_seconds: Option<f64>,
    /// Generations it ended in a second, over the last half minute.
    pub rate_per_second: f64,
}
