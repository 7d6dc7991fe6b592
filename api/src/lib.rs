//! The Balas HTTP, SSE and WebSocket API.
//!
//! One stateless process; any number of replicas. It accepts messages, commits them, wakes the
//! workers, and pushes what they make. It never talks to the upstream.

pub mod auth;
pub mod config;
pub mod error;
pub mod extract;
pub mod gate;
pub mod middleware;
