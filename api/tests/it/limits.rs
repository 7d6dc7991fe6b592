//! Rate limits, counted over all replicas.

use serde_json::json;

use crate::common::{TestApp, conversation, forged_token, fresh_id};

#[tokio::test]
async fn messages_are_limited_per_user_over_all_replicas() {
    let app = TestApp::with(&[("RATE_LIMIT_MESSAGES_PER_HOUR", "3")]).await;
    let user = app.user();
    let other = app.another_replica().await;
    let path = format!(
        "/api/chat/conversations/{}/messages",
        conversation(&user).await
    );
    let mut left = Vec::new();
    for index in 0..3 {
        let client = if index % 2 == 0 {
            user.clone()
        } else {
            user.at(&other.url)
        };
        let answer = client.post(&path, json!({ "content": "x" })).await;
        assert_eq!(answer.status, 202);
        left.push(answer.header("ratelimit-remaining").to_owned());
    }
    assert_eq!(left, ["2", "1", "0"]);
    let over = user.post(&path, json!({ "content": "x" })).await;
    assert_eq!(over.problem(), "429 rate_limited");
    assert_eq!(
        (
            over.header("ratelimit-limit"),
            over.header("ratelimit-policy")
        ),
        ("3", "3;w=3600")
    );
    // One of three comes back every twenty minutes.
    let wait: u64 = over.header("retry-after").parse().unwrap();
    assert!((1100..=1200).contains(&wait), "{wait}");
    assert_eq!(app.count("messages").await, "3");
    // Somebody else is not concerned, and neither is reading.
    let stranger = app.user();
    let theirs = format!(
        "/api/chat/conversations/{}/messages",
        conversation(&stranger).await
    );
    assert_eq!(
        stranger
            .post(&theirs, json!({ "content": "x" }))
            .await
            .status,
        202
    );
    assert_eq!(user.get(&path).await.status, 200);
}

#[tokio::test]
async fn a_replayed_request_neither_counts_nor_is_refused() {
    let app = TestApp::with(&[("RATE_LIMIT_MESSAGES_PER_HOUR", "2")]).await;
    let user = app.user();
    let path = format!(
        "/api/chat/conversations/{}/messages",
        conversation(&user).await
    );
    let send = async |key: &str| {
        user.post_with(
            &path,
            &[("idempotency-key", key)],
            json!({ "content": "x" }),
        )
        .await
    };
    for _ in 0..5 {
        assert_eq!(send("one").await.status, 202);
    }
    assert_eq!(send("two").await.status, 202);
    assert_eq!(send("three").await.problem(), "429 rate_limited");
    assert_eq!(send("one").await.status, 202);
}

#[tokio::test]
async fn what_is_left_is_told_by_refusals_and_repetitions_too() {
    let app = TestApp::with(&[("RATE_LIMIT_MESSAGES_PER_HOUR", "200")]).await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    let key = [("idempotency-key", "one")];
    let first = user.post_with(&path, &key, json!({ "content": "x" })).await;
    let again = user.post_with(&path, &key, json!({ "content": "x" })).await;
    let other = user.post_with(&path, &key, json!({ "content": "y" })).await;
    assert_eq!(other.problem(), "422 idempotency_conflict");
    let busy = json!({ "content": "x", "concurrency": "reject" });
    let busy = user.post(&path, busy).await;
    assert_eq!(busy.problem(), "409 conversation_busy");
    let nowhere = format!("/api/chat/conversations/{}/messages", fresh_id());
    let nowhere = user.post(&nowhere, json!({ "content": "x" })).await;
    assert_eq!(nowhere.problem(), "404 conversation_not_found");
    let question = first.text("/user_message/id");
    let again_made = user
        .post(&format!("{path}/{question}/regenerate"), json!({}))
        .await;
    assert_eq!(again_made.problem(), "422 not_regenerable");
    let answers = [first, again, other, busy, nowhere, again_made];
    let left = answers.each_ref().map(|answer| {
        assert_eq!(answer.header("ratelimit-policy"), "200;w=3600");
        answer.header("ratelimit-remaining").to_owned()
    });
    // Repetitions do not count; what was looked at and refused does.
    assert_eq!(left, ["199", "199", "199", "198", "197", "196"]);
    // Limits by address are told as well, by pages and to whoever has no credentials.
    let page = user.anonymous().get("/openapi.json").await;
    let refused = user.anonymous().get("/api/chat/conversations").await;
    assert_eq!((page.status, refused.status), (200, 401));
    for answer in [page, refused] {
        assert!(answer.header("ratelimit-policy").ends_with(";w=60"));
    }
}

#[tokio::test]
async fn conversations_are_limited_per_user() {
    let app = TestApp::with(&[("RATE_LIMIT_CONVERSATIONS_PER_DAY", "1")]).await;
    let user = app.user();
    conversation(&user).await;
    let over = user.post("/api/chat/conversations", json!({})).await;
    assert_eq!(over.problem(), "429 rate_limited");
    assert_eq!(over.header("ratelimit-policy"), "1;w=86400");
}

#[tokio::test]
async fn nobody_makes_us_ask_the_archive_as_often_as_they_like() {
    let services = loadtest::services::Services::start().await.unwrap();
    let url = services.url();
    let app = TestApp::with(&[
        ("RATE_LIMIT_CONVERSATIONS_PER_DAY", "3"),
        ("ARCHIVE_SERVICE_URL", &url),
    ])
    .await;
    let user = app.user();
    let own = conversation(&user).await;
    let unknown = || json!({ "assessment_id": uuid::Uuid::new_v4() });
    let started = "/api/chat/conversations/from-assessment".to_owned();
    let given = format!("/api/chat/conversations/{own}/context/assessment");
    let prepared = format!("/api/chat/assessment/{}/initialize", uuid::Uuid::new_v4());
    for (path, body) in [
        (&started, unknown()),
        (&given, unknown()),
        (&prepared, json!({})),
    ] {
        let answer = user.post(path, body.clone()).await;
        assert_eq!(answer.problem(), "404 assessment_not_found", "{path}");
    }
    for (path, body) in [
        (&started, unknown()),
        (&given, unknown()),
        (&prepared, json!({})),
    ] {
        let over = user.post(path, body).await;
        assert_eq!(over.problem(), "429 rate_limited", "{path}");
        assert_eq!(over.header("ratelimit-policy"), "3;w=86400");
    }
    let asked = services.calls();
    let asked = asked.iter().filter(|path| path.contains("/archive/"));
    assert_eq!(asked.count(), 3);
    let other = app.user().post(&started, unknown()).await;
    assert_eq!(other.problem(), "404 assessment_not_found");
}

#[tokio::test]
async fn guessing_tokens_is_slowed_down_by_address() {
    let app = TestApp::with(&[
        ("RATE_LIMIT_UNAUTHENTICATED_PER_MINUTE", "5"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ])
    .await;
    let user = app.user();
    let forged = user.with_token(forged_token(user.user));
    let guess = async |address: &str| {
        let request = forged.request(http::Method::GET, "/api/chat/conversations");
        forged
            .send(request.header("x-forwarded-for", address))
            .await
            .status
    };
    for _ in 0..5 {
        assert_eq!(guess("198.51.100.1").await, 401);
    }
    assert_eq!(guess("198.51.100.1").await, 429);
    // What the client itself wrote to the left of its address does not make it another one.
    assert_eq!(guess("203.0.113.7, 198.51.100.1").await, 429);
    assert_eq!(guess("198.51.100.2").await, 401);
    // A valid token is not a stranger's.
    let request = user.request(http::Method::GET, "/api/chat/conversations");
    assert_eq!(
        user.send(request.header("x-forwarded-for", "198.51.100.1"))
            .await
            .status,
        200
    );
    // Pages that ask for no token are counted too; probes are not.
    let page = user.anonymous();
    let get = async |path: &str| {
        page.send(
            page.request(http::Method::GET, path)
                .header("x-forwarded-for", "198.51.100.1"),
        )
        .await
        .status
    };
    assert_eq!(get("/").await, 429);
    assert_eq!(get("/health/live").await, 200);
}
