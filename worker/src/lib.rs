//! The worker: makes the replies.

pub mod config;
pub mod context;
pub mod handle;
pub mod jobs;
pub mod maintenance;
pub mod prompt;
pub mod queue;
pub mod run;
pub mod upstream;
