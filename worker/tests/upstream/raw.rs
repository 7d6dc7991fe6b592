//! Servers that speak badly, played by a socket that says whatever a test tells it to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::domain::FailureCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use worker::upstream::{ErrorClass, Outcome};

use super::rig::{A, B, Heard, Ran, client, generate};

/// Answers every request with `answer` and closes; returns the base URL and the number of requests.
async fn server(answer: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    tokio::task::spawn(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else {
                return;
            };
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = Vec::new();
            while !complete(&request) {
                if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _ = socket.write_all(&answer).await;
            let _ = socket.shutdown().await;
        }
    });
    (url, requests)
}

/// Whether head and body of a request are there.
fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse::<usize>()
            .ok()
    });
    body.len() >= length.unwrap_or(0)
}

fn http(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn against(answer: Vec<u8>, chain: &[&str]) -> (Ran, usize) {
    let (url, requests) = server(answer).await;
    let ran = generate(&client(&url, &[]), chain, "hello").await;
    (ran, requests.load(Ordering::SeqCst))
}

const SSE: &str = "text/event-stream; charset=utf-8";

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let body = r#"{"id":"cmpl-1","model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"Halo"},
        "finish_reason":"stop"}],"usage":{"prompt_tokens":"3","completion_tokens":2}}"#;
    let (ran, _) = against(http("200 OK", "application/json", body.as_bytes()), &[A]).await;
    let answer = ran.answer();
    assert_eq!(
        (answer.text.as_str(), answer.model_served.as_str()),
        ("Halo", "served")
    );
    assert_eq!(answer.usage.as_ref().unwrap().total_tokens, 5);
    assert_eq!(ran.listener.heard[1], Heard::Accepted("cmpl-1".to_owned()));
    assert_eq!(ran.listener.shown(), "Halo");
}

#[tokio::test]
async fn an_error_in_a_200_body_is_an_error() {
    for (body, calls, class) in [
        (
            r#"{"error":{"code":502,"message":"bad"}}"#,
            2,
            ErrorClass::ServerError,
        ),
        (
            r#"{"error":{"code":403,"metadata":{"error_type":"content_policy_violation"}}}"#,
            1,
            ErrorClass::ContentPolicy,
        ),
        (
            r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error","error":{"code":404}}]}"#,
            1,
            ErrorClass::NoEndpoint,
        ),
        (
            r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}"#,
            2,
            ErrorClass::ServerError,
        ),
        (
            r#"{"choices":[{"message":{"content":"half"}}]}"#,
            2,
            ErrorClass::Connection,
        ),
        (r#"{"choices":[]}"#, 2, ErrorClass::Connection),
        ("<html>", 2, ErrorClass::Malformed),
        ("", 2, ErrorClass::Malformed),
    ] {
        let (ran, requests) =
            against(http("200 OK", "application/json", body.as_bytes()), &[A]).await;
        assert_eq!(requests, calls, "{body}");
        assert_eq!(ran.listener.records[0].error, Some(class), "{body}");
    }
}

#[tokio::test]
async fn an_error_status_needs_no_json() {
    for (status, body, class) in [
        (
            "502 Bad Gateway",
            "<html>cloud</html>",
            ErrorClass::ServerError,
        ),
        ("524 A Timeout", "", ErrorClass::ServerError),
        (
            "401 Unauthorized",
            r#"{"detail":"who are you"}"#,
            ErrorClass::KeyRefused,
        ),
        (
            "404 Not Found",
            r#"{"error":"model 'x' not found"}"#,
            ErrorClass::NoEndpoint,
        ),
        (
            "400 Bad Request",
            r#"{"object":"error","message":"maximum context length is 10","code":400}"#,
            ErrorClass::ContextLength,
        ),
        ("302 Found", "", ErrorClass::Malformed),
        ("204 No Content", "", ErrorClass::Malformed),
    ] {
        let (ran, _) = against(http(status, "text/html", body.as_bytes()), &[A]).await;
        assert_eq!(
            ran.listener.records[0].error,
            Some(class),
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn the_wait_may_be_a_header_only() {
    let answer =
        b"HTTP/1.1 503 Busy\r\nretry-after: 30\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (ran, requests) = against(answer.to_vec(), &[A, B]).await;
    assert_eq!((requests, ran.end().as_str()), (2, "put back 30"));
    let answer = b"HTTP/1.1 429 Slow\r\nX-RateLimit-Reset: 42\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let (ran, requests) = against(answer.to_vec(), &[A, B]).await;
    assert_eq!((requests, ran.end().as_str()), (1, "put back 40"));
}

#[tokio::test]
async fn streams_that_are_none_are_noticed() {
    let endless_event = [b"data: ".as_slice(), &vec![b'x'; 3 * 1024 * 1024]].concat();
    let endless_body = vec![b' '; 3 * 1024 * 1024];
    for (name, kind, body) in [
        ("an event too long", SSE, endless_event),
        ("a body too long", "application/json", endless_body),
        (
            "no UTF-8",
            SSE,
            b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec(),
        ),
    ] {
        let (ran, requests) = against(http("200 OK", kind, &body), &[A]).await;
        assert_eq!(requests, 2, "{name}");
        assert_eq!(
            ran.listener.records[0].error,
            Some(ErrorClass::Malformed),
            "{name}: {:?}",
            ran.outcome
        );
    }
    let html = http("200 OK", SSE, b"<html>\n<body>hello</body>\n\n");
    let (ran, _) = against(html, &[A]).await;
    assert_eq!(
        ran.listener.records[0].error,
        Some(ErrorClass::Connection),
        "no event at all is an early end"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_after_its_end_is_a_reply() {
    let body =
        b"data: {\"choices\":[{\"delta\":{\"content\":\"whole\"},\"finish_reason\":\"stop\"}]}\n\n";
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99999\r\n\r\n";
    let (ran, requests) = against([head.as_bytes(), body].concat(), &[A]).await;
    assert_eq!((requests, ran.answer().text.as_str()), (1, "whole"));
    assert!(ran.answer().usage.is_none(), "unknown, and not zero");
}

#[tokio::test]
async fn an_empty_chain_is_our_own_fault() {
    let (ran, requests) = against(Vec::new(), &[]).await;
    assert_eq!(requests, 0);
    assert!(matches!(
        ran.outcome,
        Outcome::Failed {
            code: FailureCode::Internal,
            ..
        }
    ));
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/v1/", listener.local_addr().unwrap());
    let mut vars = shared::config::Vars::from_map([
        ("OPENROUTER_BASE_URL", url.as_str()),
        ("OPENROUTER_REFERER", "https://balas.example"),
        ("OPENROUTER_TITLE", "Balas"),
    ]);
    let config = worker::upstream::UpstreamConfig::from_vars(&mut vars);
    vars.finish().unwrap();
    let client = worker::upstream::Client::new(config, shared::clock::Clock::system()).unwrap();
    let seen = tokio::task::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !complete(&request) {
            socket.read_buf(&mut request).await.unwrap();
        }
        let _ = socket
            .write_all(&http("400 Bad Request", "application/json", b"{}"))
            .await;
        String::from_utf8(request).unwrap().to_ascii_lowercase()
    });
    let mut listener = super::rig::Listener {
        keyless: true,
        ..Default::default()
    };
    worker::upstream::run(
        &client,
        &super::rig::models(&[A]),
        &super::rig::call("x"),
        &worker::upstream::Unlimited,
        &mut listener,
    )
    .await;
    let request = seen.await.unwrap();
    assert!(
        request.starts_with("post /v1/chat/completions http/1.1"),
        "{request}"
    );
    assert!(!request.contains("authorization"), "{request}");
    assert!(
        request.contains("http-referer: https://balas.example"),
        "{request}"
    );
    assert!(request.contains("x-title: balas"), "{request}");
}
