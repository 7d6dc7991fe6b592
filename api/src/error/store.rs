//! What a failure of a server behind us means to the caller.

use shared::redis::RedisFailure;
use shared::store::StoreError;

use super::{Code, Problem};

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // A collision that outlived its own retries is over in a moment as well.
        let code = if error.is_unavailable() || error.is_conflict() {
            Code::Unavailable
        } else {
            Code::Internal
        };
        Self::of(code).because(error)
    }
}

/// Only for the few calls that cannot do without Redis.
impl From<RedisFailure> for Problem {
    fn from(failure: RedisFailure) -> Self {
        Self::of(Code::Unavailable).because(failure)
    }
}
