//! Bounded numbers of query strings.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// How many items a page may have: 1 to `MAX`, `DEFAULT` when not given.
#[derive(Clone, Copy, Debug)]
pub struct Limit<const DEFAULT: u32, const MAX: u32>(u32);

/// How many items to skip: 0 to 1,000,000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offset(u32);

/// How long a poll may wait: 0 to 60 seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait(u32);

impl<const DEFAULT: u32, const MAX: u32> Limit<DEFAULT, MAX> {
    /// The number, for SQL.
    #[must_use]
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }
}

impl<const DEFAULT: u32, const MAX: u32> Default for Limit<DEFAULT, MAX> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl Offset {
    const MAX: u32 = 1_000_000;

    /// The number, for SQL.
    #[must_use]
    pub fn get(self) -> i64 {
        i64::from(self.0)
    }
}

impl Wait {
    /// The time; zero answers at once.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl<'de, const DEFAULT: u32, const MAX: u32> Deserialize<'de> for Limit<DEFAULT, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Within { min: 1, max: MAX })
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Within {
                min: 0,
                max: Self::MAX,
            })
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let max = u32::try_from(super::MAX_WAIT.as_secs()).unwrap_or(u32::MAX);
        deserializer
            .deserialize_str(Within { min: 0, max })
            .map(Self)
    }
}

struct Within {
    min: u32,
    max: u32,
}

impl Visitor<'_> for Within {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number between {} and {}", self.min, self.max)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u32, E> {
        match text.parse() {
            Ok(number) if (self.min..=self.max).contains(&number) => Ok(number),
            _ => Err(E::custom(format_args!(
                "must be a number between {} and {}",
                self.min, self.max
            ))),
        }
    }
}
