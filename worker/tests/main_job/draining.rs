//! A worker that is asked to stop.

use crate::common::{Fleet, is_completed};

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_hands_over_and_the_attempt_does_not_count() {
    let fleet = Fleet::new().await;
    let first = fleet.worker_with("w1", &[("DRAIN_GRACE", "0.2")]);
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "A story. [[sim:rate=30]] [[sim:tokens=90]]")
        .await;
    fleet.streaming(generation.id).await;
    let _second = fleet.worker_with("w2", &[("LEASE_SECONDS", "600")]);
    first.stop();
    first.ended().await;
    let done = fleet.ended(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    let counted = fleet
        .env
        .value("SELECT attempt - forgiven FROM chat.generations WHERE kind = 'reply'")
        .await;
    assert_eq!(counted.unwrap(), "1");
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_with_time_finishes_what_it_runs() {
    let fleet = Fleet::new().await;
    let worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "A story. [[sim:rate=60]] [[sim:tokens=60]]")
        .await;
    fleet.streaming(generation.id).await;
    worker.stop();
    worker.ended().await;
    let done = fleet.generation(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    assert_eq!(done.attempts, 1);
}
