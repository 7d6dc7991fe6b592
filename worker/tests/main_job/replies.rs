//! Replies as they are wanted.

use loadtest::simulator::Endpoint;
use shared::domain::{EventType, FailureCode};
use shared::push;
use shared::store::conversations;

use crate::common::{Fleet, is_completed};

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

/// A database that cannot keep up must not be given more statements for the same replies.
#[tokio::test(flavor = "multi_thread")]
async fn replies_that_were_not_stored_together_are_stored_together_later() {
    const REPLIES: usize = 24;
    let fleet = Fleet::new().await;
    let _worker = fleet.worker_with(
        "w1",
        &[("MAX_ACTIVE_PER_USER", "100"), ("WORKER_CONCURRENCY", "40")],
    );
    let mut ids = Vec::new();
    for _ in 0..REPLIES {
        let conversation = fleet.conversation().await;
        ids.push(fleet.send(conversation, "[[sim:hold=1]] hello").await.id);
    }
    for id in &ids {
        fleet.streaming(*id).await;
    }
    // The first statement that stores replies fails as on a server without memory; each one is slow.
    fleet
        .env
        .execute(
            "CREATE SEQUENCE chat.tries;
             CREATE FUNCTION chat.overloaded() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
             BEGIN
                 PERFORM pg_sleep(0.3);
                 IF nextval('chat.tries') = 1 THEN RAISE EXCEPTION 'full' USING ERRCODE = '53200'; END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER overloaded AFTER INSERT ON chat.messages EXECUTE FUNCTION chat.overloaded()",
        )
        .await;
    fleet.simulator.release();
    for id in ids {
        let done = fleet.ended(id).await;
        assert!(is_completed(&done), "{done:?}");
    }
    let tries = fleet.env.value("SELECT last_value FROM chat.tries").await;
    let tries: usize = tries.unwrap().parse().unwrap();
    assert!((2..REPLIES / 2).contains(&tries), "{tries}");
    fleet.check_invariants().await;
}
