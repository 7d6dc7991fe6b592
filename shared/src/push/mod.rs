//! Events on their way to clients: the log of each generation, the live feed of each user, and the
//! broadcast of cancellations.
//!
//! **Invariant:** nothing here is the truth. A log may vanish at any time; readers then synthesise
//! the terminal event from the row.

mod broadcast;
mod cancel;
mod follow;
mod gates;
mod hub;
mod log;
mod terminal;

pub use cancel::{broadcast_cancel, listen_for_cancels};
pub use follow::Follow;
pub use gates::{broadcast_gates, listen_for_gates};
pub use hub::{Feed, Hub, Subscription};
pub use log::{
    LogWriter, Logged, PushedEvent, Taken, first_text_at, publish, read_entries, read_log, taken,
    text_so_far, write_terminal,
};
pub use terminal::{Ended, terminal_event};

use uuid::Uuid;

use crate::redis::Redis;

/// The stream that holds a generation's log.
pub(crate) fn log_key(redis: &Redis, generation_id: Uuid) -> String {
    redis.key(format_args!("log:{generation_id}"))
}

/// The channel that carries a user's events.
pub(crate) fn user_channel(redis: &Redis, user_id: Uuid) -> String {
    redis.key(format_args!("user:{user_id}"))
}
