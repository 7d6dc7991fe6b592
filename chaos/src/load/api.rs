//! The API as its clients see it: any replica, any of them may be gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

/// How long one answer may take; longer than the API's own limit, so that it is the API that gives up.
const PATIENCE: Duration = Duration::from_secs(35);
/// Before a request is repeated.
const AGAIN: Duration = Duration::from_millis(150);

/// A client for plain HTTP on this machine.
pub(crate) fn http_client() -> anyhow::Result<reqwest::Client> {
    // Fails when it was done before, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .build()
        .context("failed to make an HTTP client")
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    /// The stable code of a refusal.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// An answer that says no.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
    pub(crate) what: String,
    /// 503: the service says that it cannot serve now.
    pub(crate) unavailable: bool,
}

/// The replicas.
#[derive(Debug)]
pub(crate) struct Api {
    client: reqwest::Client,
    fronts: Vec<String>,
    next: AtomicUsize,
    answers: Mutex<Answers>,
}

/// Everything that was answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) refusals: Vec<Refusal>,
}

impl Api {
    pub(crate) fn new(fronts: Vec<String>) -> anyhow::Result<Self> {
        Ok(Self {
            client: http_client()?,
            fronts,
            next: AtomicUsize::new(0),
            answers: Mutex::default(),
        })
    }

    /// A copy of all answers.
    pub(crate) fn answers(&self) -> Answers {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replicas, the next in turn first.
    pub(crate) fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Where a replica is.
    pub(crate) fn front(&self, turn: usize) -> &str {
        &self.fronts[turn % self.fronts.len()]
    }

    /// A request to a replica.
    pub(crate) fn request(
        &self,
        turn: usize,
        method: Method,
        path: &str,
        authorization: &str,
    ) -> RequestBuilder {
        let front = self.front(turn);
        self.client
            .request(method, format!("{front}{path}"))
            .header("authorization", authorization)
    }

    /// Sends once. None when nothing came back: the connection broke, and nobody knows what was done.
    pub(crate) async fn once(&self, what: &str, request: RequestBuilder) -> Option<Answer> {
        let sent = Instant::now();
        let exchange = async {
            let response = request.timeout(PATIENCE).send().await.ok()?;
            let status = response.status();
            let body = response.bytes().await.ok()?;
            let body = serde_json::from_slice(&body).unwrap_or_default();
            Some(Answer { status, body })
        };
        let answer = exchange.await;
        let mut answers = self.lock();
        let text = match &answer {
            None => format!("{what}: no answer"),
            Some(answer) if answer.status.is_success() => {
                format!("{what}: {}", answer.status.as_u16())
            }
            Some(answer) => format!("{what}: {} {}", answer.status.as_u16(), answer.code()),
        };
        if let Some(answer) = answer.as_ref().filter(|answer| !answer.status.is_success()) {
            answers.refusals.push(Refusal {
                sent,
                at: Instant::now(),
                what: text.clone(),
                unavailable: answer.status == StatusCode::SERVICE_UNAVAILABLE,
            });
        }
        *answers.counts.entry(text).or_default() += 1;
        answer
    }

    /// Sends until there is an answer that repeating would not change, or `give_up` has passed.
    pub(crate) async fn until_answered(
        &self,
        what: &str,
        give_up: Option<Instant>,
        make: impl Fn(usize) -> RequestBuilder,
    ) -> Option<Answer> {
        let mut turn = self.turn();
        loop {
            if let Some(answer) = self.once(what, make(turn)).await {
                let again = answer.status.is_server_error()
                    || answer.status == StatusCode::TOO_MANY_REQUESTS
                    || answer.code() == "idempotency_in_progress";
                if !again {
                    return Some(answer);
                }
            }
            if give_up.is_some_and(|at| Instant::now() >= at) {
                return None;
            }
            turn += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }
}
