//! What the fleet knows of a destination: failures in a row, pauses, single tries.

use std::time::Duration;

use shared::domain::Destination;
use shared::store::notifications::{self, Backlog, Failure, Settlement, TRIP};

use crate::common::World;
use crate::{MANY, failure};

const HTTP: Destination = Destination::Http;
const AMQP: Destination = Destination::Amqp;
const HOUR: Duration = Duration::from_hours(1);

impl World {
    async fn is_work(&self, destination: Destination) -> bool {
        let mut tx = self.worker.sweep_async().await.unwrap();
        notifications::is_work(&mut tx, destination).await.unwrap()
    }

    async fn backlog(&self) -> Backlog {
        let mut tx = self.worker.sweep_async().await.unwrap();
        notifications::backlog(&mut tx, HTTP).await.unwrap()
    }

    async fn state(&self) -> String {
        self.value(
            "SELECT failures || ' ' || (paused_until > now()) FROM chat.notification_destinations WHERE name = 'http'",
        )
        .await
    }

    /// How long the pause is that was begun last, in whole seconds; it may have begun to pass.
    async fn pause(&self) -> i64 {
        let left = "SELECT ceil(extract(epoch FROM paused_until - now()))
                    FROM chat.notification_destinations WHERE name = 'http'";
        self.value(left).await.parse().unwrap()
    }

    async fn pause_over(&self) {
        self.execute("UPDATE chat.notification_destinations SET paused_until = now()")
            .await;
    }

    /// So many failures, one by one.
    async fn fail_times(&self, times: i32) {
        for _ in 0..times {
            let taken = self.take_some(HTTP, 1, MANY).await.remove(0);
            self.failed(HTTP, &taken, HOUR).await;
        }
    }
}

#[tokio::test]
async fn there_is_work_when_something_is_due() {
    let world = World::notifying(&[HTTP]).await;
    assert!(!world.is_work(HTTP).await);
    world.replied().await;
    assert!(world.is_work(HTTP).await && !world.is_work(AMQP).await);
    let taken = world.take_one(HTTP).await;
    assert!(!world.is_work(HTTP).await);
    world.failed(HTTP, &taken, HOUR).await;
    assert!(!world.is_work(HTTP).await);
}

#[tokio::test]
async fn after_failures_in_a_row_one_at_a_time_is_tried() {
    let world = World::notifying(&[HTTP]).await;
    for _ in 0..10 {
        world.replied().await;
    }
    world.fail_times(TRIP - 1).await;
    assert_eq!(world.state().await, "4 false");
    assert!(!world.backlog().await.tripped);
    // One more, and while the pause lasts nothing is tried.
    world.fail_times(1).await;
    assert_eq!(world.state().await, "5 true");
    assert!(world.backlog().await.tripped);
    assert!(!world.is_work(HTTP).await);
    assert!(world.take(HTTP).await.is_empty());
    world.pause_over().await;
    let probe = world.take_one(HTTP).await;
    assert!(world.take(HTTP).await.is_empty(), "one at a time");
    // It fails: the next pause is longer.
    world.failed(HTTP, &probe, HOUR).await;
    assert_eq!(world.state().await, "6 true");
    world.pause_over().await;
    let probe = world.take_one(HTTP).await;
    world.delivered(HTTP, &probe).await;
    assert_eq!(world.state().await, "0 false");
    // Everything goes again, what has been tried before within seconds.
    assert_eq!(world.take(HTTP).await.len(), 3);
    let soon = "SELECT count(*) FROM chat.notifications WHERE claim_token IS NULL
                  AND next_try_at < now() + interval '11 seconds'";
    assert_eq!(world.value(soon).await, "6");
}

#[tokio::test]
async fn pauses_grow_up_to_a_minute() {
    let world = World::notifying(&[HTTP]).await;
    world.replied().await;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        world.execute("UPDATE chat.notification_destinations SET failures = GREATEST(failures, 4), paused_until = now()")
            .await;
        let probe = world.take_tripped_or_due().await;
        world.failed(HTTP, &probe, HOUR).await;
        pauses.push(world.pause().await);
    }
    // What is left of each may already be less, on a busy machine.
    let expected = [1, 2, 4, 8, 16, 32, 60, 60, 60];
    for (left, whole) in pauses.iter().zip(expected) {
        assert!(*left <= whole, "{pauses:?}");
    }
    let stored = "SELECT failures FROM chat.notification_destinations WHERE name = 'http'";
    assert_eq!(world.value(stored).await, "13");
}

impl World {
    async fn take_tripped_or_due(&self) -> notifications::Taken {
        self.execute("UPDATE chat.notifications SET next_try_at = now()")
            .await;
        self.take_one(HTTP).await
    }
}

/// Nobody waits for an hour because the only one left is not due.
#[tokio::test]
async fn a_single_try_does_not_wait_until_one_is_due() {
    let world = World::notifying(&[HTTP]).await;
    world.replied().await;
    let taken = world.take_one(HTTP).await;
    world.failed(HTTP, &taken, HOUR).await;
    world
        .execute(&format!(
            "UPDATE chat.notification_destinations SET failures = {TRIP}"
        ))
        .await;
    assert!(world.is_work(HTTP).await);
    let probe = world.take_one(HTTP).await;
    assert_eq!(probe.attempts, 2);
    world.delivered(HTTP, &probe).await;
    assert!(!world.is_work(HTTP).await);
}

/// Those that were on their way when the pause began do not make it longer.
#[tokio::test]
async fn stragglers_do_not_count() {
    let world = World::notifying(&[HTTP]).await;
    for _ in 0..12 {
        world.replied().await;
    }
    let taken = world.take(HTTP).await;
    assert_eq!(taken.len(), 12);
    let (together, stragglers) = taken.split_at(7);
    let ended: Vec<_> = together
        .iter()
        .map(|taken| (taken.held, failure(HOUR)))
        .collect();
    assert_eq!(world.settle(HTTP, &ended).await.retried, 7);
    assert_eq!(world.state().await, "5 true");
    // The pause holds by construction, however slow the machine.
    world
        .execute(
            "UPDATE chat.notification_destinations SET paused_until = now() + interval '1 hour'",
        )
        .await;
    for straggler in stragglers {
        world.failed(HTTP, straggler, HOUR).await;
    }
    assert_eq!(world.state().await, "5 true");
}

#[tokio::test]
async fn a_success_between_failures_begins_the_count_anew() {
    let world = World::notifying(&[HTTP]).await;
    for _ in 0..4 {
        world.replied().await;
    }
    world.fail_times(3).await;
    let taken = world.take_one(HTTP).await;
    world.delivered(HTTP, &taken).await;
    assert_eq!(world.state().await, "0 false");
    // Nothing that waits is called back for that: the destination was never away.
    let waiting =
        "SELECT count(*) FROM chat.notifications WHERE next_try_at > now() + interval '50 minutes'";
    assert_eq!(world.value(waiting).await, "3");
}

#[tokio::test]
async fn a_destination_that_asks_for_it_is_left_alone() {
    let world = World::notifying(&[HTTP]).await;
    for _ in 0..3 {
        world.replied().await;
    }
    let taken = world.take_some(HTTP, 2, MANY).await;
    let asked = Settlement::Failed(Failure {
        error: "status 429".to_owned(),
        wait: HOUR,
        gone: false,
        pause: Some(HOUR),
    });
    let ended = [
        (taken[0].held, asked),
        (taken[1].held, Settlement::Delivered),
    ];
    let settled = world.settle(HTTP, &ended).await;
    assert_eq!((settled.delivered, settled.retried), (1, 1));
    assert!(world.take(HTTP).await.is_empty());
    assert_eq!(world.state().await, "0 true");
    world.pause_over().await;
    // The one that was refused keeps its own time.
    assert_eq!(world.take(HTTP).await.len(), 1);
}

#[tokio::test]
async fn the_backlog_is_measured() {
    let world = World::notifying(&[HTTP]).await;
    let empty = world.backlog().await;
    assert_eq!((empty.undelivered, empty.dead), (0, 0));
    assert_eq!((empty.oldest_seconds, empty.tripped), (None, false));
    for _ in 0..3 {
        world.replied().await;
    }
    let taken = world.take_some(HTTP, 1, MANY).await.remove(0);
    world.settle(HTTP, &[(taken.held, crate::gone())]).await;
    world
        .execute("UPDATE chat.notifications SET occurred_at = now() - interval '1 hour'")
        .await;
    let backlog = world.backlog().await;
    assert_eq!((backlog.undelivered, backlog.dead), (2, 1));
    assert!(backlog.oldest_seconds.unwrap() >= 3_600.0);
}
