//! Identifiers: UUIDv7 made in the application, and the ids of events.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

/// Makes a new UUIDv7 for `now`.
#[must_use]
pub fn new(now: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// Makes a UUIDv7 for `now` that sorts after `previous`.
///
/// Messages of a conversation are read in the order of their ids, and two replicas' clocks may
/// differ by more than the time between two messages. An id in the past therefore becomes the
/// successor of the last one instead.
#[must_use]
pub fn new_after(now: OffsetDateTime, previous: Option<Uuid>) -> Uuid {
    let fresh = new(now);
    match previous {
        Some(previous) if fresh <= previous => successor(previous),
        _ => fresh,
    }
}

/// The next UUIDv7 one millisecond after `id`, with random low bits cleared to keep room.
fn successor(id: Uuid) -> Uuid {
    let millis = (id.as_u128() >> 80) as u64 + 1;
    let random = Uuid::new_v4().as_u128() & ((1_u128 << 80) - 1);
    let version_and_variant_cleared = random & !(0xF << 76) & !(0b11 << 62);
    Uuid::from_u128(
        (u128::from(millis) << 80) | version_and_variant_cleared | (0x7 << 76) | (0b10 << 62),
    )
}

/// The smallest UUIDv7 of a moment: the bound between two monthly partitions.
#[must_use]
pub fn floor(at: OffsetDateTime) -> Uuid {
    let millis = at.unix_timestamp_nanos() / 1_000_000;
    Uuid::from_u128(u128::try_from(millis).unwrap_or(0) << 80)
}

/// The id of one event of a generation's log: `<generation>.<attempt>.<seq>`, zero-padded so that
/// ids of one generation order as strings.
///
/// The pair (attempt, seq) is also the entry's id in the Redis stream, so an attempt that lost its
/// lease cannot append after its successor has begun: Redis refuses an id that is not the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// The generation whose log holds the event.
    pub generation_id: Uuid,
    /// The attempt that wrote it; 0 is the API's `queued` event.
    pub attempt: u32,
    /// Position within the attempt, from 1; [`EventId::TERMINAL_SEQ`] ends the log.
    pub seq: u32,
}

impl EventId {
    /// The position of the terminal event, known without reading the log, so that whoever finishes
    /// a generation, and whoever synthesises the event later from its row, name it alike.
    pub const TERMINAL_SEQ: u32 = u32::MAX;

    /// The id of the terminal event of a generation that ended in `attempt`.
    #[must_use]
    pub fn terminal(generation_id: Uuid, attempt: u32) -> Self {
        Self {
            generation_id,
            attempt,
            seq: Self::TERMINAL_SEQ,
        }
    }

    /// The id of the entry in the generation's Redis stream.
    #[must_use]
    pub fn stream_id(&self) -> String {
        format!("{}-{}", self.attempt, self.seq)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:04}.{:010}",
            self.generation_id, self.attempt, self.seq
        )
    }
}

impl serde::Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not an event id.
#[derive(Debug, thiserror::Error)]
#[error("an event id looks like <generation id>.<attempt>.<sequence>")]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let (Some(generation), Some(attempt), Some(seq), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidEventId);
        };
        let digits = |part: &str| {
            let all_digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            all_digits
                .then(|| part.parse().ok())
                .flatten()
                .ok_or(InvalidEventId)
        };
        if generation.len() != 36 {
            return Err(InvalidEventId);
        }
        Ok(Self {
            generation_id: generation.parse().map_err(|_| InvalidEventId)?,
            attempt: digits(attempt)?,
            seq: digits(seq)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap()
    }

    proptest! {
        #[test]
        fn an_id_after_another_sorts_after_it(now in 0..4_000_000_000_000_i64, last in 0..4_000_000_000_000_i64) {
            let previous = new(at(last));
            let next = new_after(at(now), Some(previous));
            prop_assert!(next > previous);
            prop_assert_eq!(next.get_version_num(), 7);
            prop_assert_eq!(next.get_variant(), uuid::Variant::RFC4122);
        }

        #[test]
        fn an_event_id_survives_its_text(attempt: u32, seq: u32, raw: u128) {
            let id = EventId { generation_id: Uuid::from_u128(raw), attempt, seq };
            prop_assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text in ".{0,80}") {
            prop_assert!(text.parse::<EventId>().is_err());
        }
    }

    #[test]
    fn events_of_a_generation_order_as_strings() {
        let id = |attempt, seq| {
            EventId {
                generation_id: Uuid::nil(),
                attempt,
                seq,
            }
            .to_string()
        };
        assert!(id(1, 9) < id(1, 10));
        assert!(id(1, EventId::TERMINAL_SEQ) < id(2, 1));
    }
}
