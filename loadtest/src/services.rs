//! A double of the platform's archive and auth service, which can be down, slow, failing or talking
//! nonsense.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::task;

/// The key that callers have to show.
pub const SERVICE_KEY: &str = "the-service-key-of-the-tests";

/// How both services behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They answer.
    #[default]
    Fine,
    /// They cut the connection without an answer.
    Down,
    /// They answer after so many milliseconds.
    Slow(u64),
    /// They answer with this status.
    Status(u16),
    /// They answer with a text that is no JSON.
    Garbage,
    /// They answer with scores that cannot be.
    Nonsense,
}

#[derive(Debug, Default)]
struct Known {
    mode: Mode,
    results: HashMap<String, Value>,
    users: HashMap<String, Value>,
    calls: Vec<String>,
}

/// Both services, on one port. They end when this is dropped.
#[derive(Debug)]
pub struct Services {
    address: SocketAddr,
    known: Arc<Mutex<Known>>,
    stop: CancellationToken,
}

impl Services {
    /// Starts them on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> io::Result<Self> {
        let known = Arc::<Mutex<Known>>::default();
        let router = Router::new()
            .route("/archive/results/{id}", get(results))
            .route("/auth/users/{id}", get(user))
            .with_state(Arc::clone(&known));
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        task::spawn(async move {
            let _ = axum::serve(listener, router)
                .with_graceful_shutdown(stopped)
                .await;
        });
        Ok(Self {
            address,
            known,
            stop,
        })
    }

    /// Where both are.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        lock(&self.known).mode = mode;
    }

    /// Gives the archive the results of an assessment, of this person if anybody's.
    pub fn keep_results(&self, assessment: &str, user: Option<&str>, data: Value) {
        let mut answer = json!({ "success": true, "data": { "assessment_data": data } });
        if let Some(user) = user {
            answer["data"]["user_id"] = json!(user);
        }
        lock(&self.known)
            .results
            .insert(assessment.to_owned(), answer);
    }

    /// Makes a person known to the auth service.
    pub fn keep_user(&self, user: &str, profile: Value) {
        let answer = json!({ "success": true, "data": { "user": profile } });
        lock(&self.known).users.insert(user.to_owned(), answer);
    }

    /// The paths that were asked for, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        lock(&self.known).calls.clone()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lock(known: &Mutex<Known>) -> std::sync::MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn results(
    State(known): State<Arc<Mutex<Known>>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = lock(&known).results.get(&id).cloned();
    answer(&known, format!("/archive/results/{id}"), &headers, found).await
}

async fn user(
    State(known): State<Arc<Mutex<Known>>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let found = lock(&known).users.get(&id).cloned();
    answer(&known, format!("/auth/users/{id}"), &headers, found).await
}

async fn answer(
    known: &Mutex<Known>,
    path: String,
    headers: &HeaderMap,
    found: Option<Value>,
) -> Response {
    let mode = {
        let mut known = lock(known);
        known.calls.push(path);
        known.mode
    };
    let key = headers.get("x-service-key").map(|key| key.as_bytes());
    if key != Some(SERVICE_KEY.as_bytes()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match mode {
        Mode::Fine => {}
        // A body that breaks off before its first byte ends the connection.
        Mode::Down => {
            let broken = futures::stream::once(async { Err::<&str, _>(io::Error::other("cut")) });
            return Response::new(Body::from_stream(broken));
        }
        Mode::Slow(milliseconds) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        Mode::Status(status) => {
            let status = StatusCode::from_u16(status);
            return status
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
                .into_response();
        }
        Mode::Garbage => return "<html>it works</html>".into_response(),
        Mode::Nonsense => {
            return axum::Json(json!({ "riasec": { "R": -5 }, "ocean": "high" })).into_response();
        }
    }
    match found {
        Some(found) => axum::Json(found).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
