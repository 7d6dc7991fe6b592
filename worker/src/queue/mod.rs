//! Our apalis backend: ids from Redis, claims from Postgres, leases kept, lost work found.
//!
//! apalis-redis is not used; ARCHITECTURE.md says why.

mod backend;
mod fetch;
mod gates;
mod measure;
mod reconcile;
mod renew;
mod running;
mod shares;
mod tally;

pub use backend::{Job, QueueBackend};
pub use fetch::Fetcher;
pub use gates::{Gates, watch_gates};
pub use reconcile::reconcile;
pub(crate) use renew::beat;
pub use renew::renew;
pub use running::{AbortReason, Running, RunningJob};
pub use shares::{Place, Shares};
pub use tally::{Counted, Score, Tally};
