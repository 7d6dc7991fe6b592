//! Typed parts of a request. What a handler may do is the type it takes: [`User`], [`Admin`],
//! [`Internal`]; what it accepts is checked before it runs.

mod body;
mod caller;
mod cursor;
mod headers;
mod idempotency;
mod json;
mod page;
mod path;
mod query;

pub use caller::{Admin, Internal, User};
pub use cursor::LastEventId;
pub use headers::{IfMatch, MAX_WAIT, Prefer, wait_of};
pub use idempotency::{IdempotencyKey, Idempotent};
pub use json::Json;
pub use page::{Limit, Offset, Wait};
pub use path::Path;
pub use query::Query;

#[cfg(test)]
mod tests;
