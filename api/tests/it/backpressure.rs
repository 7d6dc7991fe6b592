//! A full queue refuses before it accepts.

use serde_json::json;

use crate::common::{Answer, Client, TestApp, conversation, until};

const LIMIT: usize = 5;

async fn send(user: &Client) -> Answer {
    let id = conversation(user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    user.post(&path, json!({ "content": "hello" })).await
}

/// Sends until the queue is full. Returns the refusal and how many were accepted.
async fn fill(user: &Client) -> (Answer, usize) {
    let mut accepted = 0;
    let refusal = until(async || {
        let answer = send(user).await;
        match answer.status {
            202 => {
                accepted += 1;
                None
            }
            _ => Some(answer),
        }
    })
    .await;
    (refusal, accepted)
}

async fn queued(app: &TestApp) -> usize {
    let sql = "SELECT count(*) FROM chat.generations WHERE status = 'queued'";
    app.env.value(sql).await.unwrap().parse().unwrap()
}

async fn refuses_what_is_too_much(settings: &[(&'static str, &str)]) {
    let mut app = TestApp::with(settings).await;
    let user = app.user();
    let (refused, accepted) = fill(&user).await;
    assert_eq!(refused.problem(), "503 overloaded");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    // Nothing of it was stored: every message that was, was acknowledged.
    assert_eq!(queued(&app).await, accepted);
    // One that is committed while the queue is measured may count twice, and never not at all.
    assert!(accepted >= LIMIT - 1, "{accepted}");
    let messages = app.count("messages").await;
    assert_eq!(messages, accepted.to_string());
    // Those who wait elsewhere, or for nothing, are not in the way.
    assert_eq!(send(&app.user().premium()).await.status, 202);
    assert_eq!(user.get("/api/chat/conversations").await.status, 200);
    // A fleet that works takes it all, and there is room again.
    app.start_worker();
    until(async || (send(&user).await.status == 202).then_some(())).await;
}

#[tokio::test]
async fn a_full_queue_refuses_messages_until_there_is_room() {
    refuses_what_is_too_much(&[("MAX_QUEUE_DEPTH", "5")]).await;
}

#[tokio::test]
async fn without_redis_a_full_queue_is_noticed_as_well() {
    let nowhere = ("REDIS_URL", "redis://127.0.0.1:1");
    refuses_what_is_too_much(&[("MAX_QUEUE_DEPTH", "5"), nowhere]).await;
}

/// Once the queues are known, not one too many is accepted by this process.
#[tokio::test]
async fn nothing_is_accepted_beyond_the_bound() {
    let app = TestApp::with(&[("MAX_QUEUE_DEPTH", "5")]).await;
    let user = app.user();
    fill(&user).await;
    app.env
        .execute("UPDATE chat.generations SET status = 'cancelled', finished_at = now()")
        .await;
    until(async || (send(&user).await.status == 202).then_some(())).await;
    let (_, accepted) = fill(&user).await;
    assert!(accepted < LIMIT, "{accepted}");
    for _ in 0..20 {
        assert_eq!(send(&user).await.problem(), "503 overloaded");
    }
    assert!(queued(&app).await <= LIMIT);
}

/// An answer that was given stands, however full the queue is by now.
#[tokio::test]
async fn a_repeated_request_gets_its_answer_from_a_full_queue() {
    let app = TestApp::with(&[("MAX_QUEUE_DEPTH", "5")]).await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    let key = [("idempotency-key", "one")];
    let body = json!({ "content": "hello" });
    let first = user.post_with(&path, &key, body.clone()).await;
    assert_eq!(first.status, 202);
    fill(&user).await;
    let again = user.post_with(&path, &key, body.clone()).await;
    assert_eq!((again.status, again.body), (202, first.body));
    let other = [("idempotency-key", "two")];
    let refused = user.post_with(&path, &other, body.clone()).await;
    assert_eq!(refused.problem(), "503 overloaded");
    // A refusal is no answer to keep, and counts against no limit.
    let remaining = refused.header("ratelimit-remaining");
    assert_eq!(remaining, "");
    app.env
        .execute("UPDATE chat.generations SET status = 'cancelled', finished_at = now()")
        .await;
    until(async || {
        let answer = user.post_with(&path, &other, body.clone()).await;
        (answer.status == 202).then_some(())
    })
    .await;
}

/// Another replica measured for itself.
#[tokio::test]
async fn every_replica_knows() {
    let app = TestApp::with(&[("MAX_QUEUE_DEPTH", "5")]).await;
    let user = app.user();
    fill(&user).await;
    let replica = app.another_replica().await;
    let there = user.at(&replica.url);
    until(async || (send(&there).await.status == 503).then_some(())).await;
    let regenerate = conversation(&user).await;
    let path = format!("/api/chat/conversations/{regenerate}/messages/{regenerate}/regenerate");
    let refused = there.post(&path, json!({})).await;
    assert_eq!(refused.problem(), "503 overloaded");
}
