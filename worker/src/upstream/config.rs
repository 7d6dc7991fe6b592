//! What an operator sets about the upstream.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use shared::config::Vars;
use shared::models::ModelsConfig;

use super::{ProviderConfig, key_file};

const DEFAULT_BASE_URL: &str = "https://openrouter.ai/api/v1";

/// How long each part of a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To open a connection.
    pub connect: Duration,
    /// From sending the request to the first token. Comments in the stream do not count.
    pub first_token: Duration,
    /// Between two signs of life, comments included, once the first token came.
    pub idle: Duration,
    /// For the whole call.
    pub total: Duration,
    /// Without text for so long, the person is told that it takes a while.
    pub interim_after: Duration,
}

/// Which fields a request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// With OpenRouter's own fields; most other servers ignore them.
    OpenRouter,
    /// Only what OpenAI documents, for servers that refuse unknown fields.
    OpenAi,
}

impl Dialect {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenRouter => "openrouter",
            Self::OpenAi => "openai",
        }
    }
}

impl FromStr for Dialect {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "openrouter" => Ok(Self::OpenRouter),
            "openai" => Ok(Self::OpenAi),
            _ => Err("must be openrouter or openai"),
        }
    }
}

/// Everything about the upstream that is set by environment variables.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The models and what each call of them is given.
    pub models: ModelsConfig,
    /// Where `/chat/completions` is; ends without a slash.
    pub base_url: Url,
    /// API keys, best first. Empty: requests go without one, as self-hosted servers allow.
    pub keys: Vec<SecretString>,
    /// A file with more keys, read again when it changes.
    pub keys_file: Option<PathBuf>,
    /// Who is asked for single models instead.
    pub providers: Vec<ProviderConfig>,
    /// How long each part of a call may take.
    pub timeouts: Timeouts,
    /// `HTTP-Referer`, which OpenRouter shows in its rankings.
    pub referer: Option<HeaderValue>,
    /// `X-Title`, likewise.
    pub title: Option<HeaderValue>,
    /// OpenRouter's provider routing object, passed on as it is.
    pub provider: Option<serde_json::Value>,
    /// Which fields a request may have.
    pub dialect: Dialect,
    /// How often the upstream is asked for its models; zero is never.
    pub models_refresh: Duration,
}

impl UpstreamConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let models = ModelsConfig::from_vars(vars);
        let base_url = base_url(vars);
        let mut keys = vars.secrets("OPENROUTER_API_KEY", "API key of the upstream");
        keys.extend(vars.secrets(
            "OPENROUTER_API_KEYS",
            "more keys, comma-separated; the first that works is used",
        ));
        let unusable = |key: &SecretString| HeaderValue::from_str(key.expose_secret()).is_err();
        if keys.iter().any(unusable) {
            vars.problem(
                "OPENROUTER_API_KEY",
                "a key has characters that no header can carry",
            );
        }
        let keys_file: Option<PathBuf> = vars.optional(
            "OPENROUTER_API_KEYS_FILE",
            "file with keys, one a line, after the others; read again when it changes",
        );
        let unread = keys_file
            .as_deref()
            .and_then(|path| key_file::read(path).err());
        if let Some(problem) = unread {
            vars.problem("OPENROUTER_API_KEYS_FILE", problem);
        }
        let providers = ProviderConfig::all_from_vars(vars);
        let elsewhere = |name: &str| {
            let mut models = providers.iter().flat_map(|one| &one.models);
            models.any(|own| own == name)
        };
        let needs_key = base_url.as_str() == DEFAULT_BASE_URL && !models.names().all(elsewhere);
        if keys.is_empty() && keys_file.is_none() && needs_key {
            vars.problem("OPENROUTER_API_KEY", "is required for openrouter.ai");
        }
        Self {
            models,
            base_url,
            keys,
            keys_file,
            providers,
            timeouts: timeouts(vars),
            referer: vars.optional("OPENROUTER_REFERER", "sent as HTTP-Referer"),
            title: vars.optional("OPENROUTER_TITLE", "sent as X-Title"),
            provider: provider(vars),
            dialect: vars.get(
                "UPSTREAM_DIALECT",
                "openrouter",
                "openrouter, or openai for servers that refuse OpenRouter's own fields",
            ),
            models_refresh: vars.seconds(
                "MODELS_REFRESH",
                "3600",
                "how often GET /models is asked for context windows and prices, seconds; 0 is never",
            ),
        }
    }
}

fn timeouts(vars: &mut Vars) -> Timeouts {
    let timeouts = Timeouts {
        connect: vars.seconds(
            "UPSTREAM_CONNECT_TIMEOUT",
            "5",
            "to open a connection, seconds",
        ),
        first_token: vars.seconds(
            "UPSTREAM_FIRST_TOKEN_TIMEOUT",
            "20",
            "from the request to the first token, seconds",
        ),
        idle: vars.seconds(
            "UPSTREAM_IDLE_TIMEOUT",
            "15",
            "between two signs of life, seconds",
        ),
        total: vars.seconds("UPSTREAM_TOTAL_TIMEOUT", "45", "for a whole call, seconds"),
        interim_after: vars.seconds(
            "INTERIM_AFTER",
            "10",
            "without text for so long, the person is told that it takes a while, seconds",
        ),
    };
    for (name, value) in [
        ("UPSTREAM_CONNECT_TIMEOUT", timeouts.connect),
        ("UPSTREAM_FIRST_TOKEN_TIMEOUT", timeouts.first_token),
        ("UPSTREAM_IDLE_TIMEOUT", timeouts.idle),
        ("UPSTREAM_TOTAL_TIMEOUT", timeouts.total),
        ("INTERIM_AFTER", timeouts.interim_after),
    ] {
        if value.is_zero() || value > Duration::from_hours(1) {
            vars.problem(name, "must be more than 0 and at most 3600 seconds");
        }
    }
    timeouts
}

fn base_url(vars: &mut Vars) -> Url {
    let mut url: Url = vars.get(
        "OPENROUTER_BASE_URL",
        DEFAULT_BASE_URL,
        "OpenAI-compatible API of the upstream, without /chat/completions",
    );
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        vars.problem("OPENROUTER_BASE_URL", "must be an http or https address");
    } else if !url.username().is_empty() || url.password().is_some() {
        vars.problem(
            "OPENROUTER_BASE_URL",
            "must not carry credentials; use OPENROUTER_API_KEY",
        );
    }
    let trimmed = url.path().trim_end_matches('/').to_owned();
    url.set_path(&trimmed);
    url
}

fn provider(vars: &mut Vars) -> Option<serde_json::Value> {
    let text: String = vars.optional(
        "OPENROUTER_PROVIDER",
        "OpenRouter's provider routing, a JSON object",
    )?;
    match serde_json::from_str(&text) {
        Ok(value @ serde_json::Value::Object(_)) => Some(value),
        _ => {
            vars.problem("OPENROUTER_PROVIDER", "must be a JSON object");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_both_variables_are_used_in_order_and_never_shown() {
        let mut vars = Vars::from_map([
            ("OPENROUTER_API_KEY", "sk-one"),
            ("OPENROUTER_API_KEYS", "sk-two, sk-three"),
            ("OPENROUTER_BASE_URL", "http://localhost:9/v1/"),
        ]);
        let config = UpstreamConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        let keys: Vec<_> = config.keys.iter().map(|key| key.expose_secret()).collect();
        assert_eq!(keys, ["sk-one", "sk-two", "sk-three"]);
        assert_eq!(config.base_url.as_str(), "http://localhost:9/v1");
        assert!(!format!("{config:?}").contains("sk-"));
    }

    #[test]
    fn mistakes_are_named() {
        let mut vars = Vars::from_map([
            ("OPENROUTER_API_KEY", "sk-\u{7}"),
            ("OPENROUTER_BASE_URL", "ftp://example.org"),
            ("UPSTREAM_IDLE_TIMEOUT", "0"),
            ("OPENROUTER_PROVIDER", "[1]"),
            ("UPSTREAM_DIALECT", "klingon"),
            ("TEMPERATURE", "nan"),
        ]);
        UpstreamConfig::from_vars(&mut vars);
        let text = vars.finish().unwrap_err().to_string();
        for name in [
            "OPENROUTER_API_KEY",
            "OPENROUTER_BASE_URL",
            "UPSTREAM_IDLE_TIMEOUT",
            "OPENROUTER_PROVIDER",
            "UPSTREAM_DIALECT",
            "TEMPERATURE",
        ] {
            assert!(text.contains(name), "{name} is missing from {text}");
        }
    }

    #[test]
    fn openrouter_needs_a_key_and_others_do_not() {
        let mut vars = Vars::from_map([("DEFAULT_MODEL", "a:free")]);
        UpstreamConfig::from_vars(&mut vars);
        assert!(
            vars.finish()
                .unwrap_err()
                .to_string()
                .contains("OPENROUTER_API_KEY")
        );
        let mut vars = Vars::from_map([("OPENROUTER_BASE_URL", "http://vllm:8000/v1")]);
        UpstreamConfig::from_vars(&mut vars);
        vars.finish().unwrap();
    }
}
