//! When no model answers: a generation waits a little for one that does, and is given up after a few tries.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod common;

use common::{Fleet, is_completed};
use shared::domain::{EventType, FailureCode, GenerationStatus};
use shared::push;
use shared::store::generations;

#[tokio::test(flavor = "multi_thread")]
async fn a_silence_of_the_upstream_costs_nobody_the_reply() {
    let fleet = Fleet::new().await;
    fleet.simulator.go_dark().await;
    let _worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let generation = fleet.send(conversation, "Anybody there?").await;
    // Both models failed twice, and it has been put back.
    fleet
        .until(async || {
            let now = fleet.generation(generation.id).await;
            (now.status == GenerationStatus::Queued && now.attempts > 0).then_some(())
        })
        .await;
    fleet.simulator.come_back().await;
    let done = fleet.ended(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    let events = push::read_log(&fleet.redis, generation.id, None)
        .await
        .unwrap();
    let waited = events.iter().filter(|event| {
        let event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        event["type"] == EventType::Retrying.as_str()
            && event["data"]["reason"] == "connection"
            && event["data"]["model"] == event["data"]["next_model"]
    });
    assert!(waited.count() > 0, "clients are told that it takes a while");
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_each_time_is_given_up_after_max_attempts() {
    let fleet = Fleet::new().await;
    fleet.simulator.script("empty");
    let conversation = fleet.conversation().await;
    let (generation, _) = fleet.commit(fleet.user, conversation, "hello").await;
    fleet
        .env
        .execute("UPDATE chat.generations SET max_attempts = 2")
        .await;
    let _worker = fleet.worker("w1");
    let done = fleet.ended(generation.id).await;
    assert_eq!(
        done.error.map(|error| error.code),
        Some(FailureCode::UpstreamExhausted)
    );
    assert_eq!(done.attempts, 2);
    // Each of the two models was asked twice each time.
    assert_eq!(fleet.simulator.calls().len(), 8);
    let wasted = fleet
        .env
        .value("SELECT count(*) FROM chat.attempts WHERE wasted AND outcome = 'empty_answer'")
        .await;
    assert_eq!(wasted.unwrap(), "8", "the prompts may be billed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_what_comes_after_the_deadline() {
    let fleet = Fleet::new().await;
    fleet.simulator.script("429,reset=120");
    let conversation = fleet.conversation().await;
    let (generation, _) = fleet.commit(fleet.user, conversation, "hello").await;
    fleet
        .env
        .execute("UPDATE chat.generations SET deadline_at = now() + interval '60 seconds'")
        .await;
    let _worker = fleet.worker("w1");
    let done = fleet.ended(generation.id).await;
    assert_eq!(
        done.error.map(|error| error.code),
        Some(FailureCode::UpstreamExhausted),
        "told at once, and not when the deadline has passed"
    );
    assert_eq!(fleet.simulator.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_lasts_is_told_after_three_tries() {
    let fleet = Fleet::new().await;
    fleet.simulator.script("500");
    let conversation = fleet.conversation().await;
    let generation = fleet.send(conversation, "hello").await;
    let _worker = fleet.worker("w1");
    let done = fleet.ended(generation.id).await;
    let error = done.error.unwrap();
    assert_eq!(error.code, FailureCode::UpstreamExhausted);
    assert!(error.retryable);
    assert_eq!(done.attempts, 3);
    fleet.check_invariants().await;
}

/// Who makes the one call that tries a model again may stop it; nobody else waits for that call then.
#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_is_stopped_keeps_nobody_waiting() {
    let fleet = Fleet::new().await;
    // One model only, so that no other one answers instead.
    fleet
        .env
        .execute(
            "CREATE FUNCTION chat.one_model() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN NEW.model_chain := jsonb_build_array(NEW.model_chain -> 0); RETURN NEW; END $$;
             CREATE TRIGGER one_model BEFORE INSERT ON chat.generations FOR EACH ROW
             EXECUTE FUNCTION chat.one_model()",
        )
        .await;
    fleet.simulator.script("500,times=6");
    let _worker = fleet.worker("w1");
    let refused = fleet.send(fleet.conversation().await, "refused").await;
    let refused = fleet.ended(refused.id).await;
    assert_eq!(refused.status, GenerationStatus::Failed, "{refused:?}");

    let trying = fleet
        .send(fleet.conversation().await, "[[sim:hang]] is it back?")
        .await;
    fleet
        .until(async || {
            fleet
                .simulator
                .calls_containing("is it back?")
                .pop()
                .map(drop)
        })
        .await;
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    generations::cancel(&mut tx, trying.id, None).await.unwrap();
    tx.commit().await.unwrap();
    fleet
        .until(async || {
            push::broadcast_cancel(&fleet.redis, trying.id)
                .await
                .unwrap();
            let calls = fleet.simulator.calls_containing("is it back?");
            calls
                .iter()
                .all(|call| call.ended_us.is_some())
                .then_some(())
        })
        .await;
    let last = fleet.send(fleet.conversation().await, "And now?").await;
    let done = fleet.ended(last.id).await;
    assert!(is_completed(&done), "{done:?}");
    fleet.check_invariants().await;
}
