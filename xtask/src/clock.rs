//! The one place of this tool that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// The present time, for file times.
#[expect(
    clippy::disallowed_methods,
    reason = "this tool is outside of the product, whose tests own the time"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970, for tokens.
pub(crate) fn unix_seconds() -> u64 {
    now()
        .duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs())
        .unwrap_or_default()
}
