//! Typed parts of a request. What a handler may do is the type it takes: [`User`], [`Admin`],
//! [`Internal`]; what it accepts is checked before it runs.

mod body;
mod caller;
mod correlation;
mod cursor;
mod headers;
mod idempotency;
mod json;
mod object;
mod page;
mod path;
mod query;
mod speaks;

pub use caller::{Admin, Internal, User, UserOrInternal, identify};
pub use correlation::Correlation;
pub use cursor::{LastEventId, event_of};
pub use headers::{IfMatch, MAX_WAIT, Prefer, wait_of};
pub use idempotency::{IdempotencyKey, Idempotent};
pub use json::{Json, parse as parse_json};
pub use object::objects;
pub use page::{Limit, Offset, Wait};
pub use path::Path;
pub use query::Query;
pub use speaks::Speaks;

#[cfg(test)]
mod tests;
