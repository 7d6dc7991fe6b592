//! The outbox of notifications, at the level of the store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

#[path = "../common/mod.rs"]
mod common;

mod dead;
mod destination;
mod order;
mod outbox;

use std::time::Duration;

use shared::domain::Destination;
use shared::store::notifications::{self, Failure, Held, Settled, Settlement, Taken};
use uuid::Uuid;

use crate::common::{Sent, World};

/// A claim that no test outlives.
const LEASE: Duration = Duration::from_mins(10);
const DAY: Duration = Duration::from_hours(24);
/// More than any test has.
const MANY: i64 = 1_000;

impl World {
    /// A world in which these destinations are wanted.
    async fn notifying(destinations: &[Destination]) -> Self {
        let world = Self::new().await;
        assert!(world.switch(destinations).await);
        world
    }

    async fn switch(&self, destinations: &[Destination]) -> bool {
        let mut tx = self.worker.sweep_async().await.unwrap();
        let changed = notifications::switch(&mut tx, destinations).await.unwrap();
        tx.commit().await.unwrap();
        changed
    }

    /// A conversation with a reply, and the generation that made it.
    async fn replied(&self) -> (Uuid, Uuid) {
        let conversation = self.conversation().await;
        let Sent { generation, .. } = self.send(conversation, "hello").await;
        self.reply(generation.id, "hi").await;
        (conversation, generation.id)
    }

    async fn take(&self, destination: Destination) -> Vec<Taken> {
        self.take_some(destination, MANY, MANY).await
    }

    async fn take_some(&self, destination: Destination, most: i64, fleet: i64) -> Vec<Taken> {
        self.take_for(destination, most, fleet, LEASE).await
    }

    async fn take_for(
        &self,
        destination: Destination,
        most: i64,
        fleet: i64,
        lease: Duration,
    ) -> Vec<Taken> {
        let mut tx = self.worker.sweep_async().await.unwrap();
        let token = Uuid::new_v4();
        let taken = notifications::take(&mut tx, destination, token, most, fleet, lease)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        taken
    }

    async fn take_one(&self, destination: Destination) -> Taken {
        let mut taken = self.take(destination).await;
        assert_eq!(taken.len(), 1, "{taken:?}");
        taken.remove(0)
    }

    async fn settle(&self, destination: Destination, ended: &[(Held, Settlement)]) -> Settled {
        self.settle_after(destination, ended, DAY).await
    }

    async fn settle_after(
        &self,
        destination: Destination,
        ended: &[(Held, Settlement)],
        give_up_after: Duration,
    ) -> Settled {
        let mut tx = self.worker.sweep_async().await.unwrap();
        let settled = notifications::settle(&mut tx, destination, ended, give_up_after, 1.0)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        settled
    }

    async fn delivered(&self, destination: Destination, taken: &Taken) {
        let settled = self
            .settle(destination, &[(taken.held, Settlement::Delivered)])
            .await;
        assert_eq!(settled.delivered, 1);
    }

    async fn failed(&self, destination: Destination, taken: &Taken, wait: Duration) {
        let settled = self
            .settle(destination, &[(taken.held, failure(wait))])
            .await;
        assert_eq!(settled.retried, 1);
    }

    /// The outbox, oldest first: what was asked of each row.
    async fn rows(&self, columns: &str) -> String {
        let sql = format!(
            "SELECT string_agg(concat_ws(' ', {columns}), ', ' ORDER BY place) FROM chat.notifications"
        );
        self.value(&sql).await
    }
}

fn failure(wait: Duration) -> Settlement {
    Settlement::Failed(Failure {
        error: "status 500".to_owned(),
        wait,
        gone: false,
        pause: None,
    })
}

fn gone() -> Settlement {
    Settlement::Failed(Failure {
        error: "status 410".to_owned(),
        wait: Duration::ZERO,
        gone: true,
        pause: None,
    })
}
