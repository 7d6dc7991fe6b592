//! The process's clock, passed as an argument so that tests own time.
//!
//! Leases, due times and limits never use it: those read the database's or Redis's clock, because
//! clocks of two machines differ.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

/// Tells the wall-clock time in UTC.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Mutex<OffsetDateTime>>),
    #[cfg(feature = "testing")]
    Wrong(time::Duration),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    #[must_use]
    pub fn manual(start: OffsetDateTime) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new(start))))
    }

    /// The machine's clock if it were wrong by so much.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn wrong(by: time::Duration) -> Self {
        Self(Source::Wrong(by))
    }

    /// The time now, in UTC.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        match &self.0 {
            #[expect(
                clippy::disallowed_methods,
                reason = "the one home of the system clock"
            )]
            Source::System => OffsetDateTime::now_utc(),
            Source::Manual(now) => *now.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(feature = "testing")]
            Source::Wrong(by) => Self::system().now() + *by,
        }
    }

    /// Moves a manual clock forward; the system's clock cannot be moved and ignores it.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(now) = &self.0 {
            *now.lock().unwrap_or_else(PoisonError::into_inner) += by;
        }
    }

    /// Holds a manual clock: until the guard is dropped, whoever asks for the time stands still, and its
    /// thread with it. None for the system's clock.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn hold(&self) -> Option<std::sync::MutexGuard<'_, OffsetDateTime>> {
        match &self.0 {
            Source::System | Source::Wrong(_) => None,
            Source::Manual(now) => Some(now.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}
