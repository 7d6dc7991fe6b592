//! HTTP below the routes.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::{PATIENCE, TestApp, conversation};

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.api.url.trim_start_matches("http://"))
        .await
        .unwrap()
}

/// What is answered to `bytes`, until the server closes.
async fn raw(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = connect(app).await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the server answers")
        .expect("and does not reset");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A raw request that creates a conversation, up to where its length is declared.
fn create(app: &TestApp) -> String {
    format!(
        "POST /api/chat/conversations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\n",
        app.user().bearer().unwrap()
    )
}

/// Status and code of an answer that must be a problem, whole, and the last one of its connection.
fn problem(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    let header = |name: &str| {
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {head}"))
    };
    let status: u16 = head[9..12].parse().expect(head);
    assert_eq!(header("content-type"), "application/problem+json");
    assert_eq!(header("connection"), "close");
    assert_eq!(header("content-length"), body.len().to_string());
    let body: serde_json::Value = serde_json::from_str(body).expect(body);
    assert_eq!(body["status"], status);
    assert_eq!(body["request_id"], header("x-request-id"));
    let code = body["code"].as_str().unwrap();
    assert_eq!(body["type"], format!("urn:balas:problem:{code}"));
    format!("{status} {code}")
}

#[tokio::test]
async fn garbage_is_explained_and_the_server_goes_on() {
    let app = TestApp::without_worker().await;
    let create = create(&app);
    let large = "x".repeat(100_000);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for (bytes, expected) in [
        // The beginning of a TLS handshake.
        (
            "\x16\x03\x01\x02\x00\x01\x00\x01\x03\x03",
            "400 malformed_request",
        ),
        ("GET\r\n\r\n", "400 malformed_request"),
        ("GET / HTTP/9.9\r\n\r\n", "400 malformed_request"),
        (
            "GET / with spaces HTTP/1.1\r\n\r\n",
            "400 malformed_request",
        ),
        ("\0\0\0\0\r\n\r\n", "400 malformed_request"),
        (
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "400 malformed_request",
        ),
        (
            "GET / HTTP/1.1\r\nx-nul: a\0b\r\n\r\n",
            "400 malformed_request",
        ),
        (
            "GET / HTTP/1.1\r\nx-folded: a\r\n b\r\n\r\n",
            "400 malformed_request",
        ),
        // Not quite the preface of HTTP/2.
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "400 malformed_request"),
        (
            &format!("{create}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
            "400 malformed_request",
        ),
        (
            &format!("{create}content-length: -1\r\n\r\n{{}}"),
            "400 malformed_request",
        ),
        (
            &format!("{create}transfer-encoding: gzip\r\n\r\n{{}}"),
            "400 malformed_request",
        ),
        (
            &format!("GET / HTTP/1.1\r\nx-large: {large}\r\n\r\n"),
            "431 headers_too_large",
        ),
        (
            &format!("GET / HTTP/1.1\r\n{many}\r\n"),
            "431 headers_too_large",
        ),
        (
            &format!("GET /{large} HTTP/1.1\r\nhost: x\r\n\r\n"),
            "431 headers_too_large",
        ),
    ] {
        let answer = raw(&app, bytes.as_bytes()).await;
        let shown = &bytes[..bytes.len().min(200)];
        assert_eq!(
            problem(&answer),
            expected,
            "{shown:?} was answered {answer:?}"
        );
    }
    assert_eq!(app.count("conversations").await, "0");
    assert_eq!(app.user().get("/health/live").await.status, 200);
}

#[tokio::test]
async fn garbage_behind_a_good_request_does_not_spoil_its_answer() {
    let app = TestApp::without_worker().await;
    let answer = raw(
        &app,
        b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\nGARBAGE\r\n\r\n",
    )
    .await;
    let (good, refusal) = answer.split_at(answer.rfind("HTTP/1.1").unwrap());
    assert!(good.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(problem(refusal), "400 malformed_request");
}

#[tokio::test]
async fn broken_chunks_store_nothing_and_a_length_beside_chunks_smuggles_nothing() {
    let app = TestApp::without_worker().await;
    let broken = format!(
        "{}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n",
        create(&app)
    );
    let answer = raw(&app, broken.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("malformed_request"),
        "{answer}"
    );
    assert_eq!(app.count("conversations").await, "0");
    let head = create(&app);
    let smuggled = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let request = format!(
        "{head}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n\
         c\r\n{{\"title\":\"x\"\r\n1\r\n}}\r\n0\r\n\r\n{smuggled}"
    );
    let answer = raw(&app, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn half_a_request_stores_nothing() {
    let app = TestApp::without_worker().await;
    let create = create(&app);
    let whole = format!("{create}content-length: 13\r\n\r\n{{\"title\":\"x\"}}");
    for end in [1, 40, create.len(), whole.len() - 5, whole.len() - 1] {
        let mut stream = connect(&app).await;
        stream.write_all(&whole.as_bytes()[..end]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("the server closes");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{end}: {answer}"
        );
    }
    assert_eq!(app.count("conversations").await, "0");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_and_while_it_is_read() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let path = format!(
        "/api/chat/conversations/{}/messages",
        conversation(&user).await
    );
    let body = format!(r#"{{"content":"{}"}}"#, "x".repeat(11 * 1024 * 1024));
    let post = || {
        user.request(http::Method::POST, &path)
            .header("content-type", "application/json")
    };
    assert_eq!(
        user.send(post().body(body.clone())).await.problem(),
        "413 body_too_large"
    );
    // In chunks, so that no length is declared.
    let pieces: Vec<_> = body
        .into_bytes()
        .chunks(64 * 1024)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect();
    let stream = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    assert_eq!(
        user.send(post().body(stream)).await.problem(),
        "413 body_too_large"
    );
    assert_eq!(app.count("messages").await, "0");
}

#[tokio::test]
async fn http2_without_tls_is_spoken_too() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let requests = (0..20).map(|_| {
        let request = client.get(format!("{}/api/chat/conversations/{id}", user.url));
        request
            .header(
                "authorization",
                format!("Bearer {}", user.bearer().unwrap()),
            )
            .send()
    });
    for response in futures::future::join_all(requests).await {
        let response = response.unwrap();
        assert_eq!(
            (response.version(), response.status().as_u16()),
            (http::Version::HTTP_2, 200)
        );
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let app = TestApp::with(&[("REQUEST_TIMEOUT", "0.3")]).await;
    let user = app.user();
    let id = conversation(&user).await;
    // A wait is not taken for slowness.
    let path = format!("/api/chat/conversations/{id}/messages");
    let sent = user
        .post_with(
            &path,
            &[("prefer", "wait=1")],
            serde_json::json!({ "content": "x" }),
        )
        .await;
    assert_eq!(sent.status, 202);
    let mut stream = connect(&app).await;
    let head = format!(
        "POST /api/chat/conversations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        user.bearer().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_undo_what_was_committed() {
    let mut app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let client = reqwest::Client::builder()
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let request = client
        .post(format!("{}/api/chat/conversations/{id}/messages", user.url))
        .header(
            "authorization",
            format!("Bearer {}", user.bearer().unwrap()),
        )
        .header("prefer", "wait=30")
        .json(&serde_json::json!({ "content": "bye" }));
    assert!(request.send().await.is_err());
    app.start_worker();
    let list = user.get("/api/chat/generations").await;
    let ended = user.ended(&list.text("/generations/0/id")).await;
    assert_eq!(ended.text("/status"), "completed");
}
