//! What an operator sets for the API process.

mod auth;
mod broker;
mod limits;
mod server;

use std::time::Duration;

use platform::PlatformConfig;
use secrecy::SecretString;
use shared::budgets::{AnomalyRules, BudgetsConfig};
use shared::config::Vars;
use shared::models::ModelsConfig;
use shared::redis::RedisConfig;
use shared::store::DbConfig;
use shared::telemetry::LogConfig;
use shared::traces::TracesConfig;

pub use auth::AuthConfig;
pub use broker::BrokerAddress;
pub use limits::LimitConfig;
pub use server::{AllowedOrigins, ServerConfig, address};

/// Everything the process reads of its environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// What only the API reads.
    pub api: ApiConfig,
    /// The database.
    pub db: DbConfig,
    /// The database, for operators.
    pub operator_db: DbConfig,
    /// A replica to read history from, if there is one.
    pub history_db: Option<DbConfig>,
    /// Redis.
    pub redis: RedisConfig,
    /// Which models may be used.
    pub models: ModelsConfig,
    /// How to log.
    pub log: LogConfig,
}

impl Config {
    /// Declares and reads every variable; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let api = ApiConfig::from_vars(vars);
        let db = DbConfig::from_vars(vars);
        let config = Self {
            api,
            operator_db: db.for_operators(vars),
            history_db: db.for_history(vars),
            db,
            redis: RedisConfig::from_vars(vars),
            models: ModelsConfig::from_vars(vars),
            log: LogConfig::from_vars(vars),
        };
        migrate_url(vars);
        config
    }
}

/// The login for `balas-api migrate`, where that of the serving process may not create roles.
pub fn migrate_url(vars: &mut Vars) -> Option<SecretString> {
    let url: Option<String> = vars.optional(
        "MIGRATE_DATABASE_URL",
        "Postgres for `balas-api migrate`, where DATABASE_URL may not create roles; secret",
    );
    url.map(SecretString::from)
}

/// What only the API reads.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Where and how it listens.
    pub server: ServerConfig,
    /// Whom it believes.
    pub auth: AuthConfig,
    /// How much it takes.
    pub limits: LimitConfig,
    /// What may be spent.
    pub budgets: BudgetsConfig,
    /// What counts as far above the usual.
    pub anomalies: AnomalyRules,
    /// Tokens of history that a prompt may hold, for what is reserved of a budget.
    pub history_tokens: u32,
    /// Whether `/metrics` answers.
    pub enable_metrics: bool,
    /// The upstream's address, asked by `/health?full=true` only.
    pub upstream_base_url: Option<String>,
    /// The platform's other services.
    pub platform: PlatformConfig,
    /// The broker, asked by `/health` only.
    pub broker: Option<BrokerAddress>,
    /// Work that has waited for longer makes `/health` degraded; zero is never.
    pub health_queue_wait: Duration,
    /// Where spans go.
    pub traces: TracesConfig,
}

impl ApiConfig {
    /// Declares and reads every variable; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let server = ServerConfig::from_vars(vars);
        let auth = AuthConfig::from_vars(vars);
        let platform = PlatformConfig::from_vars(vars, &auth.service_keys);
        Self {
            server,
            auth,
            platform,
            limits: LimitConfig::from_vars(vars),
            budgets: BudgetsConfig::from_vars(vars),
            anomalies: AnomalyRules::from_vars(vars),
            history_tokens: vars.within(
                "MAX_CONVERSATION_HISTORY_TOKENS",
                6000,
                (100, 1_000_000),
                "tokens of history that a prompt may hold; the API reckons with it what a reply may cost",
            ),
            enable_metrics: vars.flag("ENABLE_METRICS", true, "whether /metrics answers"),
            upstream_base_url: url(
                vars,
                "OPENROUTER_BASE_URL",
                "the upstream's address; the API only asks it for /health?full=true",
            ),
            broker: BrokerAddress::from_vars(vars),
            health_queue_wait: vars.seconds(
                "HEALTH_QUEUE_WAIT",
                "60",
                "seconds that work may wait before /health says degraded; 0 is never",
            ),
            traces: TracesConfig::from_vars(vars),
        }
    }

    /// Settings that work but that an operator should know about, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if matches!(self.server.cors, AllowedOrigins::Any) {
            warnings
                .push("CORS_ALLOWED_ORIGINS=* lets any web page call the API with a token it has");
        }
        if self
            .server
            .trusted_proxies
            .iter()
            .any(|network| network.prefix_len() == 0)
        {
            warnings.push("TRUSTED_PROXIES covers every address, so clients can forge their own");
        }
        if self.auth.service_keys.is_empty() {
            warnings.push("INTERNAL_SERVICE_KEY is not set, so internal calls are refused");
        }
        if self.auth.issuer.is_none() && self.auth.jwks_url.is_some() {
            warnings.push(
                "JWT_ISSUER is not set, so tokens of any issuer in JWT_JWKS_URL are accepted",
            );
        }
        warnings
    }
}

fn positive(vars: &mut Vars, name: &'static str, default: &str, help: &'static str) -> Duration {
    let duration = vars.seconds(name, default, help);
    if duration.is_zero() {
        vars.problem(name, "must be more than 0");
    }
    duration
}

fn url(vars: &mut Vars, name: &'static str, help: &'static str) -> Option<String> {
    let url: String = vars.optional(name, help)?;
    let valid = url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if !valid {
        vars.problem(name, "must be an http or https address");
        return None;
    }
    Some(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    const SECRET: (&str, &str) = ("JWT_SECRET", "0123456789abcdef,fedcba9876543210");

    #[test]
    fn defaults_are_those_of_the_contract() {
        let mut vars = Vars::from_map([SECRET]);
        let config = ApiConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        assert_eq!(config.server.address.to_string(), "127.0.0.1:8080");
        assert_eq!(config.limits.max_message_length, 4000);
        assert_eq!(config.limits.max_body_bytes, 10 * 1024 * 1024);
        assert_eq!(
            (
                config.limits.messages_per_hour,
                config.limits.conversations_per_day
            ),
            (200, 100)
        );
        assert_eq!(config.limits.max_queue_depth, 50_000);
        assert_eq!(config.server.request_timeout, Duration::from_secs(30));
        assert_eq!(config.auth.jwt_secrets.len(), 2);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut vars = Vars::from_map([
            ("JWT_SECRET", "short"),
            ("INTERNAL_SERVICE_KEY", "long-enough-for-a-key,short"),
            ("CORS_ALLOWED_ORIGINS", "https://a.example/path"),
            ("TRUSTED_PROXIES", "10.0.0.0/33"),
            ("JWT_JWKS_URL", "ftp://keys"),
            ("REQUEST_TIMEOUT", "0"),
            ("HOST", "localhost"),
        ]);
        ApiConfig::from_vars(&mut vars);
        let text = vars.finish().unwrap_err().to_string();
        for name in [
            "JWT_SECRET",
            "INTERNAL_SERVICE_KEY",
            "CORS_ALLOWED_ORIGINS",
            "TRUSTED_PROXIES",
            "JWT_JWKS_URL",
            "REQUEST_TIMEOUT",
            "HOST",
        ] {
            assert!(text.contains(name), "{name} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_single_address_is_a_network_of_one() {
        let mut vars = Vars::from_map([SECRET, ("TRUSTED_PROXIES", "10.1.2.3, fd00::/8")]);
        let config = ApiConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        let shown: Vec<_> = config
            .server
            .trusted_proxies
            .iter()
            .map(IpNet::to_string)
            .collect();
        assert_eq!(shown, ["10.1.2.3/32", "fd00::/8"]);
    }
}
