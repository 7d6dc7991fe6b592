//! HTTP below the routes.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::common::{PATIENCE, TestApp, conversation};

async fn raw(app: &TestApp, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.api.url.trim_start_matches("http://"))
        .await
        .unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes early may also reset; what it said before that counts.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the server answers");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn garbage_is_refused_and_the_server_goes_on() {
    let app = TestApp::without_worker().await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /api/chat/conversations HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /api/chat/conversations HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n{}",
    ] {
        let answer = raw(&app, garbage).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 505");
        assert!(refused, "{answer}");
    }
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    assert!(raw(&app, huge.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    assert!(raw(&app, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert_eq!(app.user().get("/health/live").await.status, 200);
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
    let mut stream = TcpStream::connect(app.api.url.trim_start_matches("http://"))
        .await
        .unwrap();
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
