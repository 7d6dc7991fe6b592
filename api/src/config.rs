//! What an operator sets for the API process.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use secrecy::SecretString;
use shared::config::Vars;
use shared::models::ModelsConfig;
use shared::redis::RedisConfig;
use shared::store::DbConfig;
use shared::telemetry::LogConfig;

/// Everything the process reads of its environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// What only the API reads.
    pub api: ApiConfig,
    /// The database.
    pub db: DbConfig,
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
        let config = Self {
            api: ApiConfig::from_vars(vars),
            db: DbConfig::from_vars(vars),
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
    /// Whether `/metrics` answers.
    pub enable_metrics: bool,
    /// The upstream's address, asked by `/health?full=true` only.
    pub upstream_base_url: Option<String>,
}

/// Where and how the API listens.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Connections open at once; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// Origins whose pages may call the API, or all of them.
    pub cors: AllowedOrigins,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a request may take; waits and streams are exempt.
    pub request_timeout: Duration,
    /// How long requests in flight may take after SIGTERM.
    pub shutdown_grace: Duration,
    /// How long readiness is already false before the listener closes.
    pub shutdown_delay: Duration,
    /// Pause between two heartbeat comments of an event stream.
    pub heartbeat: Duration,
}

/// Origins whose pages may call the API.
#[derive(Clone, Debug)]
pub enum AllowedOrigins {
    /// Any page.
    Any,
    /// Just these.
    Only(Vec<HeaderValue>),
}

/// Whose credentials are believed.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// HS256 secrets; any of them verifies.
    pub jwt_secrets: Vec<SecretString>,
    /// Where the public keys of asymmetric tokens are published.
    pub jwks_url: Option<String>,
    /// The one issuer, when set.
    pub issuer: Option<String>,
    /// The one audience, when set.
    pub audience: Option<String>,
    /// Keys of other services; any of them is accepted.
    pub service_keys: Vec<SecretString>,
}

/// How much one request and one client may ask for.
#[derive(Clone, Copy, Debug)]
pub struct LimitConfig {
    /// Bytes of a request body.
    pub max_body_bytes: usize,
    /// Characters (not bytes) of a message.
    pub max_message_length: usize,
    /// Messages of one user in an hour.
    pub messages_per_hour: u32,
    /// New conversations of one user in a day.
    pub conversations_per_day: u32,
    /// Requests without valid credentials of one client address in a minute.
    pub unauthenticated_per_minute: u32,
    /// WebSockets and event streams of one user at once.
    pub streams_per_user: u32,
    /// How long a generation may take in all, waiting included.
    pub generation_deadline: Duration,
    /// Claims of a generation before it is given up.
    pub max_attempts: i32,
}

impl ApiConfig {
    /// Declares and reads every variable; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        Self {
            server: ServerConfig::from_vars(vars),
            auth: AuthConfig::from_vars(vars),
            limits: LimitConfig::from_vars(vars),
            enable_metrics: vars.flag("ENABLE_METRICS", true, "whether /metrics answers"),
            upstream_base_url: url(
                vars,
                "OPENROUTER_BASE_URL",
                "the upstream's address; the API only asks it for /health?full=true",
            ),
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

impl ServerConfig {
    fn from_vars(vars: &mut Vars) -> Self {
        let host: IpAddr = vars.get("HOST", "127.0.0.1", "address to listen on");
        let port: u16 = vars.get("PORT", "8080", "port to listen on; 0 takes a free one");
        Self {
            address: SocketAddr::new(host, port),
            max_connections: vars.within(
                "MAX_CONNECTIONS",
                20_000,
                (1, 1_000_000),
                "connections open at once; further ones wait to be accepted",
            ),
            cors: origins(vars),
            trusted_proxies: networks(vars),
            request_timeout: positive(
                vars,
                "REQUEST_TIMEOUT",
                "30",
                "seconds a request may take; waits and streams are exempt",
            ),
            shutdown_grace: vars.seconds(
                "SHUTDOWN_GRACE",
                "20",
                "seconds that requests in flight may take after SIGTERM",
            ),
            shutdown_delay: vars.seconds(
                "SHUTDOWN_DELAY",
                "0",
                "seconds between the readiness probe turning false and the listener closing",
            ),
            heartbeat: positive(
                vars,
                "HEARTBEAT_INTERVAL",
                "15",
                "seconds between two heartbeat comments of an event stream",
            ),
        }
    }
}

impl AuthConfig {
    fn from_vars(vars: &mut Vars) -> Self {
        let config = Self {
            jwt_secrets: vars.required_secrets(
                "JWT_SECRET",
                16,
                "comma-separated HS256 secrets of at least 16 bytes; any of them verifies a token",
            ),
            jwks_url: url(
                vars,
                "JWT_JWKS_URL",
                "where public keys for RS256, ES256 and EdDSA tokens are published",
            ),
            issuer: vars.optional("JWT_ISSUER", "the iss a token must have, when set"),
            audience: vars.optional("JWT_AUDIENCE", "the aud a token must have, when set"),
            service_keys: vars.secrets(
                "INTERNAL_SERVICE_KEY",
                "comma-separated keys of at least 16 bytes that other services send as X-Service-Key",
            ),
        };
        let short = |key: &SecretString| secrecy::ExposeSecret::expose_secret(key).len() < 16;
        if config.service_keys.iter().any(short) {
            vars.problem("INTERNAL_SERVICE_KEY", "each key needs at least 16 bytes");
        }
        config
    }
}

impl LimitConfig {
    fn from_vars(vars: &mut Vars) -> Self {
        Self {
            max_body_bytes: vars.within(
                "MAX_BODY_BYTES",
                10 * 1024 * 1024,
                (128 * 1024, 1024 * 1024 * 1024),
                "bytes a request body may have",
            ),
            max_message_length: vars.within(
                "MAX_MESSAGE_LENGTH",
                4000,
                (1, 1_000_000),
                "characters a message may have",
            ),
            messages_per_hour: vars.within(
                "RATE_LIMIT_MESSAGES_PER_HOUR",
                200,
                (1, 1_000_000_000),
                "messages one user may send in an hour",
            ),
            conversations_per_day: vars.within(
                "RATE_LIMIT_CONVERSATIONS_PER_DAY",
                100,
                (1, 1_000_000_000),
                "conversations one user may create in a day",
            ),
            unauthenticated_per_minute: vars.within(
                "RATE_LIMIT_UNAUTHENTICATED_PER_MINUTE",
                300,
                (1, 1_000_000_000),
                "requests without valid credentials one client address may make in a minute",
            ),
            streams_per_user: vars.within(
                "MAX_STREAMS_PER_USER",
                20,
                (1, 100_000),
                "WebSockets and event streams one user may hold open on one API process",
            ),
            generation_deadline: positive(
                vars,
                "GENERATION_DEADLINE",
                "600",
                "seconds a reply may take in all, waiting included, before it is given up",
            ),
            max_attempts: vars.within(
                "MAX_ATTEMPTS",
                5,
                (1, 100),
                "claims of a generation by workers before it is given up",
            ),
        }
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

fn origins(vars: &mut Vars) -> AllowedOrigins {
    const NAME: &str = "CORS_ALLOWED_ORIGINS";
    let list = vars.list(
        NAME,
        "",
        "comma-separated origins (https://app.example.org) whose pages may call the API; * is any",
    );
    if list.iter().any(|origin| origin == "*") {
        return AllowedOrigins::Any;
    }
    let parsed = list.iter().map(|origin| {
        let uri = origin.parse::<http::Uri>().ok()?;
        let is_origin = uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/";
        (is_origin && !origin.ends_with('/'))
            .then(|| HeaderValue::from_str(origin).ok())
            .flatten()
    });
    match parsed.collect::<Option<Vec<_>>>() {
        Some(origins) => AllowedOrigins::Only(origins),
        None => {
            vars.problem(NAME, "each origin is scheme://host[:port] without a path");
            AllowedOrigins::Only(Vec::new())
        }
    }
}

fn networks(vars: &mut Vars) -> Vec<IpNet> {
    const NAME: &str = "TRUSTED_PROXIES";
    let list = vars.list(
        NAME,
        "",
        "comma-separated networks (10.0.0.0/8) whose X-Forwarded-For is believed",
    );
    let network = |text: &String| {
        IpNet::from_str(text)
            .or_else(|_| IpAddr::from_str(text).map(IpNet::from))
            .ok()
    };
    match list.iter().map(network).collect::<Option<Vec<_>>>() {
        Some(networks) => networks,
        None => {
            vars.problem(
                NAME,
                "each item is an address or a network such as 10.0.0.0/8",
            );
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
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
