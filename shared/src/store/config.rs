//! Where the database is and how many connections a process may hold.

use std::time::Duration;

use secrecy::SecretString;

use crate::config::Vars;

/// One for the look at the queues each second, and some for people.
const OPERATOR_CONNECTIONS: u32 = 3;

/// What stands between a process and the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or what behaves like it: a connection is one session of the database.
    #[default]
    None,
    /// A pooler that may give each transaction another session, as `PgBouncer` does in transaction mode.
    Transaction,
}

impl std::str::FromStr for Pooler {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "transaction" => Ok(Self::Transaction),
            _ => Err("must be none or transaction"),
        }
    }
}

/// Connection settings of one process.
#[derive(Clone, Debug)]
pub struct DbConfig {
    /// `postgres://user:password@host:port/database`; secret, as it holds the password.
    pub url: SecretString,
    /// Connections kept open.
    pub pool_min: u32,
    /// Connections at most.
    pub pool_max: u32,
    /// How long a caller waits for a free connection before it gets "unavailable".
    pub acquire_timeout: Duration,
    /// Generations of one person that may be active at a time. What accepts, ends or sweeps them must
    /// know it.
    pub places: i64,
    /// What stands in between.
    pub pooler: Pooler,
}

impl DbConfig {
    /// Reads `DATABASE_URL`, or its parts `DB_HOST`, `DB_PORT`, `DB_NAME`, `DB_USER`, `DB_PASSWORD`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let url: Option<String> = vars.optional(
            "DATABASE_URL",
            "Postgres, as postgres://user:password@host:port/database; replaces DB_*",
        );
        let host: Option<String> =
            vars.optional("DB_HOST", "Postgres host, where DATABASE_URL is not set");
        let port: u16 = vars.get("DB_PORT", "5432", "Postgres port");
        let name: String = vars.get("DB_NAME", "balas", "Postgres database");
        let user: String = vars.get("DB_USER", "balas_api", "Postgres login");
        let password: Option<String> = vars.optional("DB_PASSWORD", "Postgres password; secret");
        let pool_min = vars.within("DB_POOL_MIN", 2_u32, (0, 1000), "connections kept open");
        let pool_max = vars.within("DB_POOL_MAX", 16_u32, (1, 1000), "connections at most");
        let acquire_timeout = vars.seconds(
            "DB_ACQUIRE_TIMEOUT",
            "3",
            "seconds to wait for a free connection before answering 503",
        );
        let places = vars.within(
            "MAX_ACTIVE_PER_USER",
            8,
            (1, 1_000_000),
            "generations of one user that may run or be ready to; more of them wait until one has ended",
        );
        let pooler: Pooler = vars.get(
            "DB_POOLER",
            "none",
            "transaction where a pooler in transaction mode stands before Postgres",
        );
        if pool_min > pool_max {
            vars.problem("DB_POOL_MIN", "must not exceed DB_POOL_MAX");
        }
        let url = match (url, host) {
            (Some(url), _) => url,
            (None, Some(host)) => {
                let password = password
                    .map(|p| format!(":{}", percent(&p)))
                    .unwrap_or_default();
                format!(
                    "postgres://{}{password}@{host}:{port}/{name}",
                    percent(&user)
                )
            }
            (None, None) => {
                vars.problem("DATABASE_URL", "is required (or DB_HOST)");
                String::new()
            }
        };
        if !url.is_empty() && url.parse::<sqlx::postgres::PgConnectOptions>().is_err() {
            vars.problem(
                "DATABASE_URL",
                "must look like postgres://user:password@host:port/database",
            );
        }
        Self {
            url: url.into(),
            pool_min,
            pool_max,
            acquire_timeout,
            places,
            pooler,
        }
    }
}

impl DbConfig {
    /// The same for operators: few connections, and a login of its own where the one that serves may
    /// not switch to `balas_operator`.
    #[must_use]
    pub fn for_operators(&self, vars: &mut Vars) -> Self {
        let url: Option<String> = vars.optional(
            "OPERATOR_DATABASE_URL",
            "Postgres for operators, where the login of DATABASE_URL may not be balas_operator; secret",
        );
        if let Some(url) = &url
            && url.parse::<sqlx::postgres::PgConnectOptions>().is_err()
        {
            vars.problem(
                "OPERATOR_DATABASE_URL",
                "must look like postgres://user:password@host:port/database",
            );
        }
        Self {
            url: url.map_or_else(|| self.url.clone(), SecretString::from),
            pool_min: 0,
            pool_max: OPERATOR_CONNECTIONS,
            acquire_timeout: self.acquire_timeout,
            places: self.places,
            pooler: self.pooler,
        }
    }
}

impl DbConfig {
    /// The same for reading history, where a replica is set.
    #[must_use]
    pub fn for_history(&self, vars: &mut Vars) -> Option<Self> {
        let url: String = vars.optional(
            "DATABASE_REPLICA_URL",
            "Postgres to read history from while it has all that the reader may know of; a streaming replica; secret",
        )?;
        if url.parse::<sqlx::postgres::PgConnectOptions>().is_err() {
            vars.problem(
                "DATABASE_REPLICA_URL",
                "must look like postgres://user:password@host:port/database",
            );
            return None;
        }
        Some(Self {
            url: url.into(),
            pool_min: 0,
            ..self.clone()
        })
    }
}

/// Percent-encodes what a user or password may not hold in a URL.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
