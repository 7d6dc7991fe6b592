//! Providers of single models beside the upstream: each has an address, keys and a limit of its own, and the
//! models that are named for it. Everything else is asked of the upstream.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use shared::config::Vars;

use super::client::{endpoint, is_this_machine};
use super::config::Dialect;
use super::keys::Keys;
use super::{BuildError, EmbeddingConfig};

/// A provider as an operator names it.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// For the log and for pacing.
    pub name: String,
    /// Where `/chat/completions` is; ends without a slash.
    pub base_url: Url,
    /// API keys, best first. Empty: requests go without one.
    pub keys: Vec<SecretString>,
    /// The models that are asked of it.
    pub models: Vec<String>,
    /// Which fields a request may have.
    pub dialect: Dialect,
    /// Calls in any minute, over all workers; 0 is no limit.
    pub per_minute: u32,
}

/// The same as it stands in the variable.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    base_url: String,
    #[serde(default)]
    api_keys: Vec<String>,
    models: Vec<String>,
    #[serde(default)]
    dialect: Option<String>,
    #[serde(default)]
    requests_per_minute: u32,
}

impl ProviderConfig {
    /// Reads the variables; mistakes are collected in `vars`. The provider of vectors serves chat models, too,
    /// where any are named.
    pub(super) fn all_from_vars(vars: &mut Vars) -> Vec<Self> {
        let mut providers = Self::nebius(vars);
        // Declared as a secret: it holds keys.
        let texts = vars.secret_text(
            "UPSTREAM_PROVIDERS",
            "more providers of chat models, a JSON list of {name, base_url, api_keys, models, dialect, \
             requests_per_minute}; each is asked for its models, and OPENROUTER_BASE_URL for all others",
        );
        if let Some(text) = texts {
            match serde_json::from_str::<Vec<Written>>(text.expose_secret()) {
                Ok(written) => {
                    providers.extend(written.into_iter().filter_map(|one| one.checked(vars)));
                }
                // What serde says may quote a key.
                Err(error) => vars.problem(
                    "UPSTREAM_PROVIDERS",
                    format_args!(
                        "is no such JSON list (line {}, column {})",
                        error.line(),
                        error.column()
                    ),
                ),
            }
        }
        let mut seen: Vec<&str> = Vec::new();
        let mut twice = Vec::new();
        for model in providers.iter().flat_map(|one| &one.models) {
            match seen.contains(&model.as_str()) {
                true => twice.push(model.clone()),
                false => seen.push(model),
            }
        }
        for model in twice {
            vars.problem(
                "UPSTREAM_PROVIDERS",
                format_args!("{model} is named for two providers"),
            );
        }
        providers
    }

    fn nebius(vars: &mut Vars) -> Vec<Self> {
        let models = vars.list(
            "NEBIUS_MODEL_ID",
            "",
            "chat models that NEBIUS_BASE_URL is asked for, comma-separated; name them in DEFAULT_MODEL and its like",
        );
        let per_minute = vars.within(
            "NEBIUS_RATE_LIMIT_PER_MINUTE",
            0,
            (0, 100_000),
            "chat calls that it allows in any minute, over all workers; 0 is no limit",
        );
        if models.is_empty() {
            return Vec::new();
        }
        // Read a second time for the same answers; mistakes in it are told once, where vectors are set up.
        let vectors = EmbeddingConfig::from_vars(&mut vars.again());
        vec![Self {
            name: "nebius".to_owned(),
            base_url: vectors.base_url,
            keys: vectors.keys,
            models,
            dialect: Dialect::OpenAi,
            per_minute,
        }]
    }
}

impl Written {
    fn checked(self, vars: &mut Vars) -> Option<ProviderConfig> {
        let plain = |url: &Url| url.username().is_empty() && url.password().is_none();
        let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && plain(url);
        let url = self.base_url.trim_end_matches('/').parse().ok();
        let url = url.filter(usable);
        let sendable = |key: &String| HeaderValue::from_str(key).is_ok();
        let dialect = self.dialect.as_deref().unwrap_or("openai").parse();
        let problem = if self.name.is_empty() || self.models.is_empty() {
            "a provider needs a name and models"
        } else if url.is_none() {
            "base_url must be an http or https address without credentials"
        } else if !self.api_keys.iter().all(sendable) {
            "a key has characters that no header can carry"
        } else if dialect.is_err() {
            "dialect must be openrouter or openai"
        } else {
            ""
        };
        if !problem.is_empty() {
            vars.problem("UPSTREAM_PROVIDERS", problem);
        }
        Some(ProviderConfig {
            name: self.name,
            base_url: url?,
            keys: self.api_keys.into_iter().map(SecretString::from).collect(),
            models: self.models,
            dialect: dialect.ok()?,
            per_minute: self.requests_per_minute,
        })
    }
}

/// A provider as this process uses it.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) http: reqwest::Client,
    pub(super) endpoint: Url,
    pub(super) keys: Keys,
    pub(super) dialect: Dialect,
    models: Vec<String>,
}

impl Provider {
    pub(super) fn new(config: &ProviderConfig, connect: Duration) -> Result<Self, BuildError> {
        Ok(Self {
            http: http(&config.base_url, connect)?,
            endpoint: endpoint(&config.base_url, "chat/completions"),
            keys: Keys::new(config.keys.iter().cloned()),
            dialect: config.dialect,
            models: config.models.clone(),
        })
    }

    pub(super) fn serves(&self, model: &str) -> bool {
        self.models.iter().any(|own| own == model)
    }
}

/// How many connections are kept for later calls. A burst opens as many as it needs; keeping them
/// all would hold their memory long after it.
const IDLE_CONNECTIONS: usize = 128;

/// Connections to one provider.
///
/// HTTP/1.1 only: with HTTP/2 all generations of the process would share one connection, and
/// beyond the server's limit of streams they would wait behind one another unnoticed. One
/// connection each also makes closing it mean exactly one cancelled call.
pub(super) fn http(base_url: &Url, connect: Duration) -> Result<reqwest::Client, BuildError> {
    // Fails when another part of the process chose a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .connect_timeout(connect)
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .user_agent(concat!("balas/", env!("CARGO_PKG_VERSION")));
    if base_url.scheme() == "http" {
        // Redirects are not followed, so no certificate is ever looked at.
        builder = builder.tls_certs_only([]);
    }
    if is_this_machine(base_url) {
        // A proxy that the environment names for the outside world cannot reach it.
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Vec<ProviderConfig>, String> {
        let mut vars = Vars::from_map(pairs.iter().copied());
        let providers = ProviderConfig::all_from_vars(&mut vars);
        vars.finish().map_err(|error| error.to_string())?;
        Ok(providers)
    }

    #[test]
    fn providers_have_keys_limits_and_models_of_their_own() {
        assert!(read(&[]).unwrap().is_empty());
        let providers = read(&[
            ("NEBIUS_MODEL_ID", "meta/llama, qwen/qwen"),
            ("NEBIUS_BASE_URL", "http://localhost:1/v1/"),
            ("NEBIUS_API_KEY", "sk-n"),
            ("NEBIUS_RATE_LIMIT_PER_MINUTE", "60"),
            (
                "UPSTREAM_PROVIDERS",
                r#"[{"name":"own","base_url":"http://gpu:8000/v1/","models":["own/model"],"api_keys":["sk-o"],"requests_per_minute":5,"dialect":"openai"}]"#,
            ),
        ])
        .unwrap();
        let brief: Vec<_> = providers
            .iter()
            .map(|one| {
                (
                    one.name.as_str(),
                    one.base_url.as_str(),
                    one.keys[0].expose_secret(),
                    one.models.len(),
                    one.per_minute,
                )
            })
            .collect();
        assert_eq!(
            brief,
            [
                ("nebius", "http://localhost:1/v1", "sk-n", 2, 60),
                ("own", "http://gpu:8000/v1", "sk-o", 1, 5)
            ]
        );
        assert!(!format!("{providers:?}").contains("sk-"));
    }

    #[test]
    fn mistakes_are_named_and_keys_are_not() {
        for (text, problem) in [
            (r#"{"name":"sk-secret"}"#, "no such JSON list"),
            (
                r#"[{"name":"x","base_url":"ftp://x","models":["m"]}]"#,
                "http or https",
            ),
            (
                r#"[{"name":"x","base_url":"http://u:p@x","models":["m"]}]"#,
                "without credentials",
            ),
            (
                r#"[{"name":"x","base_url":"http://x","models":[]}]"#,
                "needs a name and models",
            ),
            (
                r#"[{"name":"x","base_url":"http://x","models":["m","m"]}]"#,
                "named for two",
            ),
            (
                r#"[{"name":"x","base_url":"http://x","models":["m"],"dialect":"sk-secret"}]"#,
                "dialect must be",
            ),
            (
                r#"[{"name":"x","base_url":"http://x","models":["m"],"api_keys":["sk-secret\u0007"]}]"#,
                "no header",
            ),
        ] {
            let error = read(&[("UPSTREAM_PROVIDERS", text)]).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(!error.contains("sk-secret"), "{error}");
        }
    }
}
