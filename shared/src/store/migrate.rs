//! Bringing the schema up to date.

use std::borrow::Cow;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, Executor as _, PgConnection};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");
const BOOTSTRAP: &str = include_str!("../../../migrations/bootstrap.sql");
/// Taken for as long as a migration runs, in the database it runs on. The number has no meaning.
const LOCK: i64 = 0x42_61_6c_61_73;

/// Why the schema is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// Two runs would trip over each other.
    #[error("another migration of this database is running; wait for it and try again")]
    AlreadyRunning,
    /// The login may not create the roles or the schema.
    #[error(
        "failed to create the roles and the schema; the login of DATABASE_URL must be allowed to the first time"
    )]
    Bootstrap(#[source] sqlx::Error),
    /// Postgres could not be reached.
    #[error("failed to reach the database")]
    Connect(#[source] sqlx::Error),
    /// A migration failed, or one that ran has been edited since.
    #[error("failed to migrate")]
    Migrate(#[from] MigrateError),
}

/// Creates roles and schema where needed and runs every migration that the database has not seen.
///
/// # Errors
/// See [`MigrationError`]. Each migration is a transaction of its own, so a failed run can be
/// repeated.
pub async fn run(url: &SecretString) -> Result<(), MigrationError> {
    let mut connection = PgConnection::connect(url.expose_secret())
        .await
        .map_err(MigrationError::Connect)?;
    let locked = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, LOCK)
        .fetch_one(&mut connection)
        .await
        .map_err(MigrationError::Connect)?;
    if !locked {
        return Err(MigrationError::AlreadyRunning);
    }
    connection
        .execute(BOOTSTRAP)
        .await
        .map_err(MigrationError::Bootstrap)?;
    connection
        .execute("SET ROLE balas_owner; SET search_path = chat; SET lock_timeout = '5s'")
        .await
        .map_err(MigrationError::Bootstrap)?;
    let mut migrator = Migrator {
        migrations: Cow::Borrowed(&MIGRATOR.migrations),
        ..Migrator::DEFAULT
    };
    // Our own lock refuses instead of waiting. An older version may start beside a newer schema.
    migrator.set_locking(false).set_ignore_missing(true);
    migrator.run(&mut connection).await?;
    // The extension may have come after the migration that would have used it.
    connection
        .execute("SELECT chat.prepare_vectors()")
        .await
        .map_err(MigrationError::Bootstrap)?;
    connection.close().await.map_err(MigrationError::Connect)
}

/// The migrations of this version, by their timestamps.
pub(super) fn versions() -> impl Iterator<Item = i64> {
    MIGRATOR.iter().map(|migration| migration.version)
}

/// Changes with every migration; test harnesses name their template database after it.
#[must_use]
pub fn fingerprint() -> String {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    hash.update(BOOTSTRAP);
    MIGRATOR
        .iter()
        .for_each(|migration| hash.update(&migration.checksum));
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
