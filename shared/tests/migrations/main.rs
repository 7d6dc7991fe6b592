//! Bringing a database up to date: again, at once, without rights, without the extension, on an
//! older server; and the partitions that are made later.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../common/mod.rs"]
mod common;

mod older;
mod partitions;
mod run;
