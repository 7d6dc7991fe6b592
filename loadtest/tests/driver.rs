//! The driver against a small double of the API that speaks the contract's part it needs: the
//! question here is whether the driver measures right, not whether the API is fast.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and its tasks end with its runtime"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use http::{HeaderMap, StatusCode};
use jsonwebtoken::{DecodingKey, Validation};
use loadtest::driver::{Arguments, Command, Report, Summary};
use loadtest::simulator::Simulator;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use uuid::Uuid;

const SECRET: &str = "a secret of the driver's own tests";

/// The double: it calls the model for every message and tells the user's sockets.
struct Api {
    simulator: String,
    client: reqwest::Client,
    feeds: Mutex<HashMap<String, broadcast::Sender<String>>>,
    messages: AtomicUsize,
    /// The number of the message before whose answer it stalls, and for how long.
    stall: Option<(usize, Duration)>,
    /// The number of the message from which on it answers 429.
    refuse_from: usize,
    /// Everything is answered one after the other, as by a server with one busy thread.
    turn: tokio::sync::Mutex<()>,
}

impl Api {
    async fn start(simulator: &Simulator, change: impl FnOnce(&mut Api)) -> String {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            rustls::crypto::ring::default_provider()
                .install_default()
                .unwrap()
        });
        let mut api = Self {
            simulator: simulator.base_url(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            feeds: Mutex::default(),
            messages: AtomicUsize::new(0),
            stall: None,
            refuse_from: usize::MAX,
            turn: tokio::sync::Mutex::default(),
        };
        change(&mut api);
        let router = Router::new()
            .route("/api/chat/conversations", post(create))
            .route("/api/chat/conversations/{id}/messages", post(accept))
            .route("/api/chat/ws", get(socket))
            .with_state(Arc::new(api));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        url
    }

    fn feed(&self, user: &str) -> broadcast::Sender<String> {
        let mut feeds = self.feeds.lock().unwrap();
        feeds
            .entry(user.to_owned())
            .or_insert_with(|| broadcast::channel(1_000).0)
            .clone()
    }
}

fn user(headers: &HeaderMap) -> String {
    let token = headers["authorization"]
        .to_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(token, &key, &Validation::default())
        .unwrap()
        .claims;
    assert_eq!(
        (&claims["tier"], &claims["role"]),
        (&json!("free"), &json!("user"))
    );
    claims["sub"].as_str().unwrap().to_owned()
}

async fn create(headers: HeaderMap) -> Response {
    user(&headers);
    (StatusCode::CREATED, Json(json!({"id": Uuid::new_v4()}))).into_response()
}

async fn accept(
    State(api): State<Arc<Api>>,
    Path(conversation): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let user = user(&headers);
    let number = api.messages.fetch_add(1, Ordering::Relaxed);
    if number >= api.refuse_from {
        return (
            StatusCode::TOO_MANY_REQUESTS,
            Json(json!({"code": "rate_limited"})),
        )
            .into_response();
    }
    {
        let _turn = api.turn.lock().await;
        if let Some((_, stall)) = api.stall.filter(|(at, _)| *at == number) {
            tokio::time::sleep(stall).await;
        }
    }
    let generation = Uuid::new_v4().to_string();
    let answer = json!({
        "user_message": {},
        "generation": {"id": generation, "timings": {"queued_at": loadtest::clock::rfc3339(loadtest::clock::unix_micros())}},
    });
    tokio::spawn(async move {
        let feed = api.feed(&user);
        let call = json!({"model": "m", "stream": true, "session_id": conversation, "messages": [{"role": "user", "content": body["content"]}]});
        let url = format!("{}/chat/completions", api.simulator);
        let response = api
            .client
            .post(url)
            .bearer_auth("k")
            .json(&call)
            .send()
            .await
            .unwrap();
        let kind = if response.status() == 200 {
            "generation.completed"
        } else {
            "generation.failed"
        };
        response.bytes().await.unwrap();
        for kind in ["generation.delta", kind] {
            // Nobody may be listening.
            let _ = feed.send(
                json!({"id": "e", "type": kind, "generation_id": generation, "data": {}})
                    .to_string(),
            );
        }
    });
    (StatusCode::ACCEPTED, Json(answer)).into_response()
}

async fn socket(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let mut feed = api.feed(&user(&headers)).subscribe();
    upgrade.on_upgrade(async move |mut socket| {
        while let Ok(event) = feed.recv().await {
            if socket.send(Message::Text(event.into())).await.is_err() {
                break;
            }
        }
    })
}

async fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let Command::Load(scenario) = &arguments.command else {
        anyhow::bail!("not a load");
    };
    loadtest::driver::run(&arguments.common, scenario).await
}

async fn drive(api: &str, simulator: &Simulator, arguments: &[&str]) -> Report {
    let origin = simulator.origin();
    let common = [
        "loadtest",
        "--quiet",
        "--api",
        api,
        "--simulator",
        &origin,
        "--jwt-secret",
        SECRET,
    ];
    let arguments = Arguments::try_parse_from(common.iter().chain(arguments)).unwrap();
    run(&arguments).await.unwrap()
}

fn figure<'a>(report: &'a Report, name: &str) -> &'a str {
    let found = report
        .figures
        .iter()
        .find(|(figure, _)| figure.starts_with(name));
    &found.unwrap_or_else(|| panic!("no {name} in {report}")).1
}

fn latency(report: &Report, name: &str) -> Summary {
    let found = report
        .latencies
        .iter()
        .find(|(latency, _)| latency.starts_with(name));
    found.unwrap_or_else(|| panic!("no {name} in {report}")).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_the_latency_of_everybody_who_would_have_come() {
    let simulator = Simulator::start().await;
    let stall = Duration::from_millis(600);
    let api = Api::start(&simulator, |api| api.stall = Some((100, stall))).await;
    let arguments = [
        "accept",
        "--rate",
        "200",
        "--seconds",
        "2",
        "--arrivals",
        "even",
        "--warm-up",
        "0",
        "--connections",
        "1",
        "--users",
        "5",
    ];
    let report = drive(&api, &simulator, &arguments).await;
    // One request of 400 was slow. But 120 were due while it was, and they waited 300 ms on
    // average: a driver that waits for answers before it sends would report a fast 90th percentile.
    let latency = latency(&report, "POST to 202");
    assert_eq!(latency.count, 400);
    assert!(latency.p90 >= 300.0 && latency.max >= 590.0, "{report}");
    assert_eq!(
        (figure(&report, "messages accepted"), report.failures.len()),
        ("400", 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_follows_every_message_to_its_reply() {
    let simulator = Simulator::start().await;
    let api = Api::start(&simulator, |_| {}).await;
    let marker = "ttft=40,rate=200,tokens=9";
    let arguments = [
        "chat",
        "--rate",
        "50",
        "--seconds",
        "2",
        "--warm-up",
        "0",
        "--users",
        "7",
        "--marker",
        marker,
    ];
    let report = drive(&api, &simulator, &arguments).await;
    let sent = figure(&report, "messages sent").to_owned();
    assert!(sent.parse::<u32>().unwrap() > 50, "{report}");
    assert_eq!(figure(&report, "replies completed"), sent, "{report}");
    assert_eq!(figure(&report, "replies that did not end"), "0");
    assert_eq!(
        figure(&report, "messages the model was called for more"),
        "0"
    );
    assert_eq!(
        figure(&report, "the model's own time"),
        "80 ms (ttft=40,rate=200,tokens=9)"
    );
    let whole = latency(&report, "POST to terminal push");
    let overhead = latency(&report, "the same minus the model's own time");
    // The quantiles of a difference with a constant differ by it (to the histogram's precision).
    assert!(
        whole.p50 >= 80.0 && (whole.p50 - overhead.p50 - 80.0).abs() < 0.5,
        "{report}"
    );
    assert_eq!(
        latency(&report, "`queued_at` to model call")
            .count
            .to_string(),
        sent
    );
    assert_eq!(simulator.calls().len().to_string(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_loop_waits_for_each_reply() {
    let simulator = Simulator::start().await;
    let api = Api::start(&simulator, |_| {}).await;
    let arguments = [
        "chat",
        "--closed",
        "3",
        "--seconds",
        "1",
        "--warm-up",
        "0",
        "--most",
        "40",
        "--marker",
        "ttft=10,tokens=3",
    ];
    let report = drive(&api, &simulator, &arguments).await;
    assert_eq!(
        figure(&report, "replies completed"),
        figure(&report, "messages accepted"),
        "{report}"
    );
    assert!(simulator.stats().in_flight_max <= 3, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_counted_and_explained() {
    let simulator = Simulator::start().await;
    let api = Api::start(&simulator, |api| api.refuse_from = 10).await;
    let arguments = [
        "chat",
        "--rate",
        "100",
        "--seconds",
        "1",
        "--arrivals",
        "even",
        "--warm-up",
        "0",
        "--users",
        "3",
        "--marker",
        "503,tokens=3",
    ];
    let report = drive(&api, &simulator, &arguments).await;
    assert_eq!(report.failures["POST: 429 rate_limited"], 90);
    assert_eq!(report.failures["generation.failed"], 10);
    assert!(
        report.to_string().contains("RATE_LIMIT_MESSAGES_PER_HOUR"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_read_while_it_is_used() {
    let simulator = Simulator::start().await;
    let api = Api::start(&simulator, |_| {}).await;
    let pid = std::process::id().to_string();
    let arguments = [
        "sockets",
        "--count",
        "40",
        "--rate",
        "400",
        "--seconds",
        "1",
        "--pid",
        &pid,
    ];
    let report = drive(&api, &simulator, &arguments).await;
    assert!(
        figure(&report, "WebSockets opened").starts_with("40 in "),
        "{report}"
    );
    assert_eq!(figure(&report, "WebSockets still open"), "40");
    assert!(figure(&report, "API's RSS when all were open").ends_with(" MB"));

    let arguments = [
        "inflight", "--count", "30", "--rate", "300", "--pid", &pid, "--marker", "hang=2",
        "--hold", "0",
    ];
    let report = drive(&api, &simulator, &arguments).await;
    assert_eq!(
        figure(&report, "most generations in flight"),
        "30",
        "{report}"
    );
    assert_eq!(simulator.stats().calls, 30);
}

#[tokio::test]
async fn the_simulator_is_measured_too() {
    let simulator = Simulator::start().await;
    let arguments = [
        "streams",
        "--count",
        "50",
        "--rate",
        "500",
        "--marker",
        "ttft=500,rate=100,tokens=9",
    ];
    let report = drive("http://127.0.0.1:1", &simulator, &arguments).await;
    assert_eq!(figure(&report, "streams complete"), "50", "{report}");
}

#[tokio::test]
async fn other_machines_are_left_alone() {
    let arguments = [
        "loadtest",
        "--api",
        "http://192.0.2.1:8080",
        "--jwt-secret",
        SECRET,
        "--quiet",
        "accept",
        "--seconds",
        "1",
    ];
    let error = run(&Arguments::try_parse_from(arguments).unwrap())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("--allow-remote"), "{error}");
}
