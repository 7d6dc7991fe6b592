//! Server-Sent Events: live, resumed, from any replica.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::common::{EventStream, Socket, TestApp, conversation, sse, until};

#[tokio::test]
async fn a_generation_is_followed_from_its_beginning_to_its_end() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "Tell me").await;
    let events = EventStream::open(&user, &sent.text("/links/events"), None)
        .await
        .rest()
        .await;
    assert_eq!(
        sse::kinds(&events),
        [
            "generation.queued",
            "generation.in_progress",
            "generation.delta",
            "generation.completed"
        ]
    );
    sse::assert_ordered(&events);
    let last = events.last().unwrap();
    assert_eq!(
        last["data"]["assistant_message"]["content"],
        sse::text(&events)
    );
    assert_eq!(sse::text(&events), app.simulator.expected_reply("Tell me"));
    assert!(last["data"]["usage"]["completion_tokens"].is_u64());
    assert!(
        events
            .iter()
            .all(|event| event["generation_id"] == sent.body["generation"]["id"])
    );
    assert!(
        events
            .iter()
            .all(|event| event["conversation_id"] == id.as_str())
    );
}

#[tokio::test]
async fn a_stream_resumed_at_any_point_gets_the_rest_once_and_in_order() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:drip=5]] Tell me more").await;
    let path = sent.text("/links/events");
    let all = EventStream::open(&user, &path, None).await.rest().await;
    let other = app.another_replica().await;
    for (index, event) in all.iter().enumerate().take(all.len() - 1) {
        let after = event["id"].as_str().unwrap();
        let rest = EventStream::open(&user.at(&other.url), &path, Some(after))
            .await
            .rest()
            .await;
        assert_eq!(rest, all[index + 1..], "after event {index}");
        let by_query = EventStream::open(&user, &format!("{path}?after={after}"), None)
            .await
            .rest()
            .await;
        assert_eq!(by_query, rest);
    }
    let last = all.last().unwrap()["id"].as_str().unwrap();
    let request = user
        .request(http::Method::GET, &path)
        .header("last-event-id", last);
    assert_eq!(user.send(request).await.status, 204);
}

#[tokio::test]
async fn a_stream_cut_in_the_middle_goes_on_at_another_replica() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:hold=8,tokens=16]] halves").await;
    let path = sent.text("/links/events");
    let mut first = EventStream::open(&user, &path, None).await;
    let mut events = first.through("generation.delta").await;
    drop(first);
    app.simulator.release();
    let other = app.another_replica().await;
    let after = events.last().unwrap()["id"].as_str().unwrap().to_owned();
    events.extend(
        EventStream::open(&user.at(&other.url), &path, Some(&after))
            .await
            .rest()
            .await,
    );
    sse::assert_ordered(&events);
    assert_eq!(
        events.last().unwrap()["data"]["assistant_message"]["content"],
        sse::text(&events)
    );
}

/// The replica hears what is new and cannot read what it missed: that comes first all the same.
#[tokio::test]
async fn a_log_that_cannot_be_read_for_a_while_leaves_no_gap() {
    let barred = shared::testing::TestEnv::new()
        .await
        .redis_user(&["-xrange"])
        .await;
    let url = barred.url();
    let mut app = TestApp::with(&[("REDIS_URL", url.expose_secret())]).await;
    let user = app.user();
    let id = conversation(&user).await;
    app.start_worker();
    let sent = user
        .say(&id, "[[sim:hold=4,tokens=60,drip=300]] slowly")
        .await;
    until(async || {
        let calls = app.simulator.calls();
        calls.iter().find(|call| call.tokens_sent >= 4).map(drop)
    })
    .await;
    // The feed of the conversation is resumed after the first event, and hears of the next delta.
    let path = format!("/api/chat/conversations/{id}/events");
    let after = format!("{}.0000.0000000001", sent.text("/generation/id"));
    let mut feed = EventStream::open(&user, &path, Some(&after)).await;
    app.simulator.release();
    let early = tokio::time::timeout(Duration::from_millis(900), feed.next()).await;
    assert!(early.is_err(), "{early:?}");
    barred.set(&["+xrange"]).await;
    for number in 1..=5 {
        let event = feed.next().await.unwrap();
        let id = event["id"].as_str().unwrap();
        assert!(id.ends_with(&format!(".0001.{number:010}")), "{id}");
    }
    user.post(&sent.text("/links/cancel"), json!({})).await;
}

#[tokio::test]
async fn a_log_that_is_gone_is_replaced_by_one_event_from_the_row() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "Hi").await;
    let path = sent.text("/links/events");
    let all = EventStream::open(&user, &path, None).await.rest().await;
    app.env.wipe_redis().await;
    let again = EventStream::open(&user, &path, Some(all[0]["id"].as_str().unwrap()))
        .await
        .rest()
        .await;
    assert_eq!(again.len(), 1);
    let (made, original) = (&again[0], all.last().unwrap());
    for field in ["id", "type", "generation_id", "conversation_id"] {
        assert_eq!(made[field], original[field]);
    }
    assert_eq!(
        made["data"]["assistant_message"],
        original["data"]["assistant_message"]
    );
}

#[tokio::test]
async fn a_retry_voids_the_text_so_far() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:cut=6,times=1]] again").await;
    let events = EventStream::open(&user, &sent.text("/links/events"), None)
        .await
        .rest()
        .await;
    sse::assert_ordered(&events);
    let retry = events
        .iter()
        .rposition(|event| event["type"] == "generation.retrying")
        .expect("a retry is told");
    let last = events.last().unwrap();
    assert_eq!(last["type"], "generation.completed");
    assert_eq!(
        last["data"]["assistant_message"]["content"],
        sse::text(&events[retry..])
    );
}

#[tokio::test]
async fn silence_is_filled_with_heartbeats() {
    let app = TestApp::with(&[("HEARTBEAT_INTERVAL", "0.05")]).await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "x").await;
    let mut stream = EventStream::open(&user, &sent.text("/links/events"), None).await;
    stream.through("generation.queued").await;
    let cancel = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        user.post(&sent.text("/links/cancel"), json!({})).await
    };
    let (events, _) = tokio::join!(stream.through("generation.cancelled"), cancel);
    assert_eq!(events.len(), 1);
    assert!(stream.comments > 1, "{}", stream.comments);
}

#[tokio::test]
async fn a_conversation_is_followed_over_all_its_generations() {
    let app = TestApp::new().await;
    let user = app.user();
    let (id, other) = (conversation(&user).await, conversation(&user).await);
    let path = format!("/api/chat/conversations/{id}/events");
    let mut stream = EventStream::open(&user, &path, None).await;
    user.patch(
        &format!("/api/chat/conversations/{id}"),
        json!({ "title": "Mine" }),
    )
    .await;
    let updated = stream.next().await.unwrap();
    assert_eq!(updated["type"], "conversation.updated");
    assert_eq!(updated["data"]["conversation"]["title"], "Mine");
    user.ask(&other, "elsewhere").await;
    user.say(&id, "one").await;
    let first = stream.through("generation.completed").await;
    user.say(&id, "two").await;
    let second = stream.through("generation.completed").await;
    assert!(
        first
            .iter()
            .chain(&second)
            .all(|event| event["conversation_id"] == id.as_str())
    );
    // Resumed in the middle of the first: the rest of it and all of the second.
    let after = first[1]["id"].as_str().unwrap();
    let replica = app.another_replica().await;
    let mut resumed = EventStream::open(&user.at(&replica.url), &path, Some(after)).await;
    assert_eq!(resumed.through("generation.completed").await, first[2..]);
    assert_eq!(resumed.through("generation.completed").await, second);
}

#[tokio::test]
async fn a_conversation_resumed_at_any_point_gets_what_came_since_once_and_in_order() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/events");
    let mut live = EventStream::open(&user, &path, None).await;
    // While the first is answered, the second waits, and the third is cancelled before its turn.
    let first = user.say(&id, "[[sim:drip=30,tokens=20]] First").await;
    let mut all = live.through("generation.delta").await;
    let second = user.say(&id, "Second").await;
    let third = user.say(&id, "Third").await;
    user.post(&third.text("/links/cancel"), json!({})).await;
    let is = |event: &Value, sent: &crate::common::Answer, kind: &str| {
        event["type"] == kind && event["generation_id"] == sent.body["generation"]["id"]
    };
    let has = |all: &[Value], sent, kind| all.iter().any(|event| is(event, sent, kind));
    while !has(&all, &second, "generation.completed")
        || !has(&all, &first, "generation.completed")
        || !all
            .iter()
            .any(|event| event["type"] == "conversation.updated")
    {
        all.push(live.next().await.unwrap());
    }
    let at = |sent, kind| all.iter().position(|event| is(event, sent, kind)).unwrap();
    assert!(at(&third, "generation.cancelled") < at(&first, "generation.completed"));

    let other = app.another_replica().await;
    for (index, event) in all.iter().enumerate() {
        let after = event["id"].as_str().unwrap();
        let mut expected = all[index + 1..].to_vec();
        // It has no log; who missed it reads the conversation.
        expected.retain(|event| event["type"] != "conversation.updated");
        let mut resumed = EventStream::open(&user.at(&other.url), &path, Some(after)).await;
        for expected in expected {
            assert_eq!(
                resumed.next().await.unwrap(),
                expected,
                "after event {index}"
            );
        }
    }
    // And nothing else comes before what is new.
    let after = all.last().unwrap()["id"].as_str().unwrap();
    let mut resumed = EventStream::open(&user, &path, Some(after)).await;
    let marker = user.say(&id, "Marker").await;
    let next = resumed.next().await.unwrap();
    assert!(is(&next, &marker, "generation.queued"), "{next}");
}

#[tokio::test]
async fn a_deletion_reaches_every_open_client_of_the_person_and_nobody_else() {
    let app = TestApp::without_worker().await;
    let (user, replica) = (app.user(), app.another_replica().await);
    let id = conversation(&user).await;
    let there = user.at(&replica.url);
    let mut socket = Socket::open(&there).await;
    let mut stranger = Socket::open(&app.user().at(&replica.url)).await;
    socket.settle().await;
    stranger.settle().await;
    let path = format!("/api/chat/conversations/{id}/events");
    let stream = EventStream::open(&there, &path, None).await;
    let sent = user.say(&id, "waits").await;
    let deleted = user.delete(&format!("/api/chat/conversations/{id}")).await;
    assert_eq!(deleted.status, 204);
    // The stream ends by itself, and what it ends with says why.
    let events = stream.rest().await;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].clone()).collect();
    assert_eq!(
        kinds,
        [
            "generation.queued",
            "generation.cancelled",
            "conversation.updated"
        ]
    );
    let gone = &events[2]["data"]["conversation"];
    assert_eq!(
        (&gone["id"], &gone["status"]),
        (&json!(id), &json!("deleted"))
    );
    assert_eq!(socket.through("conversation.updated").await, events);
    assert_eq!(
        user.get(&path).await.problem(),
        "404 conversation_not_found"
    );
    // Only a deletion that happens is told.
    let again = user.delete(&format!("/api/chat/conversations/{id}")).await;
    assert_eq!(again.problem(), "404 conversation_not_found");
    for quiet in [&mut socket, &mut stranger] {
        quiet.say(json!({ "type": "ping" })).await;
        assert_eq!(quiet.next().await["type"], "pong");
    }
    assert_eq!(user.get(&sent.text("/links/self")).await.status, 404);
}

#[tokio::test]
async fn a_live_stream_outlives_redis() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:hold=4]] survive").await;
    let mut stream = EventStream::open(&user, &sent.text("/links/events"), None).await;
    let mut events = stream.through("generation.delta").await;
    app.env.wipe_redis().await;
    app.simulator.release();
    events.extend(stream.rest().await);
    sse::assert_ordered(&events);
    let last = events.last().unwrap();
    assert_eq!(last["type"], "generation.completed");
    assert_eq!(
        last["data"]["assistant_message"]["content"],
        app.simulator.expected_reply("survive").as_str()
    );
}

#[tokio::test]
async fn streams_of_one_user_are_bounded_and_given_back() {
    let app = TestApp::with(&[("MAX_STREAMS_PER_USER", "2")]).await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/events");
    let first = EventStream::open(&user, &path, None).await;
    let _second = EventStream::open(&user, &path, None).await;
    assert_eq!(user.get(&path).await.problem(), "429 too_many_streams");
    drop(first);
    until(async || {
        let response = user.request(http::Method::GET, &path).send().await.unwrap();
        (response.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    // Within the leeway a token still counts; what is left of it is the stream's whole life.
    let claims: Value =
        json!({ "sub": user.user, "exp": crate::common::now().unix_timestamp() + 1 });
    let brief = user.with_token(crate::common::token_with(claims));
    let stream = EventStream::open(
        &brief,
        &format!("/api/chat/conversations/{id}/events"),
        None,
    )
    .await;
    assert_eq!(stream.rest().await, Vec::<Value>::new());
}
