//! The Balas HTTP, SSE and WebSocket API.
//!
//! One stateless process; any number of replicas. It accepts messages, commits them, wakes the
//! workers, and pushes what they make. It never talks to the upstream.

mod activity;
pub mod app;
pub mod auth;
pub mod backlog;
mod budgets;
mod cancelled;
pub mod config;
mod console;
mod csv;
mod docs;
pub mod error;
pub mod extract;
mod feed;
pub mod figures;
pub mod gate;
pub mod limits;
pub mod middleware;
pub mod openapi;
pub mod probes;
mod routes;
pub mod serve;
mod socket;
pub mod streams;
