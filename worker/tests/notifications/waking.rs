//! Who ends a generation wakes those who tell of it; the look that happens anyway is a minute away.

use shared::push::broadcast_cancel;
use shared::store::generations;
use uuid::Uuid;

use crate::common::{Fleet, TestWorker};
use crate::receiver::Receiver;

impl Fleet {
    /// A worker that has told one thing and tells no more by itself, its receiver, and a reply that stands
    /// still in a conversation.
    async fn asleep(&self) -> (Receiver, TestWorker, Uuid, Uuid) {
        let receiver = Receiver::new().await;
        let rarely = [("NOTIFICATION_LOOK_SECONDS", "60")];
        let worker = self.telling_with("w1", &receiver, &rarely).await;
        let conversation = self.conversation().await;
        self.replied(conversation, "hello").await;
        // The end of a title wakes as well.
        let settled = "SELECT (SELECT count(*) FROM chat.notifications)
            + (SELECT count(*) FROM chat.generations WHERE finished_at IS NULL)";
        self.until(async || {
            let is_told = receiver.requests().len() == 1;
            (is_told && self.read(settled).await == "0").then_some(())
        })
        .await;
        let held = self.send(conversation, "[[sim:hold=3]] wait").await.id;
        self.streaming(held).await;
        (receiver, worker, conversation, held)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_is_told_at_once() {
    let fleet = Fleet::new().await;
    let (receiver, _worker, _, held) = fleet.asleep().await;
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    generations::cancel(&mut tx, held, None).await.unwrap();
    tx.commit().await.unwrap();
    fleet
        .until(async || {
            // As the API does; one that nobody listened to is repeated here.
            let _ = broadcast_cancel(&fleet.redis, held).await;
            (receiver.requests().len() == 2).then_some(())
        })
        .await;
    assert_eq!(receiver.requests()[1].generation(), held.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sweep_ends_is_told_at_once() {
    let fleet = Fleet::new().await;
    let (receiver, _worker, conversation, _) = fleet.asleep().await;
    let waiting = fleet.send(conversation, "later").await.id;
    fleet
        .force(&format!(
            "UPDATE chat.generations SET deadline_at = now() WHERE id = '{waiting}'"
        ))
        .await;
    fleet
        .until(async || (receiver.requests().len() == 2).then_some(()))
        .await;
    let told = receiver.requests()[1].json();
    assert_eq!(told["type"], "chat.generation.failed");
    assert_eq!(told["data"]["error"]["code"], "expired");
}
