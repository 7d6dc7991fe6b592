//! How the simulator behaves when nothing scripts a call.

use serde::{Deserialize, Serialize};

/// The defaults of every call, and the limits of the simulator itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Milliseconds before the answer's headers.
    pub ttfb_ms: u64,
    /// Milliseconds from the headers to the first token.
    pub ttft_ms: u64,
    /// Tokens per second; 0 sends everything at once.
    pub rate: f64,
    /// Shortest reply in tokens.
    pub tokens_min: u32,
    /// Longest reply in tokens; the length between depends on the question only.
    pub tokens_max: u32,
    /// Tokens per chunk.
    pub chunk: u32,
    /// Milliseconds between comments while nothing else is sent; 0 sends none.
    pub processing_ms: u64,
    /// Chunks per second of all streams together. With more streams than that allows, chunks
    /// carry more tokens each; the token rate and the text stay as they are.
    pub chunks_per_second: u32,
    /// A request without an API key is refused with 401.
    pub require_key: bool,
    /// Free models allow so many calls in any 60 seconds; 0 is no limit.
    pub free_per_minute: u32,
    /// Free models allow so many calls since the start; 0 is no limit.
    pub free_per_day: u32,
    /// Credits bought, for `GET /credits`.
    pub credits: rust_decimal::Decimal,
    /// Milliseconds after the end of a call before `GET /generation` knows it.
    pub generation_lag_ms: u64,
    /// How many calls are remembered.
    pub remembered_calls: usize,
    /// How many bytes of messages are remembered with them.
    pub remembered_bytes: usize,
}

impl Default for Settings {
    /// What a test wants: no delays, 24 tokens, one per chunk.
    fn default() -> Self {
        Self {
            ttfb_ms: 0,
            ttft_ms: 0,
            rate: 0.0,
            tokens_min: 24,
            tokens_max: 24,
            chunk: 1,
            processing_ms: 0,
            chunks_per_second: 20_000,
            require_key: true,
            free_per_minute: 0,
            free_per_day: 0,
            credits: rust_decimal::Decimal::from(100),
            generation_lag_ms: 0,
            remembered_calls: 200_000,
            remembered_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// The length of the reply to a question whose text has the hash `seed`.
    pub(crate) fn tokens(&self, seed: u64) -> u32 {
        let span = self.tokens_max.saturating_sub(self.tokens_min);
        let offset = u32::try_from((seed >> 16) % (u64::from(span) + 1)).unwrap_or(0);
        self.tokens_min.saturating_add(offset)
    }
}
