//! W3C trace context: where a piece of work stands in a distributed trace.

use std::fmt;

use uuid::Uuid;

/// A span of a trace, as `traceparent` names it. What is set off in it receives this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// The one flag there is: somebody records this trace.
const SAMPLED: u8 = 1;

impl TraceParent {
    /// Reads `version-traceid-parentid-flags`. Later versions may append fields. None where it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, digits: usize| {
            let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            part.len() == digits && part.bytes().all(lower_hex)
        };
        let shaped = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
        if !shaped || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        Some(Self {
            trace_id: u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?,
            span_id: u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?,
            flags: u8::from_str_radix(flags, 16).ok()? & SAMPLED,
        })
    }

    /// The first span of a new trace, of which a `ratio` between 0 and 1 is recorded.
    #[must_use]
    pub fn root(ratio: f64) -> Self {
        let trace_id = Uuid::new_v4().as_u128();
        // The lowest bits of a random UUID are random; whoever has the trace's id decides alike.
        let draw = (trace_id as u32) as f64 / f64::from(u32::MAX);
        Self {
            trace_id,
            span_id: span_id(),
            flags: if draw <= ratio && ratio > 0.0 {
                SAMPLED
            } else {
                0
            },
        }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: span_id(),
            ..*self
        }
    }

    /// The trace's id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Whether its spans are to be recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    pub(super) fn ids(&self) -> (u128, u64) {
        (self.trace_id, self.span_id)
    }
}

fn span_id() -> u64 {
    (Uuid::new_v4().as_u128() as u64).max(1)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_was_written_is_read() {
        let given = TraceParent::parse(GIVEN).unwrap();
        assert_eq!(given.to_string(), GIVEN);
        let child = given.child();
        assert_eq!(child.trace_id(), given.trace_id());
        assert_ne!(child, given);
        assert_eq!(TraceParent::parse(&child.to_string()), Some(child));
    }

    #[test]
    fn what_is_malformed_is_none() {
        for odd in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert_eq!(TraceParent::parse(odd), None, "{odd}");
        }
        let later = format!("01{}-extra", &GIVEN[2..]);
        assert!(TraceParent::parse(&later).is_some());
    }

    #[test]
    fn as_many_new_traces_are_recorded_as_asked_for() {
        let sampled = |ratio| {
            let roots = (0..4_000).map(|_| TraceParent::root(ratio));
            roots.filter(TraceParent::is_sampled).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 4_000));
        // Fifteen standard deviations to either side.
        assert!((500..1_500).contains(&sampled(0.25)));
    }
}
