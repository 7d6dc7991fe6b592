//! The worker: claims generations, asks the upstream, stores each reply exactly once.
//!
//! Only [`queue`] and [`handle`] name apalis, only [`upstream`] knows the gateway's JSON, only
//! [`inbound`] and [`outbound`] name lapin.

pub mod admin;
pub mod anomalies;
pub mod budgets;
pub mod config;
pub mod context;
pub mod costs;
pub mod drain;
pub mod figures;
pub mod handle;
pub mod health;
pub mod inbound;
pub mod jobs;
pub mod knowledge;
pub mod maintenance;
pub mod outbound;
pub mod pacing;
pub mod progress;
pub mod prompt;
pub mod queue;
pub mod retention;
pub mod roll_call;
pub mod run;
pub mod support_config;
mod tokens;
mod trace;
mod turns;
pub mod upstream;
pub mod watchdog;
pub mod welcomes;
