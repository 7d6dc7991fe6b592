//! The generation row: its state machine, the ways in, the claims, and what a prompt may see.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../common/mod.rs"]
mod common;

mod accept;
mod alone;
mod claims;
mod crowd;
mod history;
mod machine;
mod places;
mod race;
mod random;
mod reads;
mod titles;
mod together;
