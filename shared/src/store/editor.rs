//! The scope of those who keep the knowledge base.

use uuid::Uuid;

use super::conn::Conn;
use super::{Db, StoreResult, UserTx};

/// A transaction of an administrator: it reads what the knowledge base did not answer, whoever asked, and
/// decides about proposals. Only what is made for editors has policies for it; of everything else it sees
/// what is the administrator's own.
#[derive(Debug)]
pub struct EditorTx(UserTx);

impl Db {
    /// Begins a transaction of an administrator.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn editor(&self, admin: Uuid) -> StoreResult<EditorTx> {
        let mut tx = self.user(admin).await?;
        sqlx::query_scalar!("SELECT set_config('app.editor', 'on', true)")
            .fetch_one(tx.conn())
            .await?;
        Ok(EditorTx(tx))
    }
}

impl EditorTx {
    pub(super) fn conn(&mut self) -> Conn<'_> {
        self.0.conn()
    }

    /// The administrator.
    pub(super) fn admin(&self) -> Uuid {
        self.0.user_id()
    }

    /// For statements on what is nobody's, in the same transaction.
    pub fn as_user(&mut self) -> &mut UserTx {
        &mut self.0
    }

    /// Makes what was done durable; dropping undoes it.
    ///
    /// # Errors
    /// When the outcome is unknown or the commit was refused.
    pub async fn commit(self) -> StoreResult<()> {
        self.0.commit().await
    }
}
