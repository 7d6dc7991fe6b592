//! The worker does its job, and keeps the promises when things go wrong around it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

#[path = "../common/mod.rs"]
mod common;
mod costs;
mod draining;
mod losses;
mod races;
mod replies;
mod summaries;
