//! The upstream client against the simulator: every row of the classification table, every place
//! an error shows up in, every clock, the wire, cancelling, keys. Servers that the simulator is
//! too well-behaved for are played by a socket that says whatever a test tells it to.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "the helpers of a test fail it by panicking, and its servers end with its runtime"
)]

mod cancel;
mod keys;
mod models;
mod pacing;
mod places;
mod raw;
mod rig;
mod rows;
mod timeouts;
mod wire;
