//! Somebody dies or loses everything, and the reply comes all the same, once.

use loadtest::simulator::{Endpoint, Outcome};
use shared::domain::{FailureCode, SenderType};
use shared::push;

use crate::common::{Fleet, is_completed};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_committed_by_an_api_that_died_before_the_push_is_answered() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let (generation, _) = fleet
        .commit(fleet.user, conversation, "nobody pushed me")
        .await;
    assert!(is_completed(&fleet.ended(generation.id).await));
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_mid_stream_is_continued_by_another_with_one_reply() {
    let fleet = Fleet::new().await;
    let first = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(
            conversation,
            "A long story. [[sim:rate=30]] [[sim:tokens=90]]",
        )
        .await;
    fleet.streaming(generation.id).await;
    first.kill();
    let _second = fleet.worker("w2");
    let done = fleet.ended(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    assert_eq!(done.attempts, 2);
    let replies = fleet.messages(conversation).await;
    assert_eq!(
        replies
            .iter()
            .filter(|message| message.sender_type == SenderType::Assistant)
            .count(),
        1
    );
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_worker_frees_its_predecessors_work_before_the_lease_runs_out() {
    let fleet = Fleet::new().await;
    let long_lease = [("LEASE_SECONDS", "600")];
    let first = fleet.worker_with("w1", &long_lease);
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(
            conversation,
            "A long story. [[sim:rate=30]] [[sim:tokens=60]]",
        )
        .await;
    fleet.streaming(generation.id).await;
    first.kill();
    let _reborn = fleet.worker_with("w1", &long_lease);
    assert!(is_completed(&fleet.ended(generation.id).await));
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wiping_redis_mid_stream_loses_neither_the_reply_nor_the_log() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let waiting = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "A story. [[sim:rate=40]] [[sim:tokens=80]]")
        .await;
    fleet.streaming(generation.id).await;
    let parked = fleet.send(conversation, "and then?").await;
    fleet.env.wipe_redis().await;
    let other = fleet.send(waiting, "another conversation").await;
    for id in [generation.id, parked.id, other.id] {
        let done = fleet.ended(id).await;
        assert!(is_completed(&done), "{done:?}");
        assert_eq!(done.attempts, 1, "no running call was repeated");
    }
    let text = fleet
        .until(async || {
            let text = push::text_so_far(&fleet.redis, generation.id)
                .await
                .unwrap();
            let events = push::read_log(&fleet.redis, generation.id, None)
                .await
                .unwrap();
            events
                .last()
                .is_some_and(|event| event.kind.is_terminal())
                .then_some(text)
        })
        .await;
    assert_eq!(
        text,
        fleet
            .generation(generation.id)
            .await
            .assistant_message
            .unwrap()
            .content
    );
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_everything_is_answered_from_the_table() {
    let fleet = Fleet::new().await;
    // A port that nothing listens on.
    let _worker = fleet.worker_with("w1", &[("REDIS_URL", "redis://127.0.0.1:1")]);
    let conversation = fleet.conversation().await;
    let mut ids = Vec::new();
    for turn in 0..5 {
        ids.push(
            fleet
                .commit(fleet.user, conversation, &format!("turn {turn}"))
                .await
                .0
                .id,
        );
    }
    for id in ids {
        assert!(is_completed(&fleet.ended(id).await));
    }
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_kills_every_worker_is_given_up() {
    let fleet = Fleet::new().await;
    let conversation = fleet.conversation().await;
    let generation = fleet.send(conversation, "poison [[sim:hang]]").await;
    let next = fleet.send(conversation, "still here?").await;
    fleet
        .env
        .execute("UPDATE chat.generations SET max_attempts = 2")
        .await;
    for name in ["w1", "w2"] {
        let worker = fleet.worker(name);
        fleet
            .until(async || {
                let holder = fleet
                    .env
                    .value(
                        "SELECT max(worker_id) FROM chat.generations WHERE status = 'in_progress'",
                    )
                    .await;
                holder.filter(|holder| holder.starts_with(name))
            })
            .await;
        worker.kill();
    }
    let _survivor = fleet.worker("w3");
    let done = fleet.ended(generation.id).await;
    assert_eq!(
        done.error.map(|error| error.code),
        Some(FailureCode::AttemptsExhausted)
    );
    assert!(
        is_completed(&fleet.ended(next.id).await),
        "the conversation goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_database_costs_no_second_call() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "A story. [[sim:rate=40]] [[sim:tokens=40]]")
        .await;
    fleet.streaming(generation.id).await;
    // Every connection dies and no new one is let in until the reply is complete.
    fleet.env.close_database().await;
    fleet
        .simulator
        .wait_for_call(|call| call.outcome == Outcome::Completed)
        .await;
    fleet.env.open_database().await;
    let done = fleet.ended(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    let calls = fleet.simulator.calls_containing("A story.");
    assert_eq!(
        calls
            .iter()
            .filter(|call| call.endpoint == Endpoint::Chat)
            .count(),
        1,
        "{calls:?}"
    );
    fleet.check_invariants().await;
}
