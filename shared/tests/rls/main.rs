//! Promise 6: no one reads another's data, whatever a handler forgets.
//!
//! The catalogue is walked, so that a new table is covered without being named here; and each
//! serving role tries to reach a neighbour's rows in every way that SQL has.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[path = "../common/mod.rs"]
mod common;

mod catalogue;
mod neighbour;
mod scopes;
