//! What a replica says in its log, and what it never says.

use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::{JWT_SECRET, SERVICE_KEY, TestApp};

/// It is in everything that a person or an operator keeps to themselves.
const PLANTED: &str = "planted-3f9c1b";

#[tokio::test]
async fn a_request_is_one_line_and_no_secret_is_in_any() {
    let app = TestApp::without_worker().await;
    let broker = format!("amqp://user:{PLANTED}@127.0.0.1:1/");
    let replica = app.process(&[("LOG_LEVEL", "debug"), ("RABBITMQ_URL", &broker)]);
    let user = app.user().at(&replica.url);
    let mut asked = Vec::new();
    let mut note = |answer: &crate::common::Answer| {
        asked.push((answer.header("x-request-id").to_owned(), answer.status));
    };
    let body = json!({ "title": PLANTED, "context_data": { "about": PLANTED }, "metadata": { "x": PLANTED } });
    let created = user.post("/api/chat/conversations", body).await;
    note(&created);
    let path = format!("/api/chat/conversations/{}", created.text("/id"));
    let messages = format!("{path}/messages");
    let key = [("idempotency-key", PLANTED)];
    let body = json!({ "content": format!("my {PLANTED} words") });
    note(&user.post_with(&messages, &key, body).await);
    note(
        &user
            .get(&format!("/api/chat/conversations?q={PLANTED}"))
            .await,
    );
    let odd = user
        .request(Method::POST, &messages)
        .header("content-type", "application/json");
    note(
        &user
            .send(odd.body(format!("{{\"content\": {PLANTED}")))
            .await,
    );
    note(
        &user
            .post(&messages, json!({ "content": "x", "model": PLANTED }))
            .await,
    );
    let stranger = user.with_token(format!("{}.{PLANTED}", user.bearer().unwrap()));
    note(&stranger.get(&path).await);
    let ticket = user.post("/api/chat/ws-ticket", json!({})).await;
    note(&ticket);
    note(&user.service().get("/internal/queues").await);
    let wrong = user.anonymous().request(Method::GET, "/internal/queues");
    note(&user.send(wrong.header("x-service-key", PLANTED)).await);
    assert_eq!(user.get("/health").await.status, 503, "the broker is away");
    let token = user.bearer().unwrap().to_owned();
    drop((user, stranger));
    replica.signal(Signal::SIGTERM);
    let (code, log) = replica.said_until_the_end().await;
    assert_eq!(code, Some(0), "{log}");

    let secrets = [
        PLANTED,
        JWT_SECRET,
        SERVICE_KEY,
        &token,
        &ticket.text("/ticket"),
    ];
    for line in log.lines() {
        for secret in secrets {
            assert!(!line.contains(secret), "{secret} is in {line}");
        }
    }
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    for (id, status) in asked {
        let of_it = |line: &&Value| {
            line["message"] == "answered a request" && line["span"]["request.id"] == id.as_str()
        };
        let told: Vec<&Value> = lines.iter().filter(of_it).collect();
        let [line] = told[..] else {
            panic!("{} lines tell of {id}", told.len());
        };
        assert_eq!(line["http.status"], status, "{line}");
        assert!(line["elapsed_ms"].as_f64().unwrap() > 0.0, "{line}");
        for field in ["trace.id", "http.method", "http.route", "client.ip"] {
            assert!(
                line["span"][field].is_string(),
                "{field} is missing in {line}"
            );
        }
    }
}

#[tokio::test]
async fn people_get_lines_that_they_can_read() {
    let app = TestApp::without_worker().await;
    let replica = app.process(&[("LOG_FORMAT", "pretty")]);
    let user = app.user().at(&replica.url);
    let answer = user.get("/api/chat/conversations").await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    let id = answer.header("x-request-id").to_owned();
    drop(user);
    replica.signal(Signal::SIGTERM);
    let (code, log) = replica.said_until_the_end().await;
    assert_eq!(code, Some(0), "{log}");
    let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
    assert!(!log.lines().any(is_json), "{log}");
    let told = log
        .lines()
        .filter(|line| line.contains("answered a request") && line.contains(&id));
    assert_eq!(told.count(), 1, "{log}");
}
