//! A collector of traces, and a receiver of notifications beside it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use prost::Message as _;

/// Keeps what it is sent.
pub(crate) struct Collector {
    /// `http://127.0.0.1:<port>`.
    pub(crate) url: String,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Span>>,
    bytes: Mutex<Vec<u8>>,
    /// `traceparent` of the notifications.
    told: Mutex<Vec<String>>,
}

/// A span as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) kind: i32,
    pub(crate) started: u64,
    pub(crate) ended: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) is_error: bool,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let kept = Arc::<Kept>::default();
        let router = Router::new()
            .route("/v1/traces", post(keep))
            .route("/notifications", post(told))
            .with_state(Arc::clone(&kept));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // A thread of its own: it must answer while a process of the test stands still.
        let runtime = super::replica::runtime();
        let listener = listener.into_std().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { url, kept }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.kept.spans.lock().unwrap().clone()
    }

    /// Everything that was sent, as it was.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.kept.bytes.lock().unwrap().clone()
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.kept.told.lock().unwrap().clone()
    }
}

async fn keep(State(kept): State<Arc<Kept>>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let mut spans = kept.spans.lock().unwrap();
    for resource in request.resource_spans {
        let about = attributes(resource.resource.unwrap().attributes);
        let sent = resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        spans.extend(sent.map(|sent| span(&about["service.name"], sent)));
    }
    kept.bytes.lock().unwrap().extend_from_slice(&body);
}

async fn told(State(kept): State<Arc<Kept>>, headers: HeaderMap) {
    let traceparent = headers["traceparent"].to_str().unwrap().to_owned();
    kept.told.lock().unwrap().push(traceparent);
}

fn span(service: &str, sent: Sent) -> Span {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Span {
        service: service.to_owned(),
        name: sent.name,
        trace: hex(sent.trace_id),
        id: hex(sent.span_id),
        parent: hex(sent.parent_span_id),
        kind: sent.kind,
        started: sent.start_time_unix_nano,
        ended: sent.end_time_unix_nano,
        attributes: attributes(sent.attributes),
        is_error: sent.status.is_some_and(|status| status.code == 2),
    }
}

fn attributes(sent: Vec<KeyValue>) -> BTreeMap<String, String> {
    let pairs = sent.into_iter().map(|pair| (pair.key, pair.value));
    pairs.map(|(key, value)| (key, text(value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::ArrayValue(array)) => {
            let parts: Vec<String> = array
                .values
                .into_iter()
                .map(|part| text(Some(part)))
                .collect();
            parts.join(",")
        }
        other => format!("{other:?}"),
    }
}
