//! A deploy loses nothing.

use serde_json::json;

use crate::common::{EventStream, TestApp, conversation, until};

#[tokio::test]
async fn requests_in_flight_finish_and_new_ones_go_elsewhere() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    let waiting = user.post_with(
        &path,
        &[("prefer", "wait=30")],
        json!({ "content": "[[sim:hold=2]] hello" }),
    );
    let stopping = async {
        app.simulator
            .wait_for_call(|call| call.last_user_message.contains("hello"))
            .await;
        app.api.lifecycle.stop();
    };
    let (answer, ()) = tokio::join!(waiting, stopping);
    // Accepted, committed, and told so; another replica has the rest.
    assert_eq!(answer.status, 202, "{}", answer.shown());
    until(async || {
        user.request(http::Method::GET, "/health/live")
            .send()
            .await
            .is_err()
            .then_some(())
    })
    .await;
    app.simulator.release();
    let other = app.another_replica().await;
    let ended = user
        .at(&other.url)
        .ended(&answer.text("/generation/id"))
        .await;
    assert_eq!(ended.text("/status"), "completed");
    let code = app
        .api
        .lifecycle
        .finished(std::time::Duration::from_secs(30))
        .await;
    assert_eq!(
        format!("{code:?}"),
        format!("{:?}", std::process::ExitCode::SUCCESS)
    );
}

#[tokio::test]
async fn readiness_turns_false_before_the_listener_closes() {
    let app = TestApp::with(&[("SHUTDOWN_DELAY", "60")]).await;
    let user = app.user();
    assert_eq!(user.get("/health/ready").await.status, 200);
    app.api.lifecycle.stop();
    assert_eq!(user.get("/health/ready").await.status, 503);
    assert_eq!(user.get("/health/live").await.status, 200);
    assert_eq!(user.get("/api/chat/conversations").await.status, 200);
    // The second signal does not wait.
    app.api.lifecycle.hurry().cancel();
    until(async || {
        user.request(http::Method::GET, "/health/live")
            .send()
            .await
            .is_err()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_event_stream_ends_and_is_resumed_elsewhere() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:hold=6,tokens=12]] go on").await;
    let path = sent.text("/links/events");
    let mut stream = EventStream::open(&user, &path, None).await;
    let mut events = stream.through("generation.delta").await;
    app.api.lifecycle.stop();
    events.extend(stream.rest().await);
    app.simulator.release();
    let other = app.another_replica().await;
    let after = events.last().unwrap()["id"].as_str().unwrap().to_owned();
    events.extend(
        EventStream::open(&user.at(&other.url), &path, Some(&after))
            .await
            .rest()
            .await,
    );
    crate::common::sse::assert_ordered(&events);
    let last = events.last().unwrap();
    assert_eq!(
        last["data"]["assistant_message"]["content"],
        crate::common::sse::text(&events)
    );
}

#[tokio::test]
async fn a_killed_replica_loses_nothing_it_acknowledged() {
    let mut app = TestApp::without_worker().await;
    let user = app.user();
    let replica = app.another_replica().await;
    let id = conversation(&user).await;
    let sent = user.at(&replica.url).say(&id, "remember me").await;
    replica.kill();
    app.start_worker();
    assert_eq!(
        user.ended(&sent.text("/generation/id"))
            .await
            .text("/status"),
        "completed"
    );
}
