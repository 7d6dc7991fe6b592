//! Repeated requests.

use serde_json::{Value, json};

use crate::common::{Answer, Client, TestApp, conversation};

async fn post(client: &Client, path: &str, key: &str, body: Value) -> Answer {
    client
        .post_with(path, &[("idempotency-key", key)], body)
        .await
}

#[tokio::test]
async fn the_same_request_is_answered_alike_and_done_once() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let all = "/api/chat/conversations";
    let body = json!({ "title": "Once" });
    let first = post(&user, all, "create", body.clone()).await;
    let again = post(&user, all, "create", body.clone()).await;
    assert_eq!((again.status, &again.raw), (first.status, &first.raw));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(
        (
            first.header("idempotency-replayed"),
            again.header("idempotency-replayed")
        ),
        ("", "true")
    );
    assert_eq!(app.count("conversations").await, "1");
    assert_eq!(
        post(&user, all, "create", json!({ "title": "Other" }))
            .await
            .problem(),
        "422 idempotency_conflict"
    );
    // Another user's key is another key.
    assert_eq!(
        post(&app.user(), all, "create", body)
            .await
            .header("idempotency-replayed"),
        ""
    );

    let path = format!("{}/messages", first.header("location"));
    let first = post(&user, &path, "send", json!({ "content": "x" })).await;
    let again = post(&user, &path, "send", json!({ "content": "x" })).await;
    assert_eq!((again.status, &again.raw), (202, &first.raw));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(app.count("messages").await, "1");
    // The same key for another path is another request.
    assert_eq!(
        post(&user, all, "send", json!({ "content": "x" }))
            .await
            .problem(),
        "422 validation_failed content"
    );
    assert_eq!(
        post(&user, all, "send", json!({})).await.problem(),
        "422 idempotency_conflict"
    );
}

#[tokio::test]
async fn the_answer_of_a_wait_is_repeated_too() {
    let app = TestApp::new().await;
    let user = app.user();
    let path = format!(
        "/api/chat/conversations/{}/messages",
        conversation(&user).await
    );
    let headers = [("idempotency-key", "waited"), ("prefer", "wait=30")];
    let first = user
        .post_with(&path, &headers, json!({ "content": "hello" }))
        .await;
    assert_eq!(first.status, 200, "{}", first.shown());
    let again = user
        .post_with(&path, &headers, json!({ "content": "hello" }))
        .await;
    assert_eq!((again.status, &again.raw), (200, &first.raw));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let calls = app.simulator.calls_containing("hello");
    assert_eq!(
        calls
            .iter()
            .filter(|call| call.max_tokens.is_none_or(|max| max > 32))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_request_still_running_is_not_done_twice() {
    let app = TestApp::new().await;
    let user = app.user();
    let path = format!(
        "/api/chat/conversations/{}/messages",
        conversation(&user).await
    );
    let headers = [("idempotency-key", "slow"), ("prefer", "wait=30")];
    let body = json!({ "content": "[[sim:hold=2]] hello" });
    let first = user.post_with(&path, &headers, body.clone());
    let second = async {
        // The model was called, so the first one is committed and waits.
        app.simulator
            .wait_for_call(|call| call.last_user_message.contains("hello"))
            .await;
        let answer = user.post_with(&path, &headers, body.clone()).await;
        app.simulator.release();
        answer
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(second.problem(), "409 idempotency_in_progress");
    assert_eq!(second.header("retry-after"), "1");
    assert_eq!(first.status, 200, "{}", first.shown());
    assert_eq!(user.post_with(&path, &headers, body).await.raw, first.raw);
}

#[tokio::test]
async fn many_at_once_do_the_work_once() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let other = app.another_replica().await;
    let path = format!(
        "/api/chat/conversations/{}/messages",
        conversation(&user).await
    );
    let requests = (0..20).map(|index| {
        let client = if index % 2 == 0 {
            user.clone()
        } else {
            user.at(&other.url)
        };
        let path = path.clone();
        async move { post(&client, &path, "race", json!({ "content": "x" })).await }
    });
    let answers = futures::future::join_all(requests).await;
    let accepted: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 202)
        .collect();
    assert!(!accepted.is_empty());
    for answer in &answers {
        match answer.status {
            202 => assert_eq!(
                answer.text("/user_message/id"),
                accepted[0].text("/user_message/id")
            ),
            _ => assert_eq!(answer.problem(), "409 idempotency_in_progress"),
        }
    }
    assert_eq!(app.count("messages").await, "1");
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    user.patch(
        &format!("/api/chat/conversations/{id}"),
        json!({ "status": "archived" }),
    )
    .await;
    let refused = post(&user, &path, "later", json!({ "content": "x" })).await;
    assert_eq!(refused.problem(), "409 conversation_archived");
    user.patch(
        &format!("/api/chat/conversations/{id}"),
        json!({ "status": "active" }),
    )
    .await;
    assert_eq!(
        post(&user, &path, "later", json!({ "content": "x" }))
            .await
            .status,
        202
    );
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let all = "/api/chat/conversations";
    post(&user, all, "old", json!({ "title": "one" })).await;
    app.env
        .execute("UPDATE chat.idempotency_keys SET created_at = created_at - interval '25 hours'")
        .await;
    let fresh = post(&user, all, "old", json!({ "title": "two" })).await;
    assert_eq!(
        (fresh.status, fresh.header("idempotency-replayed")),
        (201, "")
    );
    assert_eq!(
        post(&user, all, "old", json!({ "title": "two" })).await.raw,
        fresh.raw
    );
}

#[tokio::test]
async fn what_was_deleted_is_in_no_kept_answer_either() {
    let app = TestApp::new().await;
    let user = app.user();
    let create = async || {
        let key = [("idempotency-key", "create")];
        user.post_with("/api/chat/conversations", &key, json!({}))
            .await
    };
    let created = create().await;
    let id = created.text("/id");
    let path = format!("/api/chat/conversations/{id}/messages");
    let kept = conversation(&user).await;
    let kept = format!("/api/chat/conversations/{kept}/messages");
    let say = async |path: &str, key: &str| {
        let headers = [("idempotency-key", key), ("prefer", "wait=30")];
        let body = json!({ "content": "a secret" });
        user.post_with(path, &headers, body).await
    };
    assert_eq!(say(&path, "gone").await.status, 200);
    assert_eq!(say(&kept, "kept").await.status, 200);
    user.delete(&format!("/api/chat/conversations/{id}")).await;
    let again = say(&path, "gone").await;
    assert_eq!(again.problem(), "404 conversation_not_found");
    let left = "SELECT count(*) FROM chat.idempotency_keys WHERE body LIKE '%a secret%'";
    assert_eq!(app.env.value(left).await.as_deref(), Some("1"));
    // Others are repeated as before, and the creation makes no second conversation.
    assert_eq!(
        say(&kept, "kept").await.header("idempotency-replayed"),
        "true"
    );
    assert_eq!(create().await.text("/id"), id);
}
