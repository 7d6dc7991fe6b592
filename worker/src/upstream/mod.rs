//! The client of OpenRouter, or of anything else that speaks its OpenAI-compatible API.
//!
//! This module is the only place that knows the gateway's JSON. One [`run`] makes one reply: it
//! calls the models of a chain, one after the other, always streaming, and says after each error
//! what happens next by the tables in [`error`] and [`policy`].
//!
//! **Invariant:** dropping the future of [`run`] closes the connection of the call it is making,
//! which is how a generation is cancelled.

mod account;
mod backoff;
mod bill;
mod catalogue;
mod chain;
mod client;
mod config;
mod embeddings;
mod embeddings_config;
pub mod error;
mod genai;
mod hints;
mod intake;
mod key_file;
mod keys;
pub mod policy;
mod providers;
mod record;
mod referee;
mod request;
mod retries;
mod rules;
mod sse;
mod stream;
mod watch;
mod wire;

use std::future::Future;
use std::time::Duration;

use shared::domain::FailureCode;
pub use shared::models::Model;
use uuid::Uuid;

pub use account::{Account, account};
pub use bill::{Bill, bill};
pub use catalogue::watch_models;
pub use chain::run;
pub use client::{BuildError, Client};
pub use config::{Dialect, Timeouts, UpstreamConfig};
pub use embeddings::{Embedded, EmbeddingCall, EmbeddingError, EmbeddingRecord, Embeddings, Fault};
pub use embeddings_config::EmbeddingConfig;
pub use error::ErrorClass;
pub(crate) use hints::seconds_or_date as retry_after;
pub use key_file::watch_keys;
pub use providers::ProviderConfig;
pub use record::{Answer, CallRecord, TokenUsage};
pub use referee::{Admission, Referee, Unlimited};
pub use request::{ChatMessage, ChatRole, Content, ImageUrl, Part, shorten};
pub use stream::MAX_REPLY_BYTES;

/// What one generation asks of the upstream, whichever model answers.
#[derive(Clone, Debug)]
pub struct Call {
    /// The prompt, system message first.
    pub messages: Vec<ChatMessage>,
    /// The most tokens of the reply; it bounds the cost.
    pub max_tokens: u32,
    /// Sampling temperature, 0 to 2.
    pub temperature: f32,
    /// A stable hash of the user's id, so that a provider's policy block hits one person and not
    /// the account.
    pub user: String,
    /// The conversation: the upstream keeps it on one provider, whose prompt cache stays warm.
    pub session_id: Uuid,
    /// The id of the request that caused it, passed on as `X-Request-Id`.
    pub request_id: Option<String>,
    /// W3C trace context, passed on.
    pub traceparent: Option<String>,
    /// The number of this try of the generation, from 1; later ones come back later.
    pub round: u32,
    /// Where all models fail this time, nothing is tried again.
    pub is_last_round: bool,
    /// How long the generation may still take: no wait is longer.
    pub time_left: Duration,
}

impl Call {
    /// The tokens that prompt and reply may take together, where `of` says how many a text may have.
    fn tokens(&self, of: impl Fn(&str) -> u32) -> u32 {
        let texts = self.messages.iter().map(|message| match &message.content {
            Content::Text(text) => of(text),
            Content::Parts(parts) => parts
                .iter()
                .map(|part| part.tokens(&of))
                .fold(0, u32::saturating_add),
        });
        // What marks the beginning and the end of each message.
        let marks = u32::try_from(self.messages.len())
            .unwrap_or(u32::MAX)
            .saturating_mul(4);
        let prompt = texts.fold(marks, u32::saturating_add);
        prompt.saturating_add(self.max_tokens)
    }
}

/// What a generation wants to hear while [`run`] works. Each method is awaited before the call
/// goes on, so a slow one slows the stream down; none can fail it.
pub trait Progress: Send {
    /// A request is about to go out.
    fn calling(&mut self, model: &Model, key_label: &str) -> impl Future<Output = ()> + Send;

    /// The upstream took the request and named it; comes before the first text, at most once a call.
    fn accepted(&mut self, upstream_id: &str) -> impl Future<Output = ()> + Send;

    /// More of the reply, never empty.
    fn text(&mut self, piece: &str) -> impl Future<Output = ()> + Send;

    /// No text came for `INTERIM_AFTER`; said once per silence.
    fn quiet(&mut self) -> impl Future<Output = ()> + Send;

    /// A call ended, well or not. It is not said for a call that was dropped.
    fn call_ended(&mut self, record: CallRecord) -> impl Future<Output = ()> + Send;

    /// Another call follows after `delay`, of `next`, which may be `model` again; the text so far
    /// is void.
    fn retrying(
        &mut self,
        model: &Model,
        reason: ErrorClass,
        next: &Model,
        delay: Duration,
    ) -> impl Future<Output = ()> + Send;
}

/// How a [`run`] ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// There is a reply.
    Completed(Answer),
    /// The upstream said when to come back, and that is too long to hold a worker.
    PutBack {
        /// How long to wait.
        after: Duration,
        /// Why.
        reason: ErrorClass,
        /// For the log; no content, no keys.
        detail: String,
    },
    /// The account's limits allow no call for a while; none was refused.
    Paced {
        /// Until it is its turn.
        after: Duration,
        /// How many have their turn before.
        ahead: u64,
        /// A call of this try may have cost something, so the try counts.
        charged: bool,
    },
    /// Every model failed in a way that passes.
    Again {
        /// When to begin with the chain again; with a random part, and never so soon that many
        /// generations together would be more than the upstream is used to.
        after: Duration,
        /// What the last error was.
        reason: ErrorClass,
        /// For the log; no content, no keys.
        detail: String,
    },
    /// There is none, and waiting does not help.
    Failed {
        /// What the person may know.
        code: FailureCode,
        /// What the last error was.
        reason: ErrorClass,
        /// For the log; no content, no keys.
        detail: String,
    },
}
