//! Every statement that touches Postgres.
//!
//! **Invariant:** a statement on a person's rows runs inside a [`UserTx`], a statement over all
//! users inside a [`SweepTx`] or, for operators, an [`OperatorTx`]; there is no other way to reach a
//! connection, so unscoped access does not type-check. Row-level security repeats the rule in the
//! database.
//!
//! This is the only module that names sqlx. Functions are free and take the transaction first;
//! lookups return `Option`; writes say what they did.

pub mod activity;
pub mod anomalies;
pub mod assessments;
pub mod audit;
pub mod budgets;
mod config;
mod conn;
pub mod conversations;
pub mod costs;
pub mod dead_letters;
mod editor;
mod error;
pub mod feedback;
pub mod figures;
pub mod fleet;
pub mod generations;
pub mod idempotency;
pub mod inbox;
pub mod knowledge;
pub mod learning;
pub mod ledger;
pub mod maintenance;
pub mod messages;
pub mod migrate;
mod names;
pub mod notifications;
mod operator;
pub mod queues;
pub mod retention;
mod schema;
pub mod summaries;
pub mod support;
mod tx;
pub mod usage;

pub use config::{DbConfig, Pooler};
pub use editor::EditorTx;
pub use error::{StoreError, StoreResult};
pub use operator::OperatorTx;
pub use tx::{Db, ServingRole, SweepTx, UserTx};
