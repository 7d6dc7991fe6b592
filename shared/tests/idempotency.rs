//! A repeated request is answered and not repeated.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod common;

use common::World;
use shared::store::idempotency::{self, Known, Replay};
use shared::store::{UserTx, maintenance};
use uuid::Uuid;

const BODY: [u8; 32] = [1; 32];
const OTHER_BODY: [u8; 32] = [2; 32];

fn accepted() -> Replay {
    Replay {
        status: 202,
        location: Some("/api/chat/generations/1".to_owned()),
        body: r#"{"generation":{"id":"1"}}"#.to_owned(),
    }
}

fn completed() -> Replay {
    Replay {
        status: 200,
        location: None,
        body: r#"{"generation":{"id":"1"},"reply":"yes"}"#.to_owned(),
    }
}

impl World {
    async fn look_up(&self, key: &str, fingerprint: &[u8; 32]) -> Known {
        let mut tx = self.api.user(self.user).await.unwrap();
        idempotency::look_up(&mut tx, key, fingerprint)
            .await
            .unwrap()
    }

    /// Answers a request under the key, whatever is known of it.
    async fn keep(
        &self,
        key: &str,
        fingerprint: &[u8; 32],
        answer: &Replay,
        running_ms: Option<i64>,
    ) {
        let mut tx = self.api.user(self.user).await.unwrap();
        idempotency::keep(&mut tx, key, fingerprint, answer, running_ms)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn replace(&self, key: &str, answer: &Replay) {
        let mut tx = self.api.user(self.user).await.unwrap();
        idempotency::replace(&mut tx, key, answer).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_answer_byte_for_byte() {
    let world = World::new().await;
    assert_eq!(world.look_up("a", &BODY).await, Known::New);
    world.keep("a", &BODY, &accepted(), None).await;
    assert_eq!(world.look_up("a", &BODY).await, Known::Answered(accepted()));
    assert_eq!(world.look_up("a", &OTHER_BODY).await, Known::Conflict);
    // Another key, and the same key of another person, are other requests.
    assert_eq!(world.look_up("b", &BODY).await, Known::New);
    let mut tx = world.api.user(Uuid::new_v4()).await.unwrap();
    let theirs = idempotency::look_up(&mut tx, "a", &OTHER_BODY)
        .await
        .unwrap();
    assert_eq!(theirs, Known::New);
}

/// What is kept was done: both are in one transaction.
#[tokio::test]
async fn work_that_is_undone_takes_its_answer_with_it() {
    let world = World::new().await;
    let mut tx = world.api.user(world.user).await.unwrap();
    assert_eq!(
        idempotency::look_up(&mut tx, "a", &BODY).await.unwrap(),
        Known::New
    );
    idempotency::keep(&mut tx, "a", &BODY, &accepted(), None)
        .await
        .unwrap();
    drop(tx);
    assert_eq!(world.look_up("a", &BODY).await, Known::New);
}

#[tokio::test]
async fn of_two_at_once_one_is_new_and_the_other_is_told_to_wait() {
    let world = World::new().await;
    let mut first = world.api.user(world.user).await.unwrap();
    assert_eq!(
        idempotency::look_up(&mut first, "a", &BODY).await.unwrap(),
        Known::New
    );
    // Held until the first ends, whichever body the second has.
    assert_eq!(world.look_up("a", &BODY).await, Known::Running);
    assert_eq!(world.look_up("a", &OTHER_BODY).await, Known::Running);
    assert_eq!(world.look_up("b", &BODY).await, Known::New);
    idempotency::keep(&mut first, "a", &BODY, &accepted(), None)
        .await
        .unwrap();
    assert_eq!(world.look_up("a", &BODY).await, Known::Running);
    first.commit().await.unwrap();
    assert_eq!(world.look_up("a", &BODY).await, Known::Answered(accepted()));
    // One that gives up lets the next one in.
    let mut gives_up = world.api.user(world.user).await.unwrap();
    assert_eq!(
        idempotency::look_up(&mut gives_up, "c", &BODY)
            .await
            .unwrap(),
        Known::New
    );
    drop(gives_up);
    common::until("the key is free", async || {
        (world.look_up("c", &BODY).await == Known::New).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_does_the_work() {
    let world = World::new().await;
    for round in 0..20 {
        let key = format!("round {round}");
        let request = async || {
            let mut tx = world.api.user(world.user).await.unwrap();
            let known = idempotency::look_up(&mut tx, &key, &BODY).await.unwrap();
            if known == Known::New {
                idempotency::keep(&mut tx, &key, &BODY, &accepted(), None)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
            known
        };
        let outcomes = futures::future::join_all((0..6).map(|_| request())).await;
        let new = outcomes
            .iter()
            .filter(|known| **known == Known::New)
            .count();
        assert_eq!(new, 1, "{outcomes:?}");
        assert!(!outcomes.contains(&Known::Conflict));
    }
}

/// A request whose client is held waiting is running until it gets its answer, or until the time is
/// up that it may take at most: a crash must not lock the key for a day.
#[tokio::test]
async fn a_held_request_is_running_until_it_is_answered_or_lost() {
    let world = World::new().await;
    world.keep("a", &BODY, &accepted(), Some(60_000)).await;
    assert_eq!(world.look_up("a", &BODY).await, Known::Running);
    assert_eq!(world.look_up("a", &OTHER_BODY).await, Known::Conflict);
    world.replace("a", &completed()).await;
    assert_eq!(
        world.look_up("a", &BODY).await,
        Known::Answered(completed())
    );
    world.keep("b", &BODY, &accepted(), Some(60_000)).await;
    world
        .execute("UPDATE chat.idempotency_keys SET locked_until = now() - interval '1 second'")
        .await;
    assert_eq!(world.look_up("b", &BODY).await, Known::Answered(accepted()));
    world.keep("c", &BODY, &accepted(), Some(0)).await;
    assert_eq!(world.look_up("c", &BODY).await, Known::Answered(accepted()));
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day() {
    let world = World::new().await;
    let age = async |hours: f64| {
        let sql = format!(
            "UPDATE chat.idempotency_keys SET created_at = now() - {hours} * interval '1 hour'"
        );
        world.execute(&sql).await;
    };
    let expire = async || {
        let mut tx = world.worker.sweep().await.unwrap();
        let expired = maintenance::expire_idempotency_keys(&mut tx, 10)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        expired
    };
    world.keep("a", &BODY, &accepted(), None).await;
    age(23.9).await;
    assert_eq!(world.look_up("a", &BODY).await, Known::Answered(accepted()));
    assert_eq!(expire().await, 0);
    // Young enough to count, so it stays what it is.
    world.keep("a", &OTHER_BODY, &completed(), None).await;
    assert_eq!(world.look_up("a", &BODY).await, Known::Answered(accepted()));
    age(24.1).await;
    assert_eq!(world.look_up("a", &OTHER_BODY).await, Known::New);
    // The same key may be used again before the sweep has come by.
    world.keep("a", &OTHER_BODY, &completed(), None).await;
    assert_eq!(
        world.look_up("a", &OTHER_BODY).await,
        Known::Answered(completed())
    );
    assert_eq!(expire().await, 0);
    age(24.1).await;
    assert_eq!(expire().await, 1);
    assert_eq!(
        world
            .value("SELECT count(*) FROM chat.idempotency_keys")
            .await,
        "0"
    );
}

#[tokio::test]
async fn keys_of_any_length_and_text_are_kept() {
    let world = World::new().await;
    let longest = "\u{1f511}".repeat(255);
    for key in [
        "'; DROP TABLE chat.messages; --",
        "a\nb",
        " ",
        longest.as_str(),
    ] {
        world.keep(key, &BODY, &accepted(), None).await;
        assert_eq!(
            world.look_up(key, &BODY).await,
            Known::Answered(accepted()),
            "{key}"
        );
    }
    let keep = async |key: &str| {
        let mut tx: UserTx = world.api.user(world.user).await.unwrap();
        let kept = idempotency::keep(&mut tx, key, &BODY, &accepted(), None).await;
        kept.map_err(|error| error.constraint().map(str::to_owned))
    };
    let too_long = "k".repeat(256);
    for key in ["", too_long.as_str()] {
        assert_eq!(
            keep(key).await,
            Err(Some("idempotency_keys_key_check".to_owned()))
        );
    }
}
