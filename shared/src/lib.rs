//! What the Balas API and worker have in common.
//!
//! The rule of the house is *Postgres decides, Redis wakes*: [`store`] owns every statement that
//! changes the truth, [`queue`] and [`push`] only carry hints and copies that may be lost.
//!
//! This crate may not name axum, apalis, lapin or the upstream's JSON.

pub mod clock;
pub mod config;
pub mod domain;
pub mod id;
pub mod models;
pub mod store;
