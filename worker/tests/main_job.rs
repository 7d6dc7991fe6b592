//! The worker does its job, and keeps the promises when things go wrong around it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod common;

use common::{Fleet, is_completed};
use loadtest::simulator::{Endpoint, Outcome};
use shared::domain::{EventType, FailureCode, GenerationStatus, SenderType};
use shared::push;
use shared::store::generations;
use shared::store::{ServingRole, conversations};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_gets_its_reply_with_usage_ledger_and_title() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let queued = fleet
        .send(conversation, "What does a data engineer do?")
        .await;
    let done = fleet.ended(queued.id).await;
    assert!(is_completed(&done), "{done:?}");
    let reply = done.assistant_message.expect("a reply");
    assert_eq!(
        reply.content,
        fleet
            .simulator
            .expected_reply("What does a data engineer do?")
    );
    assert_eq!(reply.parent_message_id, done.user_message_id);
    let usage = done.usage.expect("usage");
    assert!(
        usage.completion_tokens > 0 && usage.is_free_model,
        "{usage:?}"
    );
    assert_eq!(
        usage.total_tokens,
        usage.prompt_tokens + usage.completion_tokens
    );
    assert!(done.timings.first_token_at.is_some());

    let titled = fleet
        .until(async || {
            let mut tx = fleet.api.user(fleet.user).await.unwrap();
            let found = conversations::find(&mut tx, conversation)
                .await
                .unwrap()
                .unwrap();
            (found.title != shared::domain::DEFAULT_TITLE).then_some(found)
        })
        .await;
    assert!(!titled.title.is_empty() && titled.title.len() <= 255);

    let ledger = fleet.env.value(
        "SELECT string_agg(operation || ' ' || outcome, ', ' ORDER BY id) FROM chat.attempts",
    );
    assert_eq!(
        ledger.await.unwrap(),
        "completion completed, title completed"
    );
    let upstream_ids = fleet
        .env
        .value("SELECT count(upstream_id) FROM chat.attempts")
        .await;
    assert_eq!(upstream_ids.unwrap(), "2");
    assert_eq!(fleet.simulator.calls().len(), 2);
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_the_whole_story_in_order() {
    let fleet = Fleet::new().await;
    let conversation = fleet.conversation().await;
    let queued = fleet.send(conversation, "Tell me. [[sim:rate=100]]").await;
    let _worker = fleet.worker("w1");
    let done = fleet.ended(queued.id).await;
    let events = fleet
        .until(async || {
            let events = push::read_log(&fleet.redis, queued.id, None).await.unwrap();
            events
                .last()
                .is_some_and(|event| event.kind.is_terminal())
                .then_some(events)
        })
        .await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds[..2], [EventType::Queued, EventType::InProgress]);
    assert!(
        kinds[2..kinds.len() - 1]
            .iter()
            .all(|kind| *kind == EventType::Delta),
        "{kinds:?}"
    );
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
    let text: String = events
        .iter()
        .filter(|event| event.kind == EventType::Delta)
        .map(|event| {
            let event: serde_json::Value = serde_json::from_str(&event.json).unwrap();
            event["data"]["text"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(text, done.assistant_message.unwrap().content);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_a_conversation_come_in_the_order_of_its_messages() {
    let fleet = Fleet::new().await;
    let _workers = [fleet.worker("w1"), fleet.worker("w2"), fleet.worker("w3")];
    let mut last = Vec::new();
    for _ in 0..4 {
        let conversation = fleet.conversation().await;
        for turn in 0..6 {
            let generation = fleet
                .send(conversation, &format!("turn {turn} [[sim:rate=500]]"))
                .await;
            last.push(generation.id);
        }
    }
    for id in last {
        assert!(is_completed(&fleet.ended(id).await));
    }
    fleet.check_invariants().await;
    // The last prompt of each conversation: the system's, then every turn and its reply, then the last.
    let calls = fleet.simulator.calls_containing("turn 5");
    let prompts: Vec<_> = calls
        .iter()
        .filter(|call| call.endpoint == Endpoint::Chat)
        .map(|call| call.messages)
        .collect();
    assert_eq!(prompts, [12; 4]);
}

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

#[tokio::test(flavor = "multi_thread")]
async fn the_next_model_answers_when_the_first_cannot_and_clients_are_told() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    fleet.simulator.script("model=test/first:free, status=503");
    let conversation = fleet.conversation().await;
    let generation = fleet.send(conversation, "hello").await;
    let done = fleet.ended(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    assert_eq!(done.usage.unwrap().model, "test/second:free");
    let events = push::read_log(&fleet.redis, generation.id, None)
        .await
        .unwrap();
    let retrying = events
        .iter()
        .find(|event| event.kind == EventType::Retrying)
        .expect("a retrying event");
    assert!(
        retrying.json.contains("test/second:free") || retrying.json.contains("test/first:free")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_one_claims_past_the_deadline() {
    let fleet = Fleet::new().await;
    let conversation = fleet.conversation().await;
    let (generation, _) = fleet.commit(fleet.user, conversation, "too late").await;
    fleet
        .env
        .execute("UPDATE chat.generations SET deadline_at = now() - interval '1 second'")
        .await;
    let _worker = fleet.worker("w1");
    let done = fleet.ended(generation.id).await;
    assert_eq!(
        done.error.map(|error| error.code),
        Some(FailureCode::Expired)
    );
    assert!(fleet.simulator.calls().is_empty());
}
