//! The knowledge base's work: vectors, uploads, searches.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod backup;
#[path = "../common/mod.rs"]
mod common;
mod killed;
mod large;
mod memory;
#[path = "../processes/process.rs"]
#[expect(
    dead_code,
    clippy::disallowed_methods,
    reason = "these tests use their own part of it, and it waits for its tasks"
)]
mod process;
mod provider;
mod rig;
mod terminal;
mod uploads;
