//! The knowledge base's work: vectors, uploads, searches.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

#[path = "../common/mod.rs"]
mod common;
mod killed;
mod large;
#[path = "../processes/process.rs"]
#[expect(dead_code, reason = "these tests use their own part of it")]
mod process;
mod provider;
mod rig;
mod terminal;
mod uploads;
