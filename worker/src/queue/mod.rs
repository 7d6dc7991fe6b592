//! Our apalis backend: ids from Redis, claims from Postgres, leases kept, lost work found.
//!
//! apalis-redis is not used; ARCHITECTURE.md says why.

mod backend;
mod fetch;
mod reconcile;
mod renew;
mod running;

pub use backend::{Job, QueueBackend};
pub use fetch::Fetcher;
pub use reconcile::reconcile;
pub use renew::renew;
pub use running::{AbortReason, Running, RunningJob};
