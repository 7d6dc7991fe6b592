//! One span, one log line and one measurement per request.

use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};
use shared::traces::{Kind, Span, TraceParent, Traces};
use tracing::Instrument as _;

use super::client_ip::ClientIp;
use super::request_id::{REQUEST_ID, RequestId, caller_of};
use crate::error::Code;
use crate::gate::Gate;

/// The outermost layer: names the request, and tells when and how it was answered.
pub async fn observe(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers(), &gate.clock);
    let caller = caller_of(request.headers());
    let trace = gate.traces.enter(caller);
    let client = ClientIp::of(
        request.headers(),
        request.extensions(),
        &gate.config.server.trusted_proxies,
    );
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut exchange = Exchange::begin(method(request.method()), route);
    if !exchange.is_probe() {
        exchange.record(&gate.traces, trace, caller, &id);
    }
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        trace.id = trace.trace_id(),
        user.id = tracing::field::Empty,
        http.method = exchange.method,
        http.route = exchange.route(),
        client.ip = %client.0,
    );
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(trace);
    request.extensions_mut().insert(client);
    async move {
        let mut response = next.run(request).await;
        if let Some(value) = id.header() {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        exchange.answered(response.status(), response.extensions().get().copied());
        response
    }
    .instrument(span)
    .await
}

/// Tells of a request that never got as far as a route, because its head could not be read.
pub fn refused(peer: SocketAddr, id: &RequestId, code: Code) {
    let span = tracing::info_span!("request", request.id = %id, client.ip = %peer.ip());
    span.in_scope(|| Exchange::begin("OTHER", None).answered(code.status(), Some(code)));
}

/// A request being answered. Dropped before that, the client has gone away.
struct Exchange {
    started: Instant,
    method: &'static str,
    route: Option<MatchedPath>,
    span: Option<Span>,
    answered: bool,
}

impl Exchange {
    fn begin(method: &'static str, route: Option<MatchedPath>) -> Self {
        Self {
            started: Instant::now(),
            method,
            route,
            span: None,
            answered: false,
        }
    }

    /// Begins the request's span. Streams and sockets end theirs with the head of the answer.
    fn record(
        &mut self,
        traces: &Traces,
        here: TraceParent,
        caller: Option<TraceParent>,
        id: &RequestId,
    ) {
        if !traces.is_on() {
            return;
        }
        let name = format!("{} {}", self.method, self.route());
        let Some(mut span) = traces.span_at(here, caller, Kind::Server, name) else {
            return;
        };
        span.set("http.request.method", self.method);
        span.set("http.route", self.route().to_owned());
        span.set("balas.request.id", id.as_str().to_owned());
        self.span = Some(span);
    }

    /// Probes and scrapes come every few seconds and say nothing.
    fn is_probe(&self) -> bool {
        self.route().starts_with("/health") || self.route() == "/metrics"
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("unmatched", MatchedPath::as_str)
    }

    fn answered(mut self, status: StatusCode, code: Option<Code>) {
        self.answered = true;
        self.tell(status, code.map_or("", Code::as_str));
    }

    fn tell(&mut self, status: StatusCode, code: &'static str) {
        let elapsed = self.started.elapsed();
        let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
        let status = status.as_u16();
        metrics::histogram!(
            shared::metrics::HTTP_REQUEST_DURATION,
            "method" => self.method,
            "route" => self.route().to_owned(),
            "status_code" => status.to_string(),
        )
        .record(elapsed);
        if let Some(mut span) = self.span.take() {
            span.set("http.response.status_code", i64::from(status));
            if status >= 500 || code == CLIENT_GONE {
                span.fail(code);
            }
            span.end();
        }
        if self.is_probe() {
            tracing::debug!(
                http.status = status,
                problem.code = code,
                elapsed_ms,
                "answered a probe"
            );
        } else {
            tracing::info!(
                http.status = status,
                problem.code = code,
                elapsed_ms,
                "answered a request"
            );
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            // 499 is what proxies log for it; there is no official status.
            let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
            tracing::Span::current().in_scope(|| self.tell(status, CLIENT_GONE));
        }
    }
}

/// What the log calls a client that did not wait for its answer.
const CLIENT_GONE: &str = "client_gone";

/// Metrics need a bounded set, and a client may invent methods.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
