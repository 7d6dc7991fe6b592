//! Two want the same generation, and one gets it.

use loadtest::simulator::Outcome;
use shared::domain::GenerationStatus;
use shared::push;
use shared::store::ServingRole;
use shared::store::generations;

use crate::common::{Fleet, is_completed};

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_that_claim_one_id_get_it_once() {
    let fleet = Fleet::new().await;
    let db = fleet.env.db(ServingRole::Worker);
    for _ in 0..20 {
        let conversation = fleet.conversation().await;
        let (generation, _) = fleet.commit(fleet.user, conversation, "claim me").await;
        let claim = |worker: &'static str| {
            let db = db.clone();
            async move {
                let mut tx = db.sweep_statement().await.unwrap();
                let lease = std::time::Duration::from_secs(30);
                let claimer = generations::Claimer {
                    worker_id: worker,
                    lease,
                    history_tokens: 1_000,
                };
                let claims = generations::claim(&mut tx, &[generation.id], &claimer)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                claims.len()
            }
        };
        let (a, b, c) = tokio::join!(claim("a/1"), claim("b/1"), claim("c/1"));
        assert_eq!(a + b + c, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_races_with_the_finish_leaves_one_terminal_state() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let mut outcomes = std::collections::BTreeMap::new();
    for round in 0..30_u64 {
        let conversation = fleet.conversation().await;
        let generation = fleet.send(conversation, "quick").await;
        tokio::time::sleep(std::time::Duration::from_millis(round % 10)).await;
        let mut tx = fleet.api.user(fleet.user).await.unwrap();
        let cancelled = generations::cancel(&mut tx, generation.id, Some("so far"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let done = fleet.ended(generation.id).await;
        match cancelled {
            generations::Cancelled::Done(..) => {
                assert_eq!(done.status, GenerationStatus::Cancelled);
                assert!(done.assistant_message_id.is_none());
            }
            generations::Cancelled::Ended(_) => assert!(is_completed(&done)),
            generations::Cancelled::NotFound => panic!("the generation vanished"),
        }
        *outcomes.entry(done.status.as_str()).or_insert(0) += 1;
    }
    println!("outcomes of the race: {outcomes:?}");
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_closed_and_its_text_kept() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "Endless. [[sim:rate=20]] [[sim:tokens=400]]")
        .await;
    fleet.streaming(generation.id).await;
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    generations::cancel(&mut tx, generation.id, None)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    push::broadcast_cancel(&fleet.redis, generation.id)
        .await
        .unwrap();
    let call = fleet
        .simulator
        .wait_for_call(|call| call.outcome == Outcome::Disconnected)
        .await;
    assert!(call.tokens_sent < 400);
    let partial = fleet
        .until(async || fleet.generation(generation.id).await.partial_content)
        .await;
    assert!(
        fleet
            .simulator
            .expected_reply("Endless. [[sim:rate=20]] [[sim:tokens=400]]")
            .starts_with(&partial)
    );
    let booked = fleet
        .until(async || fleet.env.value("SELECT max(outcome) FILTER (WHERE wasted AND cost_credits IS NULL) FROM chat.attempts").await)
        .await;
    assert_eq!(booked, "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reply_of_a_worker_that_lost_its_lease_is_discarded_and_booked_as_wasted() {
    let fleet = Fleet::new().await;
    // Renewals come too late, so the lease runs out under a worker that is alive and well.
    let worker = fleet.worker_with(
        "w1",
        &[("LEASE_SECONDS", "60"), ("LEASE_RENEW_SECONDS", "20")],
    );
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "A story. [[sim:rate=40]] [[sim:tokens=60]]")
        .await;
    fleet.streaming(generation.id).await;
    // Somebody else takes it over and completes it first.
    fleet
        .env
        .execute("UPDATE chat.generations SET claim_token = gen_random_uuid(), attempt = attempt + 1, worker_id = 'other/1', lease_until = now() + interval '4 seconds'")
        .await;
    let wasted = fleet
        .until(async || {
            fleet
                .env
                .value("SELECT max(outcome) FROM chat.attempts WHERE wasted")
                .await
        })
        .await;
    assert_eq!(wasted, "completed");
    let booked = fleet
        .env
        .value("SELECT count(*) FROM chat.usage_tracking WHERE wasted")
        .await;
    assert_eq!(booked.unwrap(), "1");
    // The other never came back; its lease runs out and the reply is made after all.
    let done = fleet.ended(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    fleet.check_invariants().await;
    drop(worker);
}
