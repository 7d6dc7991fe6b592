//! What an operator sets about the provider of vectors.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use shared::config::Vars;

const DEFAULT_BASE_URL: &str = "https://api.studio.nebius.com/v1";

/// Everything about vectors that is set by environment variables.
#[derive(Clone, Debug)]
pub struct EmbeddingConfig {
    /// Where `/embeddings` is; ends without a slash.
    pub base_url: Url,
    /// API keys, best first.
    pub keys: Vec<SecretString>,
    /// The model of the first profile; later ones are made by reindexing.
    pub model: String,
    /// Numbers in its vectors.
    pub dimension: i32,
    /// Tokens of one text, and of all texts of a call together.
    pub max_tokens: u32,
    /// Texts of one call.
    pub batch_size: usize,
    /// For one call.
    pub timeout: Duration,
    /// How often a call that failed in a way that passes is made again.
    pub max_retries: usize,
    /// Questions whose vectors this process remembers.
    pub cache_size: u64,
    /// For how long it does.
    pub cache_ttl: Duration,
    /// Calls in any minute, over all workers; 0 is no limit.
    pub per_minute: u32,
}

impl EmbeddingConfig {
    /// Whether there is anybody to ask: a key, or a server of one's own.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        !self.keys.is_empty() || self.base_url.as_str() != DEFAULT_BASE_URL
    }

    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let keys = vars.secrets(
            "NEBIUS_API_KEY",
            "API keys of the embedding provider, comma-separated, best first; without one the help desk searches by words only",
        );
        if keys
            .iter()
            .any(|key| HeaderValue::from_str(key.expose_secret()).is_err())
        {
            vars.problem(
                "NEBIUS_API_KEY",
                "a key has characters that no header can carry",
            );
        }
        let hours: u64 = vars.within(
            "CACHE_TTL_HOURS",
            24,
            (1, 8760),
            "hours for which a question's vector is remembered",
        );
        Self {
            base_url: base_url(vars),
            keys,
            model: vars.get(
                "NEBIUS_EMBEDDING_MODEL",
                "Qwen/Qwen3-Embedding-8B",
                "embedding model of a new knowledge base; an existing one keeps its own until it is reindexed",
            ),
            dimension: vars.within("EMBEDDING_DIMENSION", 1536, (1, 3900), "numbers in a vector of that model"),
            max_tokens: vars.within(
                "MAX_EMBEDDING_TOKENS",
                8191,
                (16, 1_000_000),
                "tokens of one text, and of all texts of a call together",
            ),
            batch_size: vars.within("EMBEDDING_BATCH_SIZE", 10, (1, 2048), "texts of one call"),
            timeout: vars.seconds("EMBEDDING_TIMEOUT", "30", "for one call, seconds"),
            max_retries: vars.within(
                "MAX_RETRIES",
                3,
                (0, 20),
                "how often an embedding call that failed in a way that passes is made again",
            ),
            cache_size: vars.within("EMBEDDING_CACHE_SIZE", 1000, (0, 10_000_000), "questions whose vectors a worker remembers"),
            cache_ttl: Duration::from_secs(hours * 3600),
            per_minute: vars.within(
                "EMBEDDING_RATE_LIMIT_PER_MINUTE",
                0,
                (0, 100_000),
                "embedding calls that the provider allows in any minute, over all workers; 0 is no limit",
            ),
        }
    }
}

fn base_url(vars: &mut Vars) -> Url {
    let mut url: Url = vars.get(
        "NEBIUS_BASE_URL",
        DEFAULT_BASE_URL,
        "OpenAI-compatible API of the embedding provider, without /embeddings",
    );
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        vars.problem("NEBIUS_BASE_URL", "must be an http or https address");
    } else if !url.username().is_empty() || url.password().is_some() {
        vars.problem(
            "NEBIUS_BASE_URL",
            "must not carry credentials; use NEBIUS_API_KEY",
        );
    } else {
        let trimmed = url.path().trim_end_matches('/').to_owned();
        url.set_path(&trimmed);
    }
    url
}
