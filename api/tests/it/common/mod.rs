//! One application per test.

mod client;
mod collector;
mod process;
mod replica;
mod scrape;
mod shown;
mod socket;
pub(crate) mod sse;

use std::time::Duration;

use loadtest::simulator::Simulator;
use serde_json::json;
use shared::clock::Clock;
use shared::testing::TestEnv;
use uuid::Uuid;

pub(crate) use client::{Answer, Client, JWT_SECRET, SERVICE_KEY, forged_token, now, token_with};
pub(crate) use collector::{Collector, Span};
pub(crate) use process::Process;
pub(crate) use replica::{Replica, TestWorker};
pub(crate) use scrape::Scrape;
pub(crate) use socket::Socket;
pub(crate) use sse::EventStream;

/// A test that waits longer than this for something has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// The API with all it needs, apart from every other test's.
pub(crate) struct TestApp {
    pub(crate) env: TestEnv,
    pub(crate) simulator: Simulator,
    pub(crate) api: Replica,
    pub(crate) clock: Clock,
    worker: Option<TestWorker>,
    settings: Vec<(&'static str, String)>,
    upstream: Option<tokio::runtime::Runtime>,
}

impl TestApp {
    /// With one worker.
    pub(crate) async fn new() -> Self {
        let mut app = Self::without_worker().await;
        app.start_worker();
        app
    }

    /// Without a worker: what is accepted stays queued.
    pub(crate) async fn without_worker() -> Self {
        Self::with(&[]).await
    }

    /// Without a worker, and with settings of the API's own.
    pub(crate) async fn with(settings: &[(&'static str, &str)]) -> Self {
        let env = TestEnv::new().await;
        // The simulator must answer while a test ends, when its own runtime stands still.
        let upstream = replica::runtime();
        let simulator = upstream.spawn(Simulator::start()).await.unwrap();
        let clock = Clock::system();
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let api = Replica::start(&env, &simulator, &clock, &settings).await;
        Self {
            env,
            simulator,
            api,
            clock,
            worker: None,
            settings,
            upstream: Some(upstream),
        }
    }

    /// Another API process on the same servers.
    pub(crate) async fn another_replica(&self) -> Replica {
        Replica::start(&self.env, &self.simulator, &self.clock, &self.settings).await
    }

    pub(crate) fn start_worker(&mut self) {
        self.start_worker_with(&[]);
    }

    /// With settings of the worker's own.
    pub(crate) fn start_worker_with(&mut self, settings: &[(&'static str, &str)]) {
        let (env, simulator) = (&self.env, &self.simulator);
        let worker = TestWorker::start(env, simulator, &self.clock, &self.settings, settings);
        self.worker = Some(worker);
    }

    /// A client of the first replica, as a new user.
    pub(crate) fn user(&self) -> Client {
        self.api.client(Uuid::new_v4())
    }

    /// How many rows a table holds.
    pub(crate) async fn count(&self, table: &str) -> String {
        self.env
            .value(&format!("SELECT count(*) FROM chat.{table}"))
            .await
            .unwrap_or_default()
    }
}

impl Drop for TestApp {
    /// Where there is a worker, nothing may be left unfinished.
    fn drop(&mut self) {
        if self.worker.is_some() && !std::thread::panicking() {
            let left =
                std::thread::scope(|scope| scope.spawn(|| left_unfinished(&self.env)).join());
            assert_eq!(
                left.unwrap(),
                "0",
                "generations were left unfinished unnoticed"
            );
        }
        if let Some(upstream) = self.upstream.take() {
            upstream.shutdown_background();
        }
    }
}

/// How many generations are unfinished, once there was time to finish them.
fn left_unfinished(env: &TestEnv) -> String {
    let sql = "SELECT count(*) FROM chat.generations WHERE status IN ('queued', 'in_progress')";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = env.value(sql).await.unwrap_or_default();
            if left == "0" || tokio::time::Instant::now() > deadline {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// Polls until there is an answer.
pub(crate) async fn until<T>(mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {PATIENCE:?} in vain"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A conversation of this user, just created.
pub(crate) async fn conversation(client: &Client) -> String {
    let answer = client.post("/api/chat/conversations", json!({})).await;
    assert_eq!(answer.status, 201, "{}", answer.shown());
    answer.text("/id")
}

/// An id that nothing has.
pub(crate) fn fresh_id() -> String {
    shared::id::new(client::now()).to_string()
}
