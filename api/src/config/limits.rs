//! How much one request and one client may ask for.

use std::time::Duration;

use shared::config::Vars;

use super::positive;

/// How much one request and one client may ask for.
#[derive(Clone, Copy, Debug)]
pub struct LimitConfig {
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// Bytes of an uploaded file.
    pub max_upload_bytes: usize,
    /// Characters (not bytes) of a message.
    pub max_message_length: usize,
    /// Messages of one user in an hour.
    pub messages_per_hour: u32,
    /// New conversations of one user in a day.
    pub conversations_per_day: u32,
    /// Requests without valid credentials of one client address in a minute.
    pub unauthenticated_per_minute: u32,
    /// WebSockets and event streams of one user at once.
    pub streams_per_user: u32,
    /// Generations that may wait in one queue.
    pub max_queue_depth: u64,
    /// How long a generation may take in all, waiting included.
    pub generation_deadline: Duration,
    /// Claims of a generation before it is given up.
    pub max_attempts: i32,
}

impl LimitConfig {
    pub(super) fn from_vars(vars: &mut Vars) -> Self {
        Self {
            max_body_bytes: vars.within(
                "MAX_BODY_BYTES",
                10 * 1024 * 1024,
                (128 * 1024, 1024 * 1024 * 1024),
                "bytes a request body may have",
            ),
            max_upload_bytes: vars.within(
                "KNOWLEDGE_MAX_UPLOAD_BYTES",
                256 * 1024 * 1024,
                (1024, 4 * 1024 * 1024 * 1024),
                "bytes a file for the knowledge base may have",
            ),
            max_message_length: vars.within(
                "MAX_MESSAGE_LENGTH",
                4000,
                (1, 1_000_000),
                "characters a message may have",
            ),
            messages_per_hour: vars.within(
                "RATE_LIMIT_MESSAGES_PER_HOUR",
                200,
                (1, 1_000_000_000),
                "messages one user may send in an hour",
            ),
            conversations_per_day: vars.within(
                "RATE_LIMIT_CONVERSATIONS_PER_DAY",
                100,
                (1, 1_000_000_000),
                "conversations one user may create in a day",
            ),
            unauthenticated_per_minute: vars.within(
                "RATE_LIMIT_UNAUTHENTICATED_PER_MINUTE",
                300,
                (1, 1_000_000_000),
                "requests without valid credentials one client address may make in a minute",
            ),
            streams_per_user: vars.within(
                "MAX_STREAMS_PER_USER",
                20,
                (1, 100_000),
                "WebSockets and event streams one user may hold open on one API process",
            ),
            max_queue_depth: vars.within(
                "MAX_QUEUE_DEPTH",
                50_000,
                (1, 1_000_000),
                "generations that may wait in one queue; a message to a full one is answered with 503",
            ),
            generation_deadline: positive(
                vars,
                "GENERATION_DEADLINE",
                "600",
                "seconds a reply may take in all, waiting included, before it is given up",
            ),
            max_attempts: vars.within(
                "MAX_ATTEMPTS",
                5,
                (1, 100),
                "claims of a generation by workers before it is given up",
            ),
        }
    }
}
