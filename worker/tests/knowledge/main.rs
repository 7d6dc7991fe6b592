//! The knowledge base's work: vectors, uploads, searches.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

#[path = "../common/mod.rs"]
mod common;
mod provider;
mod rig;
mod uploads;
