//! The upstream simulator and the open-loop load driver for Balas.
//!
//! - [`simulator`] is an OpenAI/OpenRouter-compatible double. Tests start it in-process, a
//!   newcomer gets it from `cargo xtask up`, and load runs use the `simulator` binary.
//! - [`services`] is a double of the services of the platform that Balas asks.
//! - [`driver`] is what the `loadtest` binary does: arrivals by schedule, latencies measured
//!   from the intended send time, and a report that prints its own conditions.

pub mod clock;
pub mod driver;
pub mod limits;
pub mod services;
pub mod simulator;
mod task;
