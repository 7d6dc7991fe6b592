//! Generations: read, poll, list, cancel.

use insta::assert_snapshot;
use serde_json::Value;
use shared::store::ServingRole;
use shared::store::generations::keep_partial;

use crate::common::{EventStream, TestApp, conversation, fresh_id, sse};

#[tokio::test]
async fn a_completed_generation_has_its_reply_and_what_it_took() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    app.simulator.script("tokens=2");
    let generation = user.say(&id, "Hi").await.text("/generation/id");
    let mut answer = user.ended(&generation).await;
    answer.body["assistant_message"]["content"] = "[reply]".into();
    answer.body["usage"]["prompt_tokens"] = "[tokens]".into();
    answer.body["usage"]["total_tokens"] = "[tokens]".into();
    assert_snapshot!(answer.shown(), @r#"
    200
    {
      "assistant_message": {
        "attachments": [],
        "content": "[reply]",
        "content_type": "text",
        "conversation_id": "[id 1]",
        "created_at": "[time]",
        "id": "[id 2]",
        "metadata": {
          "finish_reason": "stop",
          "model": "qwen/qwen3-235b-a22b-07-25:free"
        },
        "parent_message_id": "[id 3]",
        "sender_type": "assistant",
        "superseded_by": null
      },
      "assistant_message_id": "[id 2]",
      "attempts": 1,
      "context": {
        "budget": 6000,
        "dropped": 0,
        "summarised": 0,
        "used": 2
      },
      "conversation_id": "[id 1]",
      "id": "[id 4]",
      "is_free_model": true,
      "kind": "reply",
      "model": "qwen/qwen3-235b-a22b-07-25:free",
      "status": "completed",
      "timings": {
        "finished_at": "[time]",
        "first_token_at": "[time]",
        "queued_at": "[time]",
        "started_at": "[time]"
      },
      "usage": {
        "cached_tokens": 0,
        "completion_tokens": 2,
        "cost_credits": 0,
        "is_free_model": true,
        "model": "qwen/qwen3-235b-a22b-07-25:free",
        "processing_time_ms": "[ms]",
        "prompt_tokens": "[tokens]",
        "reasoning_tokens": 0,
        "total_tokens": "[tokens]"
      },
      "user_message_id": "[id 3]"
    }
    "#);
}

#[tokio::test]
async fn a_queued_generation_tells_its_position() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let mut positions = Vec::new();
    for _ in 0..3 {
        let id = conversation(&user).await;
        let sent = user.say(&id, "x").await;
        let read = user.get(&sent.text("/links/self")).await;
        positions.push((
            sent.body["generation"]["queue_position"].clone(),
            read.body["queue_position"].clone(),
        ));
    }
    let expected: Vec<_> = (0..3).map(|n| (Value::from(n), Value::from(n))).collect();
    assert_eq!(positions, expected);
}

#[tokio::test]
async fn a_long_poll_answers_on_the_next_change() {
    let mut app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let generation = user
        .say(&id, "[[sim:hold=3]] go")
        .await
        .text("/generation/id");
    let path = format!("/api/chat/generations/{generation}?wait=30");
    let (poll, ()) = tokio::join!(user.get(&path), async {
        app.start_worker();
        crate::common::until(async || (!app.simulator.calls().is_empty()).then_some(())).await;
        app.simulator.release();
    });
    // The worker may have been quicker than the poll, which then waits for the end.
    let status = poll.text("/status");
    assert!(["in_progress", "completed"].contains(&&*status), "{status}");
    let ended = user.ended(&generation).await;
    assert_eq!(ended.text("/status"), "completed");
    assert_eq!(user.get(&path).await.text("/status"), "completed");
}

#[tokio::test]
async fn a_long_poll_of_nothing_new_answers_when_its_time_is_over() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let generation = user.say(&id, "x").await.text("/generation/id");
    let answer = user
        .get(&format!("/api/chat/generations/{generation}?wait=1"))
        .await;
    assert_eq!(
        (answer.status, answer.text("/status")),
        (200, "queued".to_owned())
    );
}

#[tokio::test]
async fn a_running_generation_tells_since_when_there_is_text() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:hold=2]] a story").await;
    let mut stream = EventStream::open(&user, &sent.text("/links/events"), None).await;
    let seen = stream.through("generation.delta").await;
    let path = sent.text("/links/self");
    let running = user.get(&path).await;
    assert_eq!(running.text("/status"), "in_progress");
    let delta = seen.last().unwrap();
    assert_eq!(running.body["timings"]["first_token_at"], delta["at"]);
    assert_eq!(
        user.get(&path).await.body["timings"],
        running.body["timings"]
    );
    app.simulator.release();
    let ended = user.ended(&sent.text("/generation/id")).await;
    assert_ne!(ended.text("/timings/first_token_at"), "");
}

#[tokio::test]
async fn a_list_is_filtered_and_paged() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let (one, other) = (conversation(&user).await, conversation(&user).await);
    let first = user.say(&one, "a").await.text("/generation/id");
    user.say(&one, "b").await;
    let newest = user.say(&other, "c").await.text("/generation/id");
    user.post(
        &format!("/api/chat/generations/{first}/cancel"),
        serde_json::json!({}),
    )
    .await;
    let ids = async |query: &str| {
        let answer = user.get(&format!("/api/chat/generations{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.shown());
        let list = answer.body["generations"].as_array().unwrap();
        list.iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("").await.len(), 3);
    assert_eq!(ids("?status=cancelled").await, [first]);
    assert_eq!(
        ids(&format!("?conversation_id={other}")).await,
        *std::slice::from_ref(&newest)
    );
    assert_eq!(ids("?limit=1").await, [newest]);
    assert_eq!(ids("?limit=1&offset=3").await.len(), 0);
    assert_eq!(
        ids(&format!("?conversation_id={}", fresh_id())).await.len(),
        0
    );
}

#[tokio::test]
async fn cancelling_a_queued_generation_lets_the_next_one_go() {
    let mut app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let first = user.say(&id, "first").await.text("/generation/id");
    let second = user.say(&id, "second").await.text("/generation/id");
    let cancel = format!("/api/chat/generations/{first}/cancel");
    let cancelled = user.post(&cancel, serde_json::json!({})).await;
    assert_snapshot!(cancelled.shown(), @r#"
    200
    {
      "attempts": 0,
      "conversation_id": "[id 1]",
      "id": "[id 2]",
      "is_free_model": true,
      "kind": "reply",
      "model": "qwen/qwen3-235b-a22b-07-25:free",
      "status": "cancelled",
      "timings": {
        "finished_at": "[time]",
        "first_token_at": null,
        "queued_at": "[time]",
        "started_at": null
      },
      "user_message_id": "[id 3]"
    }
    "#);
    assert_eq!(
        user.post(&cancel, serde_json::json!({})).await.problem(),
        "409 generation_ended"
    );
    app.start_worker();
    assert_eq!(user.ended(&second).await.text("/status"), "completed");
    // The title may be about the first message, a reply may not.
    let calls = app.simulator.calls_containing("first");
    assert!(
        calls
            .iter()
            .all(|call| call.max_tokens.is_some_and(|max| max <= 32))
    );
}

#[tokio::test]
async fn a_running_generation_is_cancelled_from_another_replica_and_keeps_its_text() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:hold=6]] a long story").await;
    let mut stream = EventStream::open(&user, &sent.text("/links/events"), None).await;
    let seen = sse::text(&stream.through("generation.delta").await);
    let other = app.another_replica().await;
    let cancelled = user
        .at(&other.url)
        .post(&sent.text("/links/cancel"), serde_json::json!({}))
        .await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.shown());
    assert_eq!(cancelled.text("/status"), "cancelled");
    assert!(cancelled.text("/partial_content").starts_with(&seen));
    let partial = cancelled.text("/partial_content");
    let rest = stream.rest().await;
    let last = rest.last().unwrap();
    assert_eq!(last["type"], "generation.cancelled");
    assert_eq!(last["data"]["partial_content"], partial.as_str());
    // The worker that hears of it late has more to keep; what was told stays.
    let generation = sent.text("/generation/id");
    let mut tx = app
        .env
        .db(ServingRole::Worker)
        .user(user.user)
        .await
        .unwrap();
    let more = format!("{partial} and more");
    let kept = keep_partial(&mut tx, generation.parse().unwrap(), 1, &more).await;
    assert!(!kept.unwrap());
    tx.commit().await.unwrap();
    let read = user.get(&sent.text("/links/self")).await;
    assert_eq!(read.text("/partial_content"), partial);
    let next = user.ask(&id, "and now?").await;
    assert_eq!(next.status, 200, "{}", next.shown());
    assert_eq!(app.count("messages").await, "3");
}
