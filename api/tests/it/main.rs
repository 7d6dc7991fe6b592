//! The API on real servers: the real router on a port of its own, Postgres, Redis, a worker and the
//! simulated upstream, all in one process. Run with `cargo xtask test`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod common;

mod assessments;
mod backpressure;
mod bad_input;
mod browser;
mod budgets;
mod console;
mod conversations;
mod coverage;
mod day;
mod documents;
mod edges;
mod events;
mod faults;
mod generations;
mod idempotency;
mod knowledge;
mod knowledge_page;

mod learning;
mod limits;
mod loads;
mod logs;
mod messages;
mod metrics;
mod operations;
mod operator;
mod processes;
mod protected;
mod protocol;
#[path = "../../../worker/tests/assessments/publisher.rs"]
#[expect(dead_code, reason = "these tests use their own part of it")]
mod publisher;
mod regenerate;
mod reindex;
mod replicas;
mod reservations;
mod sentinel;
mod shutdown;
mod socket;
mod stats;
mod support;
mod tokens;
mod traces;
mod usage;
