//! Whether the schema is as new as this version of Balas.

use super::migrate;
use super::{Db, StoreError, StoreResult};

impl Db {
    /// Whether every migration that this version knows has run. A newer schema is fine: the previous
    /// version serves while, and after, the next one's migrations run.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn schema_is_current(&self) -> StoreResult<bool> {
        let mut tx = self.begin("BEGIN").await?;
        let ran = sqlx::query_scalar!(r#"SELECT chat.schema_versions() AS "ran!""#)
            .fetch_one(tx.conn())
            .await
            .map_err(StoreError::from);
        match ran {
            Ok(ran) => Ok(migrate::versions().all(|known| ran.contains(&known))),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The function came with a migration: without it, or the schema, or a grant, that has not run.
fn is_missing(error: &StoreError) -> bool {
    let StoreError::Database(sqlx::Error::Database(inner)) = error else {
        return false;
    };
    matches!(
        inner.code().as_deref(),
        Some("42883" | "3F000" | "42P01" | "42501")
    )
}
