//! SIGTERM to a replica that is a process of its own.

use nix::sys::signal::Signal;
use serde_json::json;
use shared::testing::Session;

use crate::common::{Client, EventStream, Process, Socket, TestApp, conversation, sse, until};

/// Whoever waited for it would hang.
const LONG: &str = "3600";

#[tokio::test]
async fn everybody_who_waits_is_told_at_once_and_goes_on_elsewhere() {
    let mut app = TestApp::without_worker().await;
    let replica = app.process(&[("SHUTDOWN_GRACE", LONG)]);
    let user = app.user();
    let here = user.at(&replica.url);
    let id = conversation(&user).await;
    let sent = here.say(&id, "wait for me").await;
    let events = sent.text("/links/events");
    let mut stream = EventStream::open(&here, &events, None).await;
    let first = stream.through("generation.queued").await;
    let mut socket = Socket::open(&here).await;
    socket.settle().await;
    // Somebody else, because whose events a replica listens to is known to Redis.
    let patient = app.user();
    let asked = patient
        .say(&conversation(&patient).await, "and for me")
        .await;
    let poll = format!("{}?wait=60", asked.text("/links/self"));
    let channel = app.env.redis().key(format_args!("user:{}", patient.user));
    let polls = async || {
        let mut listeners = redis::cmd("PUBSUB");
        listeners.arg("NUMSUB").arg(&channel);
        let counts: (String, i64) = app.env.redis().command(&listeners).await.ok()?;
        (counts.1 > 0).then_some(())
    };
    let other = conversation(&user).await;
    let post = format!("/api/chat/conversations/{other}/messages");
    let polling = patient.at(&replica.url);
    let wait = [("prefer", "wait=60")];
    let (polled, posted, seen, code) = tokio::join!(
        polling.get(&poll),
        here.post_with(&post, &wait, json!({ "content": "and me" })),
        stream.rest(),
        async {
            // Committed, and so waiting.
            until(async || (app.count("generations").await == "3").then_some(())).await;
            until(polls).await;
            replica.signal(Signal::SIGTERM);
            socket.close_code().await
        },
    );
    assert_eq!((polled.status, &*polled.text("/status")), (200, "queued"));
    assert_eq!(posted.status, 202, "{}", posted.shown());
    assert_eq!((seen.len(), code), (0, 1012));
    drop(socket);
    assert_eq!(replica.ended().await, Some(0));
    // Another replica goes on after the last event.
    app.start_worker();
    let last = first.last().unwrap()["id"].as_str().unwrap();
    let rest = EventStream::open(&user, &events, Some(last))
        .await
        .rest()
        .await;
    assert_eq!(sse::kinds(&rest).last(), Some(&"generation.completed"));
    for (whose, sent) in [(&user, sent), (&user, posted), (&patient, asked)] {
        let ended = whose.ended(&sent.text("/generation/id")).await;
        assert_eq!(ended.text("/status"), "completed");
    }
}

#[tokio::test]
async fn the_second_signal_waits_for_nobody() {
    let app = TestApp::without_worker().await;
    let replica = app.process(&[("SHUTDOWN_DELAY", LONG), ("SHUTDOWN_GRACE", LONG)]);
    let here = app.user().at(&replica.url);
    let stuck = Stuck::new(&app, &here).await;
    let stopping = async {
        somebody_waits(&app).await;
        replica.signal(Signal::SIGTERM);
        until(async || (here.get("/health/ready").await.status == 503).then_some(())).await;
        // Whoever comes meanwhile is served, and asked to come to another replica the next time.
        let served = here.get("/api/chat/conversations").await;
        assert_eq!((served.status, served.header("connection")), (200, "close"));
        replica.signal(Signal::SIGTERM);
        assert_eq!(replica.ended().await, Some(0));
    };
    let (answer, ()) = tokio::join!(stuck.request.send(), stopping);
    assert!(answer.is_err());
}

#[tokio::test]
async fn a_request_that_outlasts_the_grace_is_cut_off_and_the_exit_code_says_so() {
    let app = TestApp::without_worker().await;
    let settings = [("SHUTDOWN_GRACE", "0.2"), ("REQUEST_TIMEOUT", LONG)];
    let replica = app.process(&settings);
    let stuck = Stuck::new(&app, &app.user().at(&replica.url)).await;
    let stopping = async {
        somebody_waits(&app).await;
        assert_eq!(stopped(replica).await, Some(75));
    };
    let (answer, ()) = tokio::join!(stuck.request.send(), stopping);
    assert!(answer.is_err());
}

/// A message to a conversation that somebody else has locked.
struct Stuck {
    request: reqwest::RequestBuilder,
    _lock: Session,
}

impl Stuck {
    async fn new(app: &TestApp, client: &Client) -> Self {
        let id = conversation(client).await;
        let mut lock = Session::open(app.env.database_url()).await.unwrap();
        lock.run("BEGIN").await.unwrap();
        lock.run("SELECT FROM chat.conversations FOR UPDATE")
            .await
            .unwrap();
        let path = format!("/api/chat/conversations/{id}/messages");
        let request = client.request(http::Method::POST, &path);
        Self {
            request: request.json(&json!({ "content": "x" })),
            _lock: lock,
        }
    }
}

/// For a lock.
async fn somebody_waits(app: &TestApp) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(async || (app.env.value(waiting).await? == "1").then_some(())).await;
}

#[tokio::test]
async fn without_postgres_it_leaves_in_order() {
    let app = TestApp::without_worker().await;
    let replica = app.process(&[("SHUTDOWN_GRACE", LONG)]);
    let here = app.user().at(&replica.url);
    conversation(&here).await;
    app.env.close_database().await;
    let refused = here.get("/api/chat/conversations").await;
    assert_eq!(refused.problem(), "503 unavailable");
    assert_eq!(stopped(replica).await, Some(0));
    app.env.open_database().await;
}

#[tokio::test]
async fn without_redis_it_leaves_in_order() {
    let app = TestApp::without_worker().await;
    let nowhere = ("REDIS_URL", "redis://127.0.0.1:1");
    let replica = app.process(&[("SHUTDOWN_GRACE", LONG), nowhere]);
    let here = app.user().at(&replica.url);
    let id = conversation(&here).await;
    let sent = here.say(&id, "without Redis").await;
    let stream = EventStream::open(&here, &sent.text("/links/events"), None).await;
    let (_, code) = tokio::join!(stream.rest(), stopped(replica));
    assert_eq!(code, Some(0));
}

async fn stopped(replica: Process) -> Option<i32> {
    replica.signal(Signal::SIGTERM);
    replica.ended().await
}
