//! Sending spans to a collector by OTLP, as protobuf over HTTP.

use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter as Export, SpanProcessor as _,
};
use time::OffsetDateTime;

use super::{Kind, Open};
use crate::clock::Clock;
use crate::config::Vars;

/// Spans that may wait to be sent; further ones are dropped, and nothing waits for a collector.
const WAITING: usize = 8_192;
/// How often they are sent.
const EVERY: Duration = Duration::from_secs(2);
/// What the last ones may take.
const LAST: Duration = Duration::from_secs(1);

/// Where spans go.
#[derive(Clone, Debug, Default)]
pub struct TracesConfig {
    /// The collector; none where nobody records.
    endpoint: Option<String>,
    service: Option<String>,
    ratio: f64,
}

/// The client for the collector could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the sending of traces, OTEL_EXPORTER_OTLP_ENDPOINT")]
pub struct TracesError(#[from] ExporterBuildError);

impl TracesConfig {
    /// Reads the variables; mistakes are collected in `vars`. Headers for the collector, its timeout and
    /// attributes of the process are what OpenTelemetry says they are (`OTEL_EXPORTER_OTLP_HEADERS`,
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_RESOURCE_ATTRIBUTES`), and its SDK reads them.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let endpoint: Option<String> = vars.optional(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector of traces, as http://host:4318; spans are posted to /v1/traces below it, and none are made without it",
        );
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if endpoint.as_ref().is_some_and(|url| !is_url(url)) {
            vars.problem(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "must be an http or https address",
            );
        }
        Self {
            endpoint,
            service: vars.optional(
                "OTEL_SERVICE_NAME",
                "what this process is called in traces; balas-api or balas-worker unless set",
            ),
            ratio: vars.within(
                "OTEL_TRACES_SAMPLER_ARG",
                1.0,
                (0.0, 1.0),
                "share of the traces that begin here which is recorded; a caller's own are as it says",
            ),
        }
    }
}

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Exporter {
    batches: BatchSpanProcessor,
    scope: InstrumentationScope,
    ratio: f64,
    clock: Clock,
}

impl Exporter {
    pub(super) fn start(
        config: &TracesConfig,
        service: &'static str,
        version: &'static str,
        clock: Clock,
    ) -> Result<Option<Self>, TracesError> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        // Fails when another part of the process chose a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()?;
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING)
            .with_scheduled_delay(EVERY)
            .build();
        let mut batches = BatchSpanProcessor::builder(Counted(exporter))
            .with_batch_config(batch)
            .build();
        let name = config.service.clone();
        let resource = Resource::builder()
            .with_service_name(name.unwrap_or_else(|| service.to_owned()))
            .with_attribute(KeyValue::new("service.version", version));
        opentelemetry_sdk::trace::SpanProcessor::set_resource(&mut batches, &resource.build());
        Ok(Some(Self {
            batches,
            scope: InstrumentationScope::builder("balas")
                .with_version(version)
                .build(),
            ratio: config.ratio,
            clock,
        }))
    }

    pub(super) fn ratio(&self) -> f64 {
        self.ratio
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    pub(super) fn end(open: Open, ended: OffsetDateTime) {
        let (trace, span) = open.context.ids();
        let context = SpanContext::new(
            TraceId::from(trace),
            SpanId::from(span),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        let parent = open.parent.map(|parent| SpanId::from(parent.ids().1));
        let data = SpanData {
            span_context: context,
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: false,
            span_kind: open.kind.into(),
            name: open.name,
            start_time: open.started.into(),
            // Clocks of two machines differ: nothing ends before it began.
            end_time: ended.max(open.started).into(),
            attributes: open.attributes,
            dropped_attributes_count: 0,
            events: opentelemetry_sdk::trace::SpanEvents::default(),
            links: opentelemetry_sdk::trace::SpanLinks::default(),
            status: open.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: open.exporter.scope.clone(),
        };
        open.exporter.batches.on_end(data);
    }

    pub(super) fn stop(&self) {
        if let Err(error) = self.batches.shutdown_with_timeout(LAST) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Internal => Self::Internal,
        }
    }
}

/// Counts the batches that the collector did not take; nobody tries them again.
#[derive(Debug)]
struct Counted(SpanExporter);

impl Export for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.0.export(batch).await;
        if let Err(error) = &sent {
            metrics::counter!(crate::metrics::TRACE_FAILURES).increment(1);
            tracing::debug!(%error, "spans not sent");
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}
