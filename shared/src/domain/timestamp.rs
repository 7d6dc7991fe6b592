//! RFC 3339 in UTC with milliseconds, the one form of time in public JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

const MILLIS: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// `at` as text, for example `2026-08-01T12:00:00.000Z`.
#[must_use]
pub fn format(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(MILLIS)
        .unwrap_or_default()
}

/// Serialises a time.
///
/// # Errors
/// Only the serialiser's own.
pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    format(*at).serialize(serializer)
}

/// Reads any RFC 3339 time.
///
/// # Errors
/// When the text is not RFC 3339.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)
}

/// The same for times that may be absent.
pub mod option {
    use super::{
        Deserialize, Deserializer, OffsetDateTime, Rfc3339, Serialize, Serializer, format,
    };
    use serde::de::Error as _;

    /// Serialises a time or null.
    ///
    /// # Errors
    /// Only the serialiser's own.
    pub fn serialize<S: Serializer>(
        at: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(format).serialize(serializer)
    }

    /// Reads an RFC 3339 time or null.
    ///
    /// # Errors
    /// When the text is not RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_have_exactly_three_digits() {
        let at = time::macros::datetime!(2026-08-01 12:00:00.5 +02:00);
        assert_eq!(super::format(at), "2026-08-01T10:00:00.500Z");
    }
}
