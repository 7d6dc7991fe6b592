//! What is known of a call after it ended: the ledger's row and the answer.

use rust_decimal::Decimal;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::{ErrorClass, Model};

/// What the upstream says a call used.
#[derive(Clone, Debug, Default)]
pub struct TokenUsage {
    /// Tokens read, the cached ones included.
    pub prompt_tokens: u32,
    /// Tokens written, those of reasoning included.
    pub completion_tokens: u32,
    /// Their sum as the upstream gives it.
    pub total_tokens: u32,
    /// Prompt tokens that came from a cache.
    pub cached_tokens: u32,
    /// Completion tokens spent on reasoning.
    pub reasoning_tokens: u32,
    /// In credits, exactly as the upstream wrote it; `None` while unknown, which a 0 for a paid
    /// model is as well.
    pub cost: Option<Decimal>,
    /// The whole object, for the ledger. `None` when it holds what Postgres cannot store.
    pub raw: Option<Box<RawValue>>,
}

/// One call of the upstream, for the ledger and the metrics.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The model that was asked.
    pub model: Model,
    /// The model that says it answered.
    pub model_served: Option<String>,
    /// Which key was used, by its label.
    pub key_label: String,
    /// The upstream's id of the generation, by which its cost can be asked for later.
    pub upstream_id: Option<String>,
    /// The HTTP status, once there was one.
    pub http_status: Option<u16>,
    /// Why it failed; `None` for a call that gave the answer.
    pub error: Option<ErrorClass>,
    /// What the upstream said about the error, for the log; no content, no keys.
    pub detail: Option<String>,
    /// How the reply ended, in the upstream's word.
    pub finish_reason: Option<String>,
    /// What it used, if the upstream said so.
    pub usage: Option<TokenUsage>,
    /// The call made no reply and may have cost something: the upstream had begun to work.
    pub wasted: bool,
    /// When the request went out.
    pub started_at: OffsetDateTime,
    /// When the first text came.
    pub first_token_at: Option<OffsetDateTime>,
    /// When it ended.
    pub finished_at: OffsetDateTime,
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The whole text, never blank, without NUL characters.
    pub text: String,
    /// It was cut at a length limit.
    pub incomplete: bool,
    /// How it ended, in the upstream's word.
    pub finish_reason: String,
    /// The model that was asked.
    pub model: Model,
    /// The model that says it answered; the asked one if the upstream did not say.
    pub model_served: String,
    /// The upstream's id of the generation.
    pub upstream_id: Option<String>,
    /// What it used, if the upstream said so.
    pub usage: Option<TokenUsage>,
    /// When the first text came.
    pub first_token_at: Option<OffsetDateTime>,
}
