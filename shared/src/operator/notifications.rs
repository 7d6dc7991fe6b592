//! Dead notifications, as operators see and settle them.

use uuid::Uuid;

use super::{MOST_AT_ONCE, Operator};
use crate::domain::{DeadNotification, DeadNotificationCount, Destination};
use crate::store::audit::Actor;
use crate::store::notifications::{self, Filter, Which};
use crate::store::{OperatorTx, StoreResult};

/// Which dead notifications to settle: those named, or all that are alike.
#[derive(Clone, Debug)]
pub enum Notifications {
    /// These.
    Ids(Vec<Uuid>),
    /// All, page by page.
    All,
}

/// What to do with a dead notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Try it for another day.
    Replay,
    /// Forget it.
    Discard,
}

/// What became of a dead notification: at which destinations it was settled. None: it was not dead
/// there any more.
pub type SettledNotification = (Uuid, Vec<Destination>);

impl Operator {
    /// The dead notifications, whether there are more, and how many there are of each sort.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dead_notifications(
        &self,
        filter: &Filter,
    ) -> StoreResult<(Vec<DeadNotification>, bool, Vec<DeadNotificationCount>)> {
        let mut tx = self.view.operator().await?;
        let (dead, has_more) = notifications::list(&mut tx, filter).await?;
        Ok((dead, has_more, notifications::counts(&mut tx).await?))
    }

    /// Lets one be tried again. Returns at which destinations; none where it is not dead.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replay_notification(
        &self,
        id: Uuid,
        which: Which,
        actor: &Actor,
    ) -> StoreResult<Vec<Destination>> {
        self.settle_notification(id, which, Fate::Replay, actor)
            .await
    }

    /// Forgets one. Returns of which destinations; none where it is not dead.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn discard_notification(
        &self,
        id: Uuid,
        which: Which,
        actor: &Actor,
    ) -> StoreResult<Vec<Destination>> {
        self.settle_notification(id, which, Fate::Discard, actor)
            .await
    }

    /// Settles many, the oldest first. Each is settled on its own: what was done stays done when the
    /// database fails on the way.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle_notifications(
        &self,
        notifications: &Notifications,
        which: Which,
        fate: Fate,
        actor: &Actor,
    ) -> StoreResult<Vec<SettledNotification>> {
        let mut settled = Vec::new();
        match notifications {
            Notifications::Ids(ids) => {
                let mut ids = ids.clone();
                ids.sort_unstable();
                ids.dedup();
                for id in ids {
                    let destinations = self.settle_notification(id, which, fate, actor).await?;
                    settled.push((id, destinations));
                }
            }
            Notifications::All => {
                let mut after = None;
                loop {
                    let mut tx = self.view.operator().await?;
                    let page = notifications::like(&mut tx, which, after, MOST_AT_ONCE).await?;
                    drop(tx);
                    let Some((last, _)) = page.last() else {
                        return Ok(settled);
                    };
                    after = Some(*last);
                    for (id, user_id) in page {
                        let destinations = self.settle_of(user_id, id, which, fate, actor).await?;
                        settled.push((id, destinations));
                    }
                }
            }
        }
        Ok(settled)
    }

    async fn settle_notification(
        &self,
        id: Uuid,
        which: Which,
        fate: Fate,
        actor: &Actor,
    ) -> StoreResult<Vec<Destination>> {
        let mut tx: OperatorTx = self.view.operator().await?;
        let owners = notifications::owners(&mut tx, &[id]).await?;
        drop(tx);
        match owners.first() {
            Some((_, user_id)) => self.settle_of(*user_id, id, which, fate, actor).await,
            None => Ok(Vec::new()),
        }
    }

    async fn settle_of(
        &self,
        user_id: Uuid,
        id: Uuid,
        which: Which,
        fate: Fate,
        actor: &Actor,
    ) -> StoreResult<Vec<Destination>> {
        let mut tx = self.people.user(user_id).await?;
        let clock = &self.clock;
        let destinations = match fate {
            Fate::Replay => notifications::replay(&mut tx, clock, id, which, actor).await?,
            Fate::Discard => notifications::discard(&mut tx, clock, id, which, actor).await?,
        };
        if !destinations.is_empty() {
            tx.commit().await?;
            tracing::info!(notification.id = %id, actor = actor.name, ?fate, ?destinations, "dead notification settled");
        }
        Ok(destinations)
    }
}
