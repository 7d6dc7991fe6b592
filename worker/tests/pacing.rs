//! The account's limits, kept by a whole fleet.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod common;

use common::{Fleet, is_completed};
use shared::domain::{EventType, GenerationStatus};
use shared::push;

const LIMIT: &str = "FREE_MODEL_RATE_LIMIT_PER_MINUTE";

#[tokio::test(flavor = "multi_thread")]
async fn who_must_wait_for_the_limit_is_told_and_answered_in_turn() {
    let fleet = Fleet::new().await;
    let mut sent = Vec::new();
    for number in 0..4 {
        let conversation = fleet.conversation().await;
        let message = format!("message {number}");
        sent.push(fleet.send(conversation, &message).await.id);
    }
    // Two may come at once; the others' turns are seconds later.
    let settings = [(LIMIT, "20")];
    let _workers = [
        fleet.worker_with("w1", &settings),
        fleet.worker_with("w2", &settings),
    ];
    for id in &sent {
        assert!(is_completed(&fleet.ended(*id).await));
    }
    let mut told = 0;
    for id in &sent {
        let events = push::read_log(&fleet.redis, *id, None).await.unwrap();
        // The first is the API's.
        let waits = events
            .iter()
            .skip(1)
            .filter(|event| event.kind == EventType::Queued);
        for event in waits {
            let event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
            assert!(event["data"]["position"].as_u64().unwrap() < 4, "{event}");
            told += 1;
        }
    }
    assert!(told >= 2, "{told} were told that they wait");
    let counted = fleet
        .env
        .value("SELECT max(attempt - forgiven) FROM chat.generations WHERE kind = 'reply'");
    assert_eq!(counted.await.unwrap(), "1", "to wait is no failure");
    fleet.check_invariants().await;
}

/// The first call is refused until in two minutes; nobody makes another.
async fn one_refusal_is_enough(limit: &str, others: usize) {
    let fleet = Fleet::new().await;
    fleet.simulator.script("429,reset=120,times=1");
    let settings = [(LIMIT, limit)];
    let _first = fleet.worker_with("w1", &settings);
    let put_back = async |content: &str| {
        let conversation = fleet.conversation().await;
        let id = fleet.send(conversation, content).await.id;
        fleet
            .until(async || {
                let now = fleet.generation(id).await;
                (now.status == GenerationStatus::Queued && now.attempts > 0).then_some(())
            })
            .await;
    };
    put_back("refused").await;
    put_back("by the same worker").await;
    let names = ["w2", "w3"].into_iter().take(others);
    let _others: Vec<_> = names
        .map(|name| fleet.worker_with(name, &settings))
        .collect();
    for number in 0..4 {
        put_back(&format!("by any worker {number}")).await;
    }
    let calls = fleet.simulator.calls();
    assert_eq!(calls.len(), 1);
    // All of them come back when the upstream said, up to a tenth later and never before.
    let refused_us = calls[0].at_us;
    let kept = format!(
        "SELECT bool_and(run_at BETWEEN to_timestamp({refused_us} / 1e6) + interval '119.9 seconds'
                                    AND to_timestamp({refused_us} / 1e6) + interval '132 seconds')
         FROM chat.generations WHERE status = 'queued' AND kind = 'reply'"
    );
    assert_eq!(fleet.env.value(&kept).await.unwrap(), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_closes_the_bucket_for_the_fleet() {
    one_refusal_is_enough("1000", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_limited_by_us_is_closed_by_the_upstream() {
    // Others learn it within a second, and not before their first call.
    one_refusal_is_enough("0", 0).await;
}

/// Sends messages until one is answered without a call of the first model; how many it took.
async fn until_skipped(fleet: &Fleet, first: &str) -> usize {
    for number in 1..20 {
        let conversation = fleet.conversation().await;
        let before = calls_of(fleet, first);
        let id = fleet.send(conversation, "hello").await.id;
        assert!(is_completed(&fleet.ended(id).await));
        if calls_of(fleet, first) == before {
            return number;
        }
    }
    panic!("the model is called for ever");
}

fn calls_of(fleet: &Fleet, model: &str) -> usize {
    let calls = fleet.simulator.calls();
    calls.iter().filter(|call| call.model == model).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_work_is_left_alone_by_the_fleet() {
    const FIRST: &str = "test/first:free";
    let fleet = Fleet::new().await;
    fleet.simulator.script(&format!("model={FIRST},404"));
    let settings = [("BREAKER_REST", "600")];
    let worker = fleet.worker_with("w1", &settings);
    until_skipped(&fleet, FIRST).await;
    let calls = calls_of(&fleet, FIRST);
    // A title may be on its way when the fifth call fails.
    assert!((5..=8).contains(&calls), "{calls}");
    worker.stop();
    worker.ended().await;
    // Another worker knows within a second, and needs no failures of its own.
    let _other = fleet.worker_with("w2", &settings);
    let tries = until_skipped(&fleet, FIRST).await;
    assert!(calls_of(&fleet, FIRST) < calls + 5, "{tries}");
    let shown = worker::pacing::open_breakers(&fleet.redis).await.unwrap();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].model, FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_another_provider_is_asked_there_and_the_chain_goes_on_at_the_upstream() {
    let fleet = Fleet::new().await;
    let other = loadtest::simulator::Simulator::start().await;
    let url = other.base_url();
    let settings = [
        ("NEBIUS_MODEL_ID", "test/first:free"),
        ("NEBIUS_BASE_URL", url.as_str()),
        ("NEBIUS_API_KEY", "key-of-the-other"),
    ];
    let _worker = fleet.worker_with("w1", &settings);
    let conversation = fleet.conversation().await;
    let first = fleet.send(conversation, "hello").await;
    let first = fleet.ended(first.id).await;
    assert!(is_completed(&first), "{first:?}");
    let replies = |calls: Vec<loadtest::simulator::CallRecord>| {
        let replies = calls
            .into_iter()
            .filter(|call| call.last_user_message == "hello");
        replies.map(|call| call.model).collect::<Vec<_>>()
    };
    assert_eq!(replies(other.calls()), ["test/first:free"]);
    assert_eq!(replies(fleet.simulator.calls()), Vec::<String>::new());
    let booked = "SELECT string_agg(model_asked || ' ' || key_label, ',') FROM chat.attempts WHERE operation = 'completion'";
    let booked = fleet.env.value(booked).await.unwrap();
    let label = <sha2::Sha256 as sha2::Digest>::digest(b"key-of-the-other");
    let label = shared::crypto::hex(&label);
    assert_eq!(booked, format!("test/first:free {}", &label[..8]));
    // It does not work; the next model of the chain is the upstream's, which does.
    other.script("503");
    other.clear_calls();
    let second = fleet.send(conversation, "hello").await;
    let second = fleet.ended(second.id).await;
    assert!(is_completed(&second), "{second:?}");
    assert!(!replies(other.calls()).is_empty());
    assert_eq!(replies(fleet.simulator.calls()), ["test/second:free"]);
    fleet.check_invariants().await;
}
