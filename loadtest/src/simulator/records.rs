//! What is told about calls: one by one, and added up.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::catalogue;
use super::script::Endpoint;
use crate::clock;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended.
    InProgress,
    /// The whole answer was sent, with a finish reason.
    Completed,
    /// A failure was sent, as status or inside the stream.
    Failed,
    /// The simulator broke it off: reset, close, or no finish reason.
    Cut,
    /// The client went away before the end.
    Disconnected,
}

/// A call as it is shown. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Running number, from 1.
    pub seq: u64,
    /// The generation id given to the client.
    pub id: String,
    /// What was asked for.
    pub endpoint: Endpoint,
    /// When the request had been read.
    pub at_us: u64,
    /// When the first token (or vector) was sent.
    pub first_token_us: Option<u64>,
    /// When the call ended.
    pub ended_us: Option<u64>,
    /// The model asked for.
    pub model: String,
    /// `session_id` of the request.
    pub session_id: Option<String>,
    /// `user` of the request.
    pub user: Option<String>,
    /// The API key's label: short keys whole, long ones shortened.
    pub key: String,
    /// The markers that applied, joined by a space.
    pub marker: String,
    /// The last user message, or the inputs joined by newlines.
    pub last_user_message: String,
    /// How many messages (or inputs) the request had.
    pub messages: usize,
    /// `max_tokens` of the request.
    pub max_tokens: Option<u32>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// `X-Request-Id` of the request.
    pub request_id: Option<String>,
    /// `traceparent` of the request.
    pub traceparent: Option<String>,
    /// HTTP status of the answer; 0 while there is none.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// The finish reason sent.
    pub finish_reason: Option<String>,
    /// Tokens of text handed to the connection.
    pub tokens_sent: u32,
    /// Prompt tokens.
    pub prompt_tokens: u32,
    /// Completion tokens charged: those sent, and the reasoning.
    pub completion_tokens: u32,
    /// What it cost in credits, as a decimal; known once it ended.
    pub cost: Option<String>,
}

/// Totals since the start or the last `DELETE /sim/calls`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Calls begun.
    pub calls: u64,
    /// Calls not ended.
    pub in_flight: u64,
    /// The most calls that were in flight at once.
    pub in_flight_max: u64,
    /// The most calls to free models that began within any 60 seconds.
    pub free_per_minute_max: u64,
    /// Calls ended, by outcome.
    pub by_outcome: BTreeMap<Outcome, u64>,
    /// Answers by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
    /// Sums by model.
    pub by_model: BTreeMap<String, Sums>,
    /// Sums by key label.
    pub by_key: BTreeMap<String, Sums>,
    /// Sums by `user`. Not kept for more than 10,000 users.
    pub by_user: BTreeMap<String, Sums>,
    /// Sums of all calls.
    pub total: Sums,
}

/// What some calls add up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Calls ended.
    pub calls: u64,
    /// Prompt tokens of calls that were charged.
    pub prompt_tokens: u64,
    /// Completion tokens of calls that were charged.
    pub completion_tokens: u64,
    /// Credits.
    pub cost: Decimal,
}

impl Sums {
    pub(crate) fn add(&mut self, prompt_tokens: u32, completion_tokens: u32, cost: Decimal) {
        self.calls += 1;
        self.prompt_tokens += u64::from(prompt_tokens);
        self.completion_tokens += u64::from(completion_tokens);
        self.cost = (self.cost + cost).normalize();
    }
}

/// The answer of `GET /generation?id=` for a call that has ended.
pub(crate) fn generation_json(record: &CallRecord) -> Value {
    let cost = record
        .cost
        .as_deref()
        .and_then(|cost| serde_json::from_str::<Value>(cost).ok())
        .unwrap_or(json!(0));
    // As in the totals: what is not charged has no tokens.
    let charged = record.outcome == Outcome::Completed || record.completion_tokens > 0;
    let prompt_tokens = if charged { record.prompt_tokens } else { 0 };
    let ended = record.ended_us.unwrap_or(record.at_us);
    let first = record.first_token_us.unwrap_or(ended);
    json!({"data": {
        "id": record.id,
        "upstream_id": format!("chatcmpl-{:020}", record.seq),
        "total_cost": cost,
        "usage": cost,
        "cache_discount": null,
        "created_at": clock::rfc3339(record.at_us),
        "model": record.model,
        "provider_name": catalogue::PROVIDER,
        "app_id": null,
        "origin": "",
        "is_byok": false,
        "streamed": record.stream,
        "cancelled": record.outcome == Outcome::Disconnected,
        "latency": first.saturating_sub(record.at_us) / 1_000,
        "generation_time": ended.saturating_sub(first) / 1_000,
        "moderation_latency": null,
        "finish_reason": record.finish_reason,
        "native_finish_reason": record.finish_reason,
        "tokens_prompt": prompt_tokens,
        "tokens_completion": record.completion_tokens,
        "native_tokens_prompt": prompt_tokens,
        "native_tokens_completion": record.completion_tokens,
        "native_tokens_reasoning": 0,
        "num_media_prompt": null,
        "num_media_completion": null,
    }})
}
