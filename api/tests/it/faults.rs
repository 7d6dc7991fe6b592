//! Servers that go away.

use serde_json::json;

use crate::common::{TestApp, conversation, until};

/// Where nothing listens.
const NOWHERE: &str = "redis://127.0.0.1:1";

#[tokio::test]
async fn without_redis_everything_but_the_push_works() {
    let mut app = TestApp::with(&[("REDIS_URL", NOWHERE)]).await;
    app.start_worker();
    let user = app.user();
    let id = conversation(&user).await;
    let answer = user.ask(&id, "are you there?").await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    assert_eq!(
        answer.text("/assistant_message/content"),
        app.simulator.expected_reply("are you there?")
    );
    // No limit can be counted, so none is claimed.
    assert_eq!(answer.header("ratelimit-limit"), "");
    let sent = user.say(&id, "and a stream?").await;
    let events = crate::common::EventStream::open(&user, &sent.text("/links/events"), None)
        .await
        .rest()
        .await;
    assert_eq!(crate::common::sse::kinds(&events), ["generation.completed"]);
    let sent = user.say(&id, "[[sim:hold]] and a cancel?").await;
    assert_eq!(
        user.post(&sent.text("/links/cancel"), json!({}))
            .await
            .status,
        200
    );
    assert_eq!(
        user.post("/api/chat/ws-ticket", json!({})).await.problem(),
        "503 unavailable"
    );
    assert_eq!(user.get("/health/ready").await.status, 200);
    assert_eq!(user.get("/health").await.status, 503);
}

#[tokio::test]
async fn without_its_database_a_request_is_refused_and_nothing_is_promised() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    app.env.close_database().await;
    let path = format!("/api/chat/conversations/{id}/messages");
    let refused = user.post(&path, json!({ "content": "x" })).await;
    assert_eq!(refused.problem(), "503 unavailable");
    for secret in ["postgres", "sqlx", "connection"] {
        assert!(!refused.raw.contains(secret), "{}", refused.raw);
    }
    app.env.open_database().await;
    until(async || (user.get(&path).await.status == 200).then_some(())).await;
    assert_eq!(app.count("messages").await, "0");
}

#[tokio::test]
async fn an_unexpected_fault_tells_the_caller_only_its_request_id() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    app.env
        .execute("REVOKE SELECT ON chat.conversations FROM balas_api")
        .await;
    let answer = user.get("/api/chat/conversations").await;
    assert_eq!(answer.problem(), "500 internal");
    assert!(
        !answer.raw.contains("permission") && !answer.raw.contains("conversations"),
        "{}",
        answer.raw
    );
}
