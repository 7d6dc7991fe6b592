//! The scope of operators.

use sqlx::{PgConnection, Postgres, Transaction};

use super::{Db, StoreResult};

/// A transaction of an operator: it reads everybody's work and nobody's words, and changes only what
/// is nobody's. What an operator does to a person's rows is done in that person's scope.
///
/// The scope is the role of the connection, so nothing is set in it: of another role's pool it shows
/// nothing, or is refused.
#[derive(Debug)]
pub struct OperatorTx {
    tx: Transaction<'static, Postgres>,
}

impl Db {
    /// Begins a transaction of an operator, on a pool of [`ServingRole::Operator`](super::ServingRole).
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn operator(&self) -> StoreResult<OperatorTx> {
        Ok(OperatorTx {
            tx: self.begin("BEGIN").await?,
        })
    }
}

impl OperatorTx {
    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Makes what was done durable; dropping undoes it.
    ///
    /// # Errors
    /// When the outcome is unknown or the commit was refused.
    pub async fn commit(self) -> StoreResult<()> {
        Ok(self.tx.commit().await?)
    }
}
