//! The health port: `/health/live`, `/health/ready`, `/metrics`.
//!
//! It has a thread of its own, so that a worker that is stuck can still say so.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::progress::Progress;

/// Probes and scrapers, and some who should not be there.
const MAX_CONNECTIONS: usize = 64;
/// A client that does not say what it wants is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether `/metrics` answers.
    pub metrics: bool,
    /// What the worker does.
    pub progress: Arc<Progress>,
    /// Cancelled once it takes no more work.
    pub stopping: CancellationToken,
}

/// A health port; it closes when this is dropped.
#[derive(Debug)]
pub struct HealthPort {
    address: SocketAddr,
    _open: tokio_util::sync::DropGuard,
}

impl HealthPort {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken or not ours, or there can be no thread.
    pub fn open(address: SocketAddr, health: Health) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let closing = CancellationToken::new();
        let closed = closing.clone();
        std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                runtime.block_on(closed.run_until_cancelled(serve(listener, health)));
            })?;
        Ok(Self {
            address,
            _open: closing.drop_guard(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, health: Health) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "no health port"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Ends with the port.
    let mut connections = JoinSet::new();
    loop {
        // Never closed, so this only waits for a place.
        let place = Arc::clone(&places).acquire_owned().await.ok();
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let health = health.clone();
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = health.answer(request.method(), request.uri().path());
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // Clients go away in many ways; none of them is a fault of ours.
            let _ = serving.await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Health {
    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, String::new());
        }
        match path {
            "/health/live" => report(None),
            "/health/ready" => report(self.trouble()),
            "/metrics" if self.metrics => plain(StatusCode::OK, shared::metrics::render()),
            _ => plain(StatusCode::NOT_FOUND, String::new()),
        }
    }

    fn trouble(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            return Some("stopping");
        }
        self.progress.trouble()
    }
}

fn report(trouble: Option<&'static str>) -> Response<String> {
    let (code, status) = match trouble {
        None => (StatusCode::OK, "healthy"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
    };
    let body = json!({
        "status": status,
        "service": "balas-worker",
        "version": env!("CARGO_PKG_VERSION"),
        "reason": trouble,
    });
    answer(code, "application/json", body.to_string())
}

fn plain(code: StatusCode, body: String) -> Response<String> {
    answer(code, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn answer(code: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let kind = http::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_turns_first_and_liveness_stays() {
        let mut health = Health {
            metrics: true,
            progress: Arc::default(),
            stopping: CancellationToken::new(),
        };
        let ask = |path| {
            let answer = health.answer(&Method::GET, path);
            (answer.status().as_u16(), answer.into_body())
        };
        let reason = |path| {
            let (code, body) = ask(path);
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            (code, body["reason"].as_str().map(str::to_owned))
        };
        let trouble = |what: &str| (503, Some(what.to_owned()));
        assert_eq!(reason("/health/ready"), trouble("no database"));
        health.progress.renewed(true);
        assert_eq!(reason("/health/ready"), trouble("old schema"));
        health.progress.schema_is_current();
        assert_eq!(reason("/health/ready"), (200, None));
        health.progress.set_slow(true);
        assert_eq!(reason("/health/ready"), trouble("no progress"));
        health.progress.set_slow(false);
        health.stopping.cancel();
        assert_eq!(reason("/health/ready"), trouble("stopping"));
        assert_eq!(reason("/health/live"), (200, None));
        assert_eq!(ask("/metrics").0, 200);
        assert_eq!(ask("/").0, 404);
        assert_eq!(health.answer(&Method::POST, "/metrics").status(), 405);
        health.metrics = false;
        assert_eq!(health.answer(&Method::GET, "/metrics").status(), 404);
    }
}
