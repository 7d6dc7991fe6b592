//! The listener: one task per connection, all gone when the simulator goes dark or stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::connection::Socket;
use super::{Shared, account, admin, chat, embed};

/// Connections that may wait to be accepted: a load run opens thousands at once.
const BACKLOG: u32 = 4_096;

/// The largest request that is read.
const LARGEST_REQUEST: usize = 32 * 1024 * 1024;

/// Opens the listener.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // The same port must be had again at once after a time in the dark.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// All routes, under every base path a client may be set to.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let told = Router::new()
        .route("/key", get(account::key))
        .route("/auth/key", get(account::key))
        .route("/credits", get(account::credits))
        .route("/generation", get(account::generation))
        .layer(from_fn_with_state(Arc::clone(shared), account::scripted));
    let api = Router::new()
        .route("/chat/completions", post(chat::complete))
        .route("/embeddings", post(embed::embeddings))
        .route("/models", get(account::models))
        .merge(told);
    Router::new()
        .nest("/api/v1", api.clone())
        .nest("/v1", api.clone())
        .merge(api)
        .nest("/sim", admin::router())
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .with_state(Arc::clone(shared))
}

/// Serves until `stop`.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let router = router(&shared);
    let mut wanted_dark = shared.wanted_dark();
    let mut listener = Some(listener);
    loop {
        let open = match listener.take() {
            Some(open) => open,
            None => listen(address)?,
        };
        shared.is_dark.send_replace(false);
        let connections = stop.child_token();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = accept(&open, &router, &connections) => {}
            _ = wanted_dark.wait_for(|dark| *dark) => {}
        }
        drop(open);
        connections.cancel();
        shared.is_dark.send_replace(true);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = wanted_dark.wait_for(|dark| !*dark) => {}
        }
    }
}

async fn accept(listener: &TcpListener, router: &Router, connections: &CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                let connections = connections.clone();
                crate::task::spawn(async move {
                    connections
                        .run_until_cancelled(connection(stream, router))
                        .await
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: those in use come free again.
                tracing::warn!(error = %error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    // Without this a small chunk waits for the acknowledgement of the one before it.
    let _ = stream.set_nodelay(true);
    let (socket, handle) = Socket::new(stream);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(handle.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(20_000);
    // An error here is a client that went away or a connection the script broke: both are in
    // the call log already.
    let _ = builder
        .serve_connection(TokioIo::new(socket), service)
        .await;
}
