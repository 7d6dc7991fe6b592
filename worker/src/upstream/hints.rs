//! When the upstream says to come back: `Retry-After`, `X-RateLimit-Reset` and their copies inside
//! the error object.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use time::OffsetDateTime;
use time::PrimitiveDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

/// The form of an HTTP date that senders must use (RFC 9110, section 5.6.7).
const IMF_FIXDATE: &[FormatItem<'static>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// What an error says about the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    /// From `Retry-After` or `error.availability.retry_after`.
    pub(super) retry_after: Option<Duration>,
    /// Until `X-RateLimit-Reset`; its presence marks a limit of the platform, not of a provider.
    pub(super) reset: Option<Duration>,
}

impl Hints {
    /// Reads both from the headers of an answer, if it has any, and from its error object. The
    /// object wins, as it is about this error and not about the connection.
    pub(super) fn read(headers: Option<&HeaderMap>, error: &Value, now: OffsetDateTime) -> Self {
        let header = |name: &str| headers?.get(name)?.to_str().ok().map(str::to_owned);
        let availability = error.pointer("/availability/retry_after").and_then(text);
        let retry_after = availability.or_else(|| header(RETRY_AFTER.as_str()));
        let reset =
            metadata_header(error, "x-ratelimit-reset").or_else(|| header("x-ratelimit-reset"));
        Self {
            retry_after: retry_after.and_then(|text| seconds_or_date(&text, now)),
            reset: reset.and_then(|text| seconds_or_moment(&text, now)),
        }
    }

    /// The best guess of how long to wait.
    pub(super) fn wait(self) -> Option<Duration> {
        self.retry_after.or(self.reset)
    }
}

/// OpenRouter repeats the headers of a limit in `error.metadata.headers`, where an error inside a
/// stream can carry them too.
fn metadata_header(error: &Value, name: &str) -> Option<String> {
    let headers = error.pointer("/metadata/headers")?.as_object()?;
    let found = headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    text(found.1)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn seconds(text: &str) -> Option<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

/// Nobody waits longer than a day, and a bounded number cannot overflow where it is added to.
fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(86_400.0))
}

/// `Retry-After`: seconds or an HTTP date.
pub(crate) fn seconds_or_date(text: &str, now: OffsetDateTime) -> Option<Duration> {
    if let Some(seconds) = seconds(text) {
        return Some(duration(seconds));
    }
    let at = PrimitiveDateTime::parse(text.trim(), IMF_FIXDATE)
        .ok()?
        .assume_utc();
    Some(duration((at - now).as_seconds_f64().max(0.0)))
}

/// `X-RateLimit-Reset`: OpenRouter sends milliseconds since the epoch, others seconds since the
/// epoch or seconds from now. Their sizes cannot be confused.
fn seconds_or_moment(text: &str, now: OffsetDateTime) -> Option<Duration> {
    let number = seconds(text)?;
    let epoch_seconds = if number >= 1e11 {
        number / 1e3
    } else if number >= 1e8 {
        number
    } else {
        return Some(duration(number));
    };
    let now = now.unix_timestamp_nanos() as f64 / 1e9;
    Some(duration((epoch_seconds - now).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-08-01 12:00:00 UTC);

    fn read(headers: &[(&'static str, &str)], error: &Value) -> Hints {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Hints::read(Some(&map), error, NOW)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (text, expected) in [
            ("7", Some(7.0)),
            ("0.5", Some(0.5)),
            ("Sat, 01 Aug 2026 12:01:30 GMT", Some(90.0)),
            ("Sat, 01 Aug 2026 11:00:00 GMT", Some(0.0)),
            ("-1", None),
            ("soon", None),
            ("NaN", None),
        ] {
            let hints = read(&[("retry-after", text)], &Value::Null);
            assert_eq!(
                hints.retry_after,
                expected.map(Duration::from_secs_f64),
                "{text}"
            );
        }
    }

    #[test]
    fn a_reset_is_a_moment_in_either_unit_or_a_distance() {
        let at = NOW.unix_timestamp() + 30;
        for text in [format!("{at}000"), at.to_string(), "30".to_owned()] {
            let hints = read(&[("x-ratelimit-reset", &text)], &Value::Null);
            assert_eq!(hints.reset, Some(Duration::from_secs(30)), "{text}");
        }
        let past = read(&[("x-ratelimit-reset", "1600000000000")], &Value::Null);
        assert_eq!(past.reset, Some(Duration::ZERO));
    }

    #[test]
    fn the_error_object_carries_them_too_and_wins() {
        let error = json!({
            "availability": {"retryable": true, "retry_after": 3},
            "metadata": {"headers": {"X-RateLimit-Reset": format!("{}000", NOW.unix_timestamp() + 9)}},
        });
        let hints = read(&[("retry-after", "60")], &error);
        assert_eq!(hints.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(hints.reset, Some(Duration::from_secs(9)));
        assert_eq!(Hints::read(None, &error, NOW), hints);
    }

    #[test]
    fn a_huge_number_is_a_long_wait_and_no_panic() {
        let hints = read(
            &[("retry-after", "1e300"), ("x-ratelimit-reset", "1e300")],
            &Value::Null,
        );
        assert!(hints.retry_after.unwrap() > Duration::from_hours(1));
        assert!(hints.reset.unwrap() > Duration::from_hours(1));
    }
}
