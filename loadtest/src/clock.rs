//! The one place of this crate that reads the wall clock.
//!
//! The simulator and the driver stand outside the product and measure it, so they need the
//! machine's real time, not a clock that a test controls. Latencies use monotonic instants;
//! wall time is only for stamps that are compared with those of another process on the same
//! machine.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch by the machine's wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the home of the wall clock in this crate: it measures the product from outside"
)]
pub fn unix_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
        })
}

/// `micros` since the epoch as RFC 3339 UTC with milliseconds, the form api.md uses.
pub fn rfc3339(micros: u64) -> String {
    let nanos = i128::from(micros / 1_000) * 1_000_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|at| at.format(FORMAT).ok())
        .unwrap_or_default()
}

const FORMAT: &[time::format_description::BorrowedFormatItem<'static>] = time::macros::format_description!(
    "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_milliseconds() {
        assert_eq!(rfc3339(1_754_500_000_123_999), "2025-08-06T17:06:40.123Z");
    }
}
