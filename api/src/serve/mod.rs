//! Listening, and ending without cutting anybody off.
//!
//! The end: readiness turns false (`Lifecycle::stopping`) and clients are asked not to keep their
//! connections; after `SHUTDOWN_DELAY` the listener closes, once everybody who had connected is let in,
//! and `closing` tells sockets and streams to reconnect elsewhere; requests in flight finish within
//! `SHUTDOWN_GRACE`.

mod refusal;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use shared::clock::Clock;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::refusal::Explained;
use crate::app::{self, AppState};
use crate::middleware::{MAX_HEAD_BYTES, Peer};

/// What an HTTP/2 request may bring before its connection's own library refuses it, with a status alone. From
/// [`MAX_HEAD_BYTES`] on it is refused like any other.
const MAX_HTTP2_HEAD_BYTES: usize = 4 * MAX_HEAD_BYTES;
/// How long an idle connection stays; longer than the 60 s that load balancers keep theirs, so that
/// it is never the server that closes a connection just as a request is under way. A client that
/// sends its head slower than that is cut off as well.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A client that connects and says nothing is cut off.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
/// Dead HTTP/2 peers are found by pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the listener.
///
/// # Errors
/// When the address is taken or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()?
    } else {
        TcpSocket::new_v4()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // Thousands of sockets reconnect at once when a replica goes.
    socket.listen(4096)
}

/// Serves until the lifecycle of `state` stops; returns once the listener is closed, while connections
/// may still be finishing as its tasks.
pub async fn serve(listener: TcpListener, state: AppState) {
    let config = &state.gate.config.server;
    let lifecycle = &state.lifecycle;
    let closing = &state.closing;
    let serving = Serving {
        router: app::build(state.clone()),
        clock: state.gate.clock.clone(),
        builder: Arc::new(builder()),
        stopping: lifecycle.stopping().clone(),
        closing: closing.clone(),
        hurry: lifecycle.hurry().clone(),
    };
    let places = Arc::new(Semaphore::new(config.max_connections));
    let delay = async {
        lifecycle.stopping().cancelled().await;
        tokio::select! {
            () = tokio::time::sleep(config.shutdown_delay) => {}
            () = lifecycle.hurry().cancelled() => {}
        }
    };
    tokio::pin!(delay);
    loop {
        let accepting = async {
            // Never closed, so this only waits for a place.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut delay => break,
            accepted = accepting => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = serving.clone().connection(stream, peer);
                lifecycle.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // Out of file descriptors, or the client has gone already. Pausing keeps the loop from
            // spinning while nothing can be done.
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Whoever has connected by now was not told to go elsewhere: to close without a look would be a
    // refusal. Waiting for places is over, there are never more of them than the backlog holds.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).map(|()| stream);
            if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                lifecycle.spawn(serving.clone().connection(stream, peer));
            }
        }
    }
    closing.cancel();
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(MAX_HTTP2_HEAD_BYTES as u32)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// What every connection needs.
#[derive(Clone)]
struct Serving {
    router: Router,
    clock: Clock,
    builder: Arc<auto::Builder<TokioExecutor>>,
    stopping: CancellationToken,
    closing: CancellationToken,
    hurry: CancellationToken,
}

impl Serving {
    async fn connection(self, stream: TcpStream, peer: SocketAddr) {
        // Deltas are small and each one matters now.
        let _ = stream.set_nodelay(true);
        // Not `readable`, which may say so of a stream that has nothing yet.
        match tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.peek(&mut [0])).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        }
        let stream = Explained::new(stream, peer, self.clock);
        let peer = Peer(peer);
        // HTTP/2 has a frame of its own for going away.
        let is_http1 = Arc::new(AtomicBool::new(false));
        let (noted, stopping) = (Arc::clone(&is_http1), self.stopping);
        let service = self
            .router
            .map_request(move |mut request: hyper::Request<Incoming>| {
                noted.store(request.version() < Version::HTTP_2, Ordering::Relaxed);
                request.extensions_mut().insert(peer);
                request.map(Body::new)
            })
            .map_response(move |mut response: Response| {
                if stopping.is_cancelled()
                    && is_http1.load(Ordering::Relaxed)
                    && response.status() != StatusCode::SWITCHING_PROTOCOLS
                {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                response
            });
        let connection = self.builder.serve_connection_with_upgrades(
            TokioIo::new(stream),
            TowerToHyperService::new(service),
        );
        tokio::pin!(connection);
        let ended = tokio::select! {
            // First, so that a request that has just arrived is begun and not cut off.
            biased;
            ended = connection.as_mut() => Some(ended),
            () = self.closing.cancelled() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.hurry.cancelled() => return,
                }
            }
        };
        // Clients go away in many ways; none of them is a fault of ours.
        if let Err(error) = ended {
            tracing::debug!(error = %error, "a connection ended early");
        }
    }
}
