//! The two ids that follow a request through the job, the upstream call and the notification.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use shared::clock::Clock;
use shared::traces::TraceParent;

/// `X-Request-Id`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent` of W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of one request, the caller's own if it sent a sane one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Takes the caller's id (1 to 128 visible ASCII characters) or makes one.
    #[must_use]
    pub fn of(headers: &HeaderMap, clock: &Clock) -> Self {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok());
        let sane = given.filter(|id| {
            (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        });
        Self(sane.map_or_else(
            || shared::id::new(clock.now()).to_string().into(),
            Arc::from,
        ))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the header's value.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The caller's place in a distributed trace; none where it sent none, several, or a malformed one.
#[must_use]
pub fn caller_of(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().and_then(TraceParent::parse),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        let clock = Clock::system();
        assert_eq!(
            RequestId::of(&with(REQUEST_ID, "abc-1"), &clock).as_str(),
            "abc-1"
        );
        for odd in ["", "two words", &"x".repeat(129)] {
            let id = RequestId::of(&with(REQUEST_ID, odd), &clock);
            assert!(id.as_str().parse::<Uuid>().is_ok(), "{odd:?} became {id}");
        }
    }

    #[test]
    fn a_caller_says_once_where_it_stands_or_not_at_all() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = with(TRACEPARENT, given);
        assert_eq!(caller_of(&headers).unwrap().to_string(), given);
        headers.append(TRACEPARENT, HeaderValue::from_static(given));
        assert_eq!(caller_of(&headers), None);
        assert_eq!(caller_of(&with(TRACEPARENT, "00-odd")), None);
        assert_eq!(caller_of(&HeaderMap::new()), None);
    }
}
