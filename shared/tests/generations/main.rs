//! The generation row: its state machine, the ways in, the claims, and what a prompt may see.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../common/mod.rs"]
mod common;

mod accept;
mod claims;
mod history;
mod machine;
mod race;
mod random;
mod titles;
mod together;
