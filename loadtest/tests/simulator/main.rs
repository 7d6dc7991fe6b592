//! Every behaviour of the simulator, seen by a plain HTTP client.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and its tasks end with its runtime"
)]

mod admin;
mod client;
mod embeddings;
mod failures;
mod gateway;
mod replies;
mod wire;
