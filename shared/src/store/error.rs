//! What can go wrong with the database.

/// The result of every store function.
pub type StoreResult<T> = Result<T, StoreError>;

/// A statement or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres refused a statement or could not be reached.
    #[error("failed to use the database: {0}")]
    Database(#[from] sqlx::Error),
    /// A row holds a value this version does not know.
    #[error("failed to read a stored value: {0}")]
    Corrupt(String),
    /// A statement that was run for several at once was not, or took too long.
    #[error("failed to use the database: no answer in time")]
    Late,
}

impl StoreError {
    /// Whether the database is away, as opposed to a fault of a statement: the caller may try
    /// again, and the API answers 503.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        let error = match self {
            Self::Database(error) => error,
            Self::Late => return true,
            Self::Corrupt(_) => return false,
        };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
            | sqlx::Error::Protocol(_) => true,
            // Classes 08 connection, 53 resources, 57 operator intervention; 25006, a read-only
            // answer, means that a fail-over left us on a replica; 25P03 that we stood still in a
            // transaction for too long and lost it; 55000 that the database is closed to
            // connections for maintenance.
            sqlx::Error::Database(inner) => inner.code().is_some_and(|code| {
                matches!(code.get(..2), Some("08" | "53" | "57"))
                    || matches!(&*code, "25006" | "25P03" | "55000")
            }),
            _ => false,
        }
    }

    /// Whether two transactions collided and the loser may simply run again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Database(sqlx::Error::Database(inner)) = self else {
            return false;
        };
        matches!(inner.code().as_deref(), Some("40001" | "40P01" | "55P03"))
    }

    /// Whether the schema is older than this process: a table, a column, a function or a right that it
    /// counts on is not there yet. That passes with `migrate`.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        let Self::Database(sqlx::Error::Database(inner)) = self else {
            return false;
        };
        matches!(
            inner.code().as_deref(),
            Some("42P01" | "42703" | "42883" | "42501" | "3F000")
        )
    }

    /// The violated constraint, where one was.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database(sqlx::Error::Database(inner)) => inner.constraint(),
            _ => None,
        }
    }
}
