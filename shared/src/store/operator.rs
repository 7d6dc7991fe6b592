//! The scope of operators.

use super::conn::Conn;
use super::tx::Begun;
use super::{Db, StoreResult};

/// A transaction of an operator: it reads everybody's work and nobody's words, and changes only what
/// is nobody's. What an operator does to a person's rows is done in that person's scope.
///
/// The scope is the role of the connection, so nothing is set in it: of another role's pool it shows
/// nothing, or is refused.
#[derive(Debug)]
pub struct OperatorTx {
    tx: Begun,
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
    pub(super) fn conn(&mut self) -> Conn<'_> {
        self.tx.conn()
    }

    /// Makes what was done durable; dropping undoes it.
    ///
    /// # Errors
    /// When the outcome is unknown or the commit was refused.
    pub async fn commit(self) -> StoreResult<()> {
        self.tx.commit().await
    }
}
