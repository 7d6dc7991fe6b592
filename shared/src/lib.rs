//! What the Balas API and worker have in common.
//!
//! The rule of the house is *Postgres decides, Redis wakes*: [`store`] owns every statement that
//! changes the truth, [`queue`] and [`push`] only carry hints and copies that may be lost.
//!
//! This crate may not name axum, apalis, lapin or the upstream's JSON.

pub mod budgets;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod desk;
pub mod domain;
pub mod figures;
pub mod healthcheck;
pub mod id;
pub mod knowledge;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod models;
pub mod operator;
pub mod push;
pub mod queue;
pub mod redis;
pub mod store;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tickets;
pub mod traces;
pub mod vitals;
