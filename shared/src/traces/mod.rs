//! Traces: one of them spans a request, its wait, the claim, the upstream's calls, the finish and the notification.
//!
//! What belongs together happens in several processes and long after one another, and is known by the stored
//! `traceparent` alone. So spans are made by hand, with their parents and times as arguments, and not derived from
//! what the logs are nested in. Where no collector is configured, a span is `None` and costs a look at an option.
//!
//! Only this module names opentelemetry.

mod context;
mod export;

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::{Array, KeyValue, StringValue, Value};
use time::OffsetDateTime;

pub use context::TraceParent;
pub use export::{TracesConfig, TracesError};

use crate::clock::Clock;
use export::Exporter;

/// Where spans go. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Exporter>>);

/// What a span is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It answers a request.
    Server,
    /// It asks another service.
    Client,
    /// It hands something on that is taken later.
    Producer,
    /// It takes what was handed on.
    Consumer,
    /// It is none of them.
    Internal,
}

/// A piece of work that is being recorded. One that is dropped before its end ends there, as an error.
#[derive(Debug)]
pub struct Span(Option<Open>);

#[derive(Debug)]
struct Open {
    exporter: Arc<Exporter>,
    context: TraceParent,
    parent: Option<TraceParent>,
    kind: Kind,
    name: Cow<'static, str>,
    started: OffsetDateTime,
    attributes: Vec<KeyValue>,
    error: Option<Cow<'static, str>>,
}

impl Traces {
    /// Nowhere.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Starts sending to the collector of `config`, if there is one. `service` is what this process is called
    /// unless the configuration says otherwise.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub fn start(
        config: &TracesConfig,
        service: &'static str,
        version: &'static str,
        clock: Clock,
    ) -> Result<Self, TracesError> {
        let exporter = Exporter::start(config, service, version, clock)?;
        Ok(Self(exporter.map(Arc::new)))
    }

    /// Whether anybody records.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The first span here: the caller's trace goes on, or a new one begins.
    #[must_use]
    pub fn enter(&self, caller: Option<TraceParent>) -> TraceParent {
        let ratio = self.0.as_ref().map_or(1.0, |exporter| exporter.ratio());
        caller.map_or_else(|| TraceParent::root(ratio), |caller| caller.child())
    }

    /// Begins a span whose own place in the trace is known already. None where nobody records it.
    #[must_use]
    pub fn span_at(
        &self,
        context: TraceParent,
        parent: Option<TraceParent>,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
    ) -> Option<Span> {
        let exporter = self.0.as_ref().filter(|_| context.is_sampled())?;
        Some(Span(Some(Open {
            exporter: Arc::clone(exporter),
            context,
            parent,
            kind,
            name: name.into(),
            started: exporter.now(),
            attributes: Vec::new(),
            error: None,
        })))
    }

    /// Begins a span below a stored `traceparent`. None where nobody records it.
    #[must_use]
    pub fn span(
        &self,
        parent: Option<&str>,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
    ) -> Option<Span> {
        if !self.is_on() {
            return None;
        }
        let parent = TraceParent::parse(parent?)?;
        self.span_at(parent.child(), Some(parent), kind, name)
    }

    /// Sends what is left. Blocks, but no longer than a second.
    pub fn stop(&self) {
        if let Some(exporter) = &self.0 {
            exporter.stop();
        }
    }
}

impl Span {
    /// What is set off in it receives this.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().map(|open| open.context.to_string())
    }

    /// It began before it was recorded.
    #[must_use]
    pub fn since(mut self, started: OffsetDateTime) -> Self {
        if let Some(open) = &mut self.0 {
            open.started = started;
        }
        self
    }

    /// Says something of it; never content, keys or tokens.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Says several words of it.
    pub fn set_all(&mut self, key: &'static str, words: impl IntoIterator<Item = String>) {
        let words: Vec<StringValue> = words.into_iter().map(StringValue::from).collect();
        self.set(key, Value::Array(Array::String(words)));
    }

    /// It went wrong; `class` is one of a few words.
    pub fn fail(&mut self, class: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.0 {
            let class = class.into();
            open.attributes
                .push(KeyValue::new("error.type", class.clone().into_owned()));
            open.error = Some(class);
        }
    }

    /// It ends now.
    pub fn end(mut self) {
        if let Some(open) = self.0.take() {
            let now = open.exporter.now();
            Exporter::end(open, now);
        }
    }

    /// It ended then.
    pub fn end_at(mut self, ended: OffsetDateTime) {
        if let Some(open) = self.0.take() {
            Exporter::end(open, ended);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.fail("dropped");
        if let Some(open) = self.0.take() {
            let now = open.exporter.now();
            Exporter::end(open, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_records_there_is_no_span() {
        let traces = Traces::off();
        let here = traces.enter(None);
        assert!(here.is_sampled(), "others may record it");
        assert!(traces.span_at(here, None, Kind::Server, "a").is_none());
        assert!(
            traces
                .span(Some(&here.to_string()), Kind::Internal, "b")
                .is_none()
        );
        traces.stop();
    }
}
