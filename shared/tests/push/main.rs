//! Events on their way to clients, through Redis and its accidents: promise 5, a stream can be
//! resumed.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../common/mod.rs"]
mod common;

mod hints;
mod hub;
mod log;
mod resume;
mod stage;
mod tickets;
