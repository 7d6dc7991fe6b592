//! WebSockets.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::common::{Socket, TestApp, conversation, fresh_id, now, sse, token_with, until};

#[tokio::test]
async fn a_socket_carries_the_events_of_all_conversations() {
    let app = TestApp::new().await;
    let user = app.user();
    let (one, other) = (conversation(&user).await, conversation(&user).await);
    let mut socket = Socket::open(&user).await;
    for id in [&one, &other] {
        let sent = user.say(id, "Hi there").await;
        let generation = sent.text("/generation/id");
        let frames = socket.completion_of(&generation).await;
        assert_eq!(
            sse::kinds(&frames),
            [
                "generation.queued",
                "generation.in_progress",
                "generation.delta",
                "generation.completed"
            ]
        );
        sse::assert_ordered(&frames);
        assert_eq!(sse::text(&frames), app.simulator.expected_reply("Hi there"));
    }
}

/// Its worker died between the commit and the word, or Redis had no room for it.
#[tokio::test]
async fn an_end_that_nobody_told_of_is_found() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let mut socket = Socket::open(&user).await;
    let generation = user.say(&id, "Hi there").await.text("/generation/id");
    socket.through("generation.queued").await;
    app.env
        .session()
        .await
        .run(&format!(
            "UPDATE chat.generations SET status = 'failed', error_code = 'expired', finished_at = now()
             WHERE id = '{generation}'"
        ))
        .await
        .unwrap();
    let frames = socket.through("generation.failed").await;
    assert_eq!(frames.last().unwrap()["generation_id"], generation);
}

#[tokio::test]
async fn nobody_elses_events_arrive() {
    let app = TestApp::new().await;
    let (user, stranger) = (app.user(), app.user());
    let mut socket = Socket::open(&stranger).await;
    let id = conversation(&user).await;
    let sent = user.ask(&id, "private").await;
    // Not even when they are asked for.
    socket
        .say(json!({ "type": "subscribe", "conversation_id": id }))
        .await;
    socket
        .say(json!({ "type": "resume", "generation_id": sent.text("/generation/id") }))
        .await;
    let refused = socket.next().await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("error"), &json!("generation_not_found"))
    );
    socket.settle().await;
}

#[tokio::test]
async fn a_socket_resumes_what_it_missed_at_another_replica() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let mut first = Socket::open(&user).await;
    let sent = user.say(&id, "[[sim:hold=8,tokens=16]] halves").await;
    let generation = sent.text("/generation/id");
    let mut frames = first.through("generation.delta").await;
    drop(first);
    let other = app.another_replica().await;
    let mut second = Socket::open(&user.at(&other.url)).await;
    let after = frames.last().unwrap()["id"].clone();
    second
        .say(json!({ "type": "resume", "generation_id": generation, "after": after }))
        .await;
    app.simulator.release();
    frames.extend(second.completion_of(&generation).await);
    frames.retain(|frame| frame["generation_id"] == generation.as_str());
    sse::assert_ordered(&frames);
    assert_eq!(
        frames.last().unwrap()["data"]["assistant_message"]["content"],
        sse::text(&frames)
    );
    // Without a point, and after the end: the whole log.
    second
        .say(json!({ "type": "resume", "generation_id": generation }))
        .await;
    let again = second.completion_of(&generation).await;
    assert_eq!(again, frames);
}

#[tokio::test]
async fn a_socket_can_be_narrowed_and_widened() {
    let app = TestApp::new().await;
    let user = app.user();
    let (one, other) = (conversation(&user).await, conversation(&user).await);
    let mut socket = Socket::open(&user).await;
    socket
        .say(json!({ "type": "subscribe", "conversation_id": one }))
        .await;
    socket.settle().await;
    user.ask(&other, "unheard").await;
    user.say(&one, "heard").await;
    let frames = socket.through("generation.completed").await;
    assert!(
        frames
            .iter()
            .all(|frame| frame["conversation_id"] == one.as_str())
    );
    socket
        .say(json!({ "type": "unsubscribe", "conversation_id": one }))
        .await;
    socket.settle().await;
    let again = user.say(&other, "heard again").await;
    socket.completion_of(&again.text("/generation/id")).await;
}

#[tokio::test]
async fn frames_that_make_no_sense_are_answered_and_the_socket_stays() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let mut socket = Socket::open(&user).await;
    let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(100 * 1024));
    for (frame, code) in [
        (Message::text("hello"), "malformed_json"),
        (Message::text(""), "malformed_json"),
        (Message::text("[".repeat(10_000)), "malformed_json"),
        (Message::text("{}"), "validation_failed"),
        (Message::text(r#"["ping"]"#), "validation_failed"),
        (Message::text(r#"{"type":"dance"}"#), "validation_failed"),
        (
            Message::text(r#"{"type":"ping","more":1}"#),
            "validation_failed",
        ),
        (
            Message::text(r#"{"type":"subscribe","conversation_id":"1"}"#),
            "validation_failed",
        ),
        (
            Message::text(r#"{"type":"resume","generation_id":"\u0000"}"#),
            "validation_failed",
        ),
        (
            Message::text(json!({ "type": "resume", "generation_id": fresh_id() }).to_string()),
            "generation_not_found",
        ),
        (
            Message::text(
                json!({ "type": "resume", "generation_id": fresh_id(), "after": "17" }).to_string(),
            ),
            "invalid_cursor",
        ),
        (Message::text(long), "body_too_large"),
        (Message::binary(vec![0, 1, 2]), "unsupported_media_type"),
    ] {
        let shown = format!("{frame:.80?}");
        socket.0.send(frame).await.unwrap();
        let answer = socket.next().await;
        assert_eq!(
            (answer["type"].as_str(), answer["code"].as_str()),
            (Some("error"), Some(code)),
            "{shown}"
        );
    }
    socket.settle().await;
    socket
        .0
        .send(Message::text("x".repeat(300 * 1024)))
        .await
        .unwrap();
    assert_eq!(socket.close_code().await, 1009);
}

#[tokio::test]
async fn a_client_that_closes_is_told_goodbye() {
    let app = TestApp::without_worker().await;
    let mut socket = Socket::open(&app.user()).await;
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "enough".into(),
    };
    socket.0.send(Message::Close(Some(frame))).await.unwrap();
    assert_eq!(socket.close_code().await, 1000);
    assert!(socket.0.next().await.is_none_or(|end| end.is_err()));
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let issued = user.post("/api/chat/ws-ticket", Value::Null).await;
    assert_eq!(issued.status, 200, "{}", issued.shown());
    let browser = user.anonymous();
    let query = format!("?ticket={}", issued.text("/ticket"));
    let other = app.another_replica().await;
    let mut socket = Socket::try_open(&browser.at(&other.url), &query)
        .await
        .unwrap();
    socket.settle().await;
    assert_eq!(Socket::try_open(&browser, &query).await.err(), Some(401));
    assert_eq!(
        Socket::try_open(&browser, "?ticket=guess").await.err(),
        Some(401)
    );
    assert_eq!(Socket::try_open(&browser, "").await.err(), Some(401));
    assert_eq!(Socket::try_open(&user, "?token=x").await.err(), Some(422));
    let kept = app
        .env
        .redis()
        .command::<Vec<String>>(redis::cmd("KEYS").arg("*ticket*"))
        .await
        .unwrap();
    assert!(
        kept.iter()
            .all(|key| !key.contains(&issued.text("/ticket"))),
        "the ticket is kept in the clear"
    );
}

#[tokio::test]
async fn a_path_for_sockets_says_so() {
    let app = TestApp::without_worker().await;
    let answer = app.user().get("/api/chat/ws").await;
    assert_eq!(answer.problem(), "426 upgrade_required");
    assert_eq!(
        (
            answer.header("upgrade"),
            answer.header("sec-websocket-version")
        ),
        ("websocket", "13")
    );
}

#[tokio::test]
async fn a_socket_ends_with_its_token() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let brief = token_with(json!({ "sub": user.user, "exp": now().unix_timestamp() + 1 }));
    let mut socket = Socket::open(&user.with_token(brief)).await;
    assert_eq!(socket.close_code().await, 4401);
}

#[tokio::test]
async fn a_deploy_asks_sockets_to_reconnect() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let mut socket = Socket::open(&user).await;
    socket.settle().await;
    app.api.lifecycle.stop();
    assert_eq!(socket.close_code().await, 1012);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped() {
    let app = TestApp::with(&[("MAX_STREAMS_PER_USER", "1")]).await;
    let user = app.user();
    let id: uuid::Uuid = conversation(&user).await.parse().unwrap();
    let mut socket = Socket::open(&user).await;
    socket.settle().await;
    // More than the kernel's and our own buffers hold.
    let redis = app.env.redis();
    let text = "x".repeat(64 * 1024);
    let generation = shared::id::new(now());
    for seq in 1..1500 {
        let event = shared::domain::Event::of_generation(
            shared::id::EventId {
                generation_id: generation,
                attempt: 1,
                seq,
            },
            shared::domain::EventType::Delta,
            id,
            now(),
            &json!({ "text": text }),
        );
        shared::push::publish(&redis, user.user, &event)
            .await
            .unwrap();
    }
    // The server lets go of it, whether or not the client ever reads: its place is free again.
    until(async || Socket::try_open(&user, "").await.ok().map(drop)).await;
    drop(socket);
}

#[tokio::test]
async fn live_events_survive_a_lost_connection_to_redis() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let mut socket = Socket::open(&user).await;
    let sent = user.say(&id, "[[sim:hold=4,tokens=12]] survive").await;
    let generation = sent.text("/generation/id");
    let mut frames = socket.through("generation.delta").await;
    // Every subscription of this server dies, those of other tests included; each finds its gap.
    let killed = app
        .env
        .redis()
        .command::<i64>(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub"))
        .await;
    assert!(killed.unwrap() > 0);
    app.simulator.release();
    frames.extend(socket.completion_of(&generation).await);
    frames.retain(|frame| frame["generation_id"] == generation.as_str());
    sse::assert_ordered(&frames);
    assert_eq!(
        frames.last().unwrap()["data"]["assistant_message"]["content"],
        sse::text(&frames)
    );
}
