//! Spans of upstream calls, in the words of OpenTelemetry's conventions for generative AI.

use shared::traces::{Kind, Span};

use super::{Call, CallRecord, Client, Model};

// The attributes' names, as the conventions have them.
const OPERATION: &str = "gen_ai.operation.name";
const PROVIDER: &str = "gen_ai.provider.name";
const MODEL_ASKED: &str = "gen_ai.request.model";
const MODEL_SERVED: &str = "gen_ai.response.model";
const MAX_TOKENS: &str = "gen_ai.request.max_tokens";
const TEMPERATURE: &str = "gen_ai.request.temperature";
const CONVERSATION: &str = "gen_ai.conversation.id";
const RESPONSE: &str = "gen_ai.response.id";
const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
const FIRST_TOKEN: &str = "gen_ai.server.time_to_first_token";

/// Begins the span of a call. None where nobody records it.
pub(super) fn begin(client: &Client, call: &Call, model: &Model) -> Option<Span> {
    if !client.traces.is_on() {
        return None;
    }
    let name = format!("chat {}", model.name);
    let parent = call.traceparent.as_deref();
    let mut span = client.traces.span(parent, Kind::Client, name)?;
    span.set(OPERATION, "chat");
    span.set(PROVIDER, client.config().dialect.as_str());
    span.set(MODEL_ASKED, model.name.clone());
    span.set(MAX_TOKENS, i64::from(call.max_tokens));
    span.set(TEMPERATURE, f64::from(call.temperature));
    span.set(CONVERSATION, call.session_id.to_string());
    if let Some(host) = client.config().base_url.host_str() {
        span.set("server.address", host.to_owned());
    }
    if let Some(port) = client.config().base_url.port_or_known_default() {
        span.set("server.port", i64::from(port));
    }
    Some(span)
}

/// Ends it with what is known of the call.
pub(super) fn end(span: Option<Span>, record: &CallRecord) {
    let Some(mut span) = span else { return };
    if let Some(model) = &record.model_served {
        span.set(MODEL_SERVED, model.clone());
    }
    if let Some(id) = &record.upstream_id {
        span.set(RESPONSE, id.clone());
    }
    if let Some(reason) = &record.finish_reason {
        span.set_all(FINISH_REASONS, [reason.clone()]);
    }
    if let Some(status) = record.http_status {
        span.set("http.response.status_code", i64::from(status));
    }
    if let Some(usage) = &record.usage {
        span.set(INPUT_TOKENS, i64::from(usage.prompt_tokens));
        span.set(OUTPUT_TOKENS, i64::from(usage.completion_tokens));
        span.set(CACHED_TOKENS, i64::from(usage.cached_tokens));
    }
    if let Some(first) = record.first_token_at {
        let took = (first - record.started_at).as_seconds_f64();
        span.set(FIRST_TOKEN, took.max(0.0));
    }
    if let Some(class) = record.error {
        span.fail(class.as_str());
    }
    span.end();
}
