//! One shared, self-healing connection to Redis for commands that do not block.
//!
//! Nothing in Redis is a promise, so every command has a short timeout and a failure is an answer
//! like any other. After a failure the next commands fail at once for a moment: a request must not
//! wait 300 ms for each hint while Redis is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use ::redis::{Client, FromRedisValue, Pipeline, RedisError};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use crate::config::Vars;

/// The longest a command may take.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long commands fail at once after one failed.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://` or `rediss://`; secret, as it may hold a password.
    pub url: SecretString,
    /// Put before every key, so that several installations can share a server.
    pub prefix: String,
}

impl RedisConfig {
    /// Reads `REDIS_URL` and `REDIS_KEY_PREFIX`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let url: String = vars.get(
            "REDIS_URL",
            "redis://127.0.0.1:6379",
            "Redis, as redis://user:password@host:port/db",
        );
        if Client::open(url.as_str()).is_err() {
            vars.problem("REDIS_URL", "must look like redis://host:port");
        }
        let prefix = vars.get("REDIS_KEY_PREFIX", "balas", "put before every key in Redis");
        Self {
            url: url.into(),
            prefix,
        }
    }
}

/// A hint could not be given or a copy not be read.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// A command failed a moment ago; this one was not tried.
    #[error("failed to use redis: it was away a moment ago")]
    BackingOff,
    /// The command failed.
    #[error("failed to use redis")]
    Command(#[from] RedisError),
    /// The command took too long; it may have run.
    #[error("failed to use redis: no answer in time")]
    Timeout,
}

impl RedisFailure {
    /// Whether the server answered, with an error of its own.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        let Self::Command(error) = self else {
            return false;
        };
        // Of a pipeline's refusals the library names only those whose code it knows; a server that is
        // full says one that it does not.
        !error.is_io_error()
            && (error.code().is_some() || error.clone().into_server_errors().is_some())
    }
}

/// The shared connection.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    manager: ConnectionManager,
    prefix: Arc<str>,
    epoch: Instant,
    /// Milliseconds after `epoch` until which commands are not tried.
    retry_at: Arc<AtomicU64>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Prepares the connection; the first command opens it. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// When the URL cannot be parsed.
    pub fn connect_lazy(config: &RedisConfig) -> Result<Self, RedisFailure> {
        let client = Client::open(config.url.expose_secret())?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(RESPONSE_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_millis(500));
        Ok(Self {
            manager: ConnectionManager::new_lazy_with_config(client.clone(), settings)?,
            client,
            prefix: config.prefix.as_str().into(),
            epoch: Instant::now(),
            retry_at: Arc::default(),
        })
    }

    /// The name of a key of this installation.
    #[must_use]
    pub fn key(&self, name: impl std::fmt::Display) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// Runs a pipeline.
    ///
    /// # Errors
    /// When Redis is away, too slow, or refuses.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.manager.clone();
        self.guarded(pipeline.query_async(&mut connection)).await
    }

    /// Runs one command.
    ///
    /// # Errors
    /// When Redis is away, too slow, or refuses.
    pub async fn command<T: FromRedisValue>(
        &self,
        command: &::redis::Cmd,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.manager.clone();
        self.guarded(command.query_async(&mut connection)).await
    }

    /// Runs a script, loading it where the server does not know it yet.
    ///
    /// # Errors
    /// When Redis is away, too slow, or refuses.
    pub async fn script<T: FromRedisValue + Send + Sync>(
        &self,
        invocation: &::redis::ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.manager.clone();
        self.guarded(invocation.invoke_async(&mut connection)).await
    }

    async fn guarded<T>(
        &self,
        work: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisFailure> {
        if self.elapsed() < self.retry_at.load(Ordering::Relaxed) {
            return Err(RedisFailure::BackingOff);
        }
        let outcome = match tokio::time::timeout(RESPONSE_TIMEOUT, work).await {
            Ok(answer) => answer.map_err(RedisFailure::Command),
            Err(_) => Err(RedisFailure::Timeout),
        };
        if let Err(failure) = &outcome
            && !failure.is_answer()
        {
            metrics::counter!(crate::metrics::REDIS_FAILURES).increment(1);
            let back_off = u64::try_from(BACK_OFF.as_millis()).unwrap_or(u64::MAX);
            self.retry_at
                .store(self.elapsed() + back_off, Ordering::Relaxed);
        }
        outcome
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks Redis for a sign of life, whatever happened before.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> Result<(), RedisFailure> {
        self.retry_at.store(0, Ordering::Relaxed);
        self.command(&::redis::cmd("PING")).await
    }

    /// Asks Redis for a sign of life like any other command: not at all, if one failed a moment ago.
    ///
    /// # Errors
    /// When there is none.
    pub async fn probe(&self) -> Result<(), RedisFailure> {
        self.command(&::redis::cmd("PING")).await
    }

    /// Opens a connection of its own for subscriptions.
    ///
    /// # Errors
    /// When Redis cannot be reached within a second.
    pub(crate) async fn pubsub(&self) -> Result<PubSub, RedisFailure> {
        let opening = self.client.get_async_pubsub();
        match tokio::time::timeout(Duration::from_secs(1), opening).await {
            Ok(opened) => Ok(opened?),
            Err(_) => Err(RedisFailure::Timeout),
        }
    }

    /// Opens a connection of its own for a blocking wait of up to `block`. A blocking command on the
    /// shared connection would hold up everybody else's.
    ///
    /// # Errors
    /// When Redis cannot be reached within a second.
    pub(crate) async fn blocking(
        &self,
        block: Duration,
    ) -> Result<::redis::aio::MultiplexedConnection, RedisFailure> {
        let settings = ::redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(block + Duration::from_secs(1)));
        Ok(self
            .client
            .get_multiplexed_async_connection_with_config(&settings)
            .await?)
    }
}
