//! What the contract says of every answer, where it is easily forgotten: early refusals, odd clients, the document.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::{Answer, Client, PATIENCE, TestApp, conversation, fresh_id};

/// What the document says of an answer's status.
fn documented(method: &str, path: &str, answer: &Answer) -> Value {
    let document: Value = serde_json::from_str(api::openapi::text()).unwrap();
    let response = &document["paths"][path][method]["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {path} {}", answer.status);
    response.clone()
}

/// The headers of an answer that are its own affair and not that of every one.
const TELLING: [&str; 11] = [
    "etag",
    "idempotency-replayed",
    "location",
    "preference-applied",
    "ratelimit-limit",
    "ratelimit-policy",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "www-authenticate",
    "x-request-id",
];

fn assert_headers_are_documented(method: &str, path: &str, answer: &Answer) {
    let headers = documented(method, path, answer)["headers"].clone();
    let known: Vec<String> = headers
        .as_object()
        .unwrap()
        .keys()
        .map(|name| name.to_lowercase())
        .collect();
    for name in TELLING {
        let has = answer.headers.contains_key(name);
        assert!(
            !has || known.iter().any(|known| known == name),
            "{method} {path} {}: {name} is not documented",
            answer.status
        );
    }
}

#[tokio::test]
async fn early_refusals_tell_what_is_left_of_the_limit() {
    let app = TestApp::with(&[
        ("RATE_LIMIT_MESSAGES_PER_HOUR", "50"),
        ("RATE_LIMIT_CONVERSATIONS_PER_DAY", "20"),
    ])
    .await;
    let user = app.user();
    let id = conversation(&user).await;
    let fresh = fresh_id();
    for (route, path, policy, left) in [
        (
            "/api/chat/conversations",
            "/api/chat/conversations".to_owned(),
            "20;w=86400",
            "19",
        ),
        (
            "/api/chat/conversations/from-assessment",
            "/api/chat/conversations/from-assessment".to_owned(),
            "20;w=86400",
            "19",
        ),
        (
            "/api/chat/assessment/{assessment_id}/initialize",
            format!("/api/chat/assessment/{fresh}/initialize"),
            "20;w=86400",
            "19",
        ),
        (
            "/api/chat/conversations/{conversation_id}/messages",
            format!("/api/chat/conversations/{id}/messages"),
            "50;w=3600",
            "50",
        ),
        (
            "/api/chat/conversations/{conversation_id}/messages/{message_id}/regenerate",
            format!("/api/chat/conversations/{id}/messages/{fresh}/regenerate"),
            "50;w=3600",
            "50",
        ),
        (
            "/api/chat/support/chat",
            "/api/chat/support/chat".to_owned(),
            "50;w=3600",
            "50",
        ),
    ] {
        let post = || user.request(Method::POST, &path);
        let json =
            |text: &'static str| post().header("content-type", "application/json").body(text);
        let refused = [
            (post().header("content-type", "text/plain").body("{}"), 415),
            (json("{"), 400),
            (json(r#"{"surprise": 1}"#), 422),
            (json("{}").header("idempotency-key", "a b"), 422),
            (
                user.request(Method::POST, &format!("{path}?surprise=1")),
                422,
            ),
        ];
        for (request, status) in refused {
            let answer = user.send(request).await;
            assert_eq!(answer.status, status, "{route}: {}", answer.shown());
            let told = ["ratelimit-policy", "ratelimit-remaining"].map(|name| answer.header(name));
            assert_eq!(told, [policy, left], "{route} {status}");
            assert_headers_are_documented("post", route, &answer);
        }
        // Who is not known has the limit of an address, once.
        let anonymous = user.anonymous().post(&path, json!({})).await;
        assert_eq!(anonymous.problem(), "401 unauthenticated");
        assert!(anonymous.header("ratelimit-policy").ends_with(";w=60"));
        let policies = anonymous.headers.get_all("ratelimit-policy").iter();
        assert_eq!(policies.count(), 1);
        assert_headers_are_documented("post", route, &anonymous);
    }
    // What is not limited says nothing of limits.
    let other = user.get("/api/chat/generations?surprise=1").await;
    assert_eq!((other.status, other.header("ratelimit-policy")), (422, ""));
}

#[tokio::test]
async fn answers_have_the_headers_of_the_document() {
    let app = TestApp::new().await;
    let user = app.user();
    let (all, one) = (
        "/api/chat/conversations",
        "/api/chat/conversations/{conversation_id}",
    );
    let key = [("idempotency-key", "k"), ("prefer", "wait=30")];
    let created = user.post_with(all, &key, json!({ "title": "mine" })).await;
    let replayed = user.post_with(all, &key, json!({ "title": "mine" })).await;
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    for answer in [&created, &replayed] {
        assert_eq!(answer.status, 201);
        assert_headers_are_documented("post", all, answer);
    }
    let path = format!("{all}/{}", created.text("/id"));
    let read = user.get(&path).await;
    assert_ne!(read.header("etag"), "");
    assert_headers_are_documented("get", one, &read);
    let messages = format!("{path}/messages");
    let route = "/api/chat/conversations/{conversation_id}/messages";
    let ask = json!({ "content": "x" });
    let waited = user.post_with(&messages, &key[1..], ask.clone()).await;
    assert_eq!(waited.header("preference-applied"), "wait=30");
    let accepted = user.post(&messages, ask.clone()).await;
    let again = user.post_with(&messages, &key[..1], ask).await;
    let other = user
        .post_with(&messages, &key[..1], json!({ "content": "y" }))
        .await;
    for (answer, status) in [
        (&waited, 200),
        (&accepted, 202),
        (&again, 422),
        (&other, 422),
    ] {
        assert_eq!(answer.status, status, "{}", answer.shown());
        assert_headers_are_documented("post", route, answer);
    }
    user.ended(&accepted.text("/generation/id")).await;
}

#[tokio::test]
async fn money_is_a_decimal_in_the_document() {
    let document: Value = serde_json::from_str(api::openapi::text()).unwrap();
    let mut amounts = 0;
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        for (field, described) in schema["properties"].as_object().into_iter().flatten() {
            let text = described["description"].as_str().unwrap_or_default();
            let is_money = text.to_lowercase().contains("credits") || field.contains("cost");
            let is_number = described["type"].to_string().contains("number");
            if is_money && is_number {
                amounts += 1;
                assert_eq!(described["format"], "decimal", "{name}.{field}");
            }
        }
    }
    assert!(amounts >= 8, "{amounts}");
}

#[tokio::test]
async fn only_a_preflight_of_a_known_path_is_answered_as_one() {
    let app = TestApp::with(&[("CORS_ALLOWED_ORIGINS", "https://app.example.org")]).await;
    let user = app.user().anonymous();
    let options = async |path: &str, preflight: bool| {
        let request = user.request(Method::OPTIONS, path);
        let request = match preflight {
            true => request
                .header("origin", "https://app.example.org")
                .header("access-control-request-method", "POST"),
            false => request,
        };
        user.send(request).await
    };
    for preflight in [true, false] {
        let unknown = options("/api/chat/nowhere", preflight).await;
        assert_eq!(unknown.problem(), "404 route_not_found");
    }
    let known = options("/api/chat/conversations", false).await;
    assert_eq!(known.problem(), "405 method_not_allowed");
    assert_eq!(known.header("allow"), "POST,GET,HEAD");
    let preflight = options("/api/chat/conversations", true).await;
    assert_eq!(preflight.status, 200);
    let allowed = preflight.header("access-control-allow-methods");
    assert!(allowed.contains("POST"), "{allowed}");
}

/// What is answered to a client that says it will send no more, and listens.
async fn half_closed(client: &Client, request: &str) -> String {
    let address = client.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the server closes")
        .expect("and does not reset");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn who_closes_their_half_after_the_request_gets_the_answer() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let post = |path: &str, headers: &str, body: &str| {
        let token = user.bearer().unwrap();
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             {headers}content-length: {length}\r\n\r\n{body}"
        )
    };
    let request = post("/api/chat/conversations", "", r#"{"title":"x"}"#);
    // Once is enough: a machine that is starved may take longer than such a client is waited for.
    let answer = crate::common::until(async || {
        let answer = half_closed(&user, &request).await;
        (!answer.is_empty()).then_some(answer)
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.ends_with('}'), "{answer}");
    // Whoever leaves a wait looks the same, and is not waited for: the key is free before the wait is over.
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    let headers = "prefer: wait=60\r\nidempotency-key: left\r\n";
    let left = half_closed(&user, &post(&path, headers, r#"{"content":"x"}"#)).await;
    assert_eq!(left, "");
    let again = crate::common::until(async || {
        let key = [("idempotency-key", "left")];
        let again = user.post_with(&path, &key, json!({ "content": "x" })).await;
        (again.status != 409).then_some(again)
    })
    .await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (202, "true")
    );
}

#[tokio::test]
async fn a_large_head_is_explained_by_http2_too() {
    let app = TestApp::without_worker().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    let ask = async |fields: usize| {
        let request = client.get(format!("{}/health/live", app.api.url));
        let large = "x".repeat(4000);
        let request = (0..fields).fold(request, |request, n| {
            request.header(format!("x-{n}"), &large)
        });
        let response = request.send().await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        let status = response.status().as_u16();
        (status, response.text().await.unwrap())
    };
    assert_eq!(ask(7).await.0, 200);
    let (status, body) = ask(9).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["code"]), (431, &json!("headers_too_large")));
    assert_ne!(body["request_id"], "");
    // The connection goes on.
    assert_eq!(ask(1).await.0, 200);
}
