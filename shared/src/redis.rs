//! One shared, self-healing connection to Redis for commands that do not block; with Sentinels, to
//! whoever is the master.
//!
//! Nothing in Redis is a promise, so every command has a short timeout and a failure is an answer
//! like any other. After a failure commands fail at once until Redis gave a sign of life: a request
//! must not wait 300 ms for each hint while it is away.

mod presence;
mod sentinel;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig, PubSub};
use ::redis::{Client, FromRedisValue, Pipeline, RedisError};
use secrecy::{ExposeSecret as _, SecretString};

use self::presence::Presence;
use self::sentinel::{Address, Watched};
use crate::config::Vars;

/// The longest a command may take.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_millis(300);

/// Where Redis is.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://` or `redis+sentinel://`, with TLS `rediss://` or `rediss+sentinel://`; secret, as it may hold a
    /// password.
    pub url: SecretString,
    /// Put before every key, so that several installations can share a server.
    pub prefix: String,
    /// PEM certificates of those who sign the servers' certificates, where they are not the system's.
    pub authorities: Option<Arc<[u8]>>,
}

impl RedisConfig {
    /// Reads `REDIS_URL`, `REDIS_CA_FILE` and `REDIS_KEY_PREFIX`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let url: String = vars.get(
            "REDIS_URL",
            "redis://127.0.0.1:6379",
            "Redis, as redis://user:password@host:port/db or redis+sentinel://user:password@host:port,host:port/master/db; rediss for TLS",
        );
        let authorities = tls::authorities(vars);
        match Address::parse(&url, authorities.clone()) {
            Some(Err(problem)) => vars.problem("REDIS_URL", problem),
            None if tls::open(&url, authorities.as_deref()).is_err() => vars.problem(
                "REDIS_URL",
                "must look like redis://host:port or redis+sentinel://host:port,host:port/master",
            ),
            Some(Ok(_)) | None => {}
        }
        let prefix = vars.get("REDIS_KEY_PREFIX", "balas", "put before every key in Redis");
        Self {
            url: url.into(),
            prefix,
            authorities,
        }
    }
}

/// A hint could not be given or a copy not be read.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// A command failed, and Redis gave no sign of life since; this one was not tried.
    #[error("failed to use redis: it was away a moment ago")]
    BackingOff,
    /// The command failed.
    #[error("failed to use redis")]
    Command(#[from] RedisError),
    /// The command took too long; it may have run.
    #[error("failed to use redis: no answer in time")]
    Timeout,
    /// No Sentinel knows a master, or the one they name is none.
    #[error("failed to use redis: there is no master")]
    NoMaster,
}

impl RedisFailure {
    /// Whether the server answered, with an error of its own.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        let Self::Command(error) = self else {
            return false;
        };
        // Who takes no writes was the master until a moment ago.
        if self.is_read_only() {
            return false;
        }
        // Of a pipeline's refusals the library names only those whose code it knows; a server that is
        // full says one that it does not.
        !error.is_io_error()
            && (error.code().is_some() || error.clone().into_server_errors().is_some())
    }

    fn is_read_only(&self) -> bool {
        matches!(self, Self::Command(error) if error.code() == Some("READONLY"))
    }
}

/// A server that takes writes, and the connection to it.
#[derive(Clone)]
struct Master {
    host: String,
    port: u16,
    /// How many were found before it, and it.
    moves: u64,
    client: Client,
    manager: ConnectionManager,
}

impl std::fmt::Debug for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Master")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Who knows where Redis is.
#[derive(Clone)]
enum Place {
    /// The URL.
    Fixed(Box<Client>, ConnectionManager),
    /// Sentinels.
    Watched(Watched),
}

impl Place {
    /// The connection to the master; waits for the first that is found.
    async fn connection(&self) -> Result<ConnectionManager, RedisFailure> {
        match self {
            Self::Fixed(_, manager) => Ok(manager.clone()),
            Self::Watched(watched) => Ok(found(watched).await?.manager),
        }
    }

    async fn tried<T>(
        &self,
        work: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Result<T, RedisFailure> {
        let work = async { Ok(work(self.connection().await?).await?) };
        match tokio::time::timeout(RESPONSE_TIMEOUT, work).await {
            Ok(answer) => answer,
            Err(_) => Err(RedisFailure::Timeout),
        }
    }

    /// A sign of life.
    async fn pong(&self) -> Result<(), RedisFailure> {
        self.tried(async |mut connection| ::redis::cmd("PING").query_async(&mut connection).await)
            .await
    }

    /// Has Sentinels asked at once.
    fn nudge(&self) {
        if let Self::Watched(watched) = self {
            watched.nudge();
        }
    }
}

fn manager(client: &Client) -> Result<ConnectionManager, RedisError> {
    let settings = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(500));
    ConnectionManager::new_lazy_with_config(client.clone(), settings)
}

/// The shared connection.
#[derive(Clone)]
pub struct Redis {
    place: Place,
    prefix: Arc<str>,
    presence: Presence,
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
        let url = config.url.expose_secret();
        let place = match Address::parse(url, config.authorities.clone()) {
            Some(Ok(address)) => Place::Watched(Watched::start(address)),
            Some(Err(_)) => return Err(RedisFailure::NoMaster),
            None => {
                let client = tls::open(url, config.authorities.as_deref())?;
                let manager = manager(&client)?;
                Place::Fixed(Box::new(client), manager)
            }
        };
        Ok(Self {
            place,
            prefix: config.prefix.as_str().into(),
            presence: Presence::default(),
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
        self.guarded(async |mut connection| pipeline.query_async(&mut connection).await)
            .await
    }

    /// Runs one command.
    ///
    /// # Errors
    /// When Redis is away, too slow, or refuses.
    pub async fn command<T: FromRedisValue>(
        &self,
        command: &::redis::Cmd,
    ) -> Result<T, RedisFailure> {
        self.guarded(async |mut connection| command.query_async(&mut connection).await)
            .await
    }

    /// Runs a script, loading it where the server does not know it yet.
    ///
    /// # Errors
    /// When Redis is away, too slow, or refuses.
    pub async fn script<T: FromRedisValue + Send + Sync>(
        &self,
        invocation: &::redis::ScriptInvocation<'_>,
    ) -> Result<T, RedisFailure> {
        self.guarded(async |mut connection| invocation.invoke_async(&mut connection).await)
            .await
    }

    async fn client(&self) -> Result<Client, RedisFailure> {
        match &self.place {
            Place::Fixed(client, _) => Ok(Client::clone(client)),
            Place::Watched(watched) => Ok(found(watched).await?.client),
        }
    }

    /// A number that is another when Redis is another server. Connections of one's own are left then:
    /// the old server may still answer, to nobody but us.
    pub(crate) fn moves(&self) -> u64 {
        match &self.place {
            Place::Fixed(..) => 0,
            Place::Watched(watched) => {
                let master = watched.master.borrow();
                master.as_ref().map_or(0, |master| master.moves)
            }
        }
    }

    /// Waits until Redis is another server than it was at that number.
    pub(crate) async fn moved(&self, moves: u64) {
        if let Place::Watched(watched) = &self.place {
            let mut master = watched.master.clone();
            let is_other =
                |master: &Option<Master>| master.as_ref().map_or(0, |master| master.moves) != moves;
            if master.wait_for(is_other).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    async fn guarded<T>(
        &self,
        work: impl AsyncFnOnce(ConnectionManager) -> Result<T, RedisError>,
    ) -> Result<T, RedisFailure> {
        if self.presence.is_away() {
            return Err(RedisFailure::BackingOff);
        }
        self.noted(self.place.tried(work).await)
    }

    /// Has one task ask for a Redis that went away.
    fn noted<T>(&self, outcome: Result<T, RedisFailure>) -> Result<T, RedisFailure> {
        if let Err(failure) = &outcome
            && !failure.is_answer()
        {
            metrics::counter!(crate::metrics::REDIS_FAILURES).increment(1);
            self.place.nudge();
            let place = self.place.clone();
            self.presence.lost(move || {
                let place = place.clone();
                async move {
                    place.nudge();
                    // One that is loading its data or full is there.
                    place
                        .pong()
                        .await
                        .map_or_else(|failure| failure.is_answer(), |()| true)
                }
            });
        }
        outcome
    }

    /// Asks Redis for a sign of life, whatever happened before.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> Result<(), RedisFailure> {
        self.noted(self.place.pong().await)
    }

    /// Asks Redis for a sign of life like any other command: not at all, while it is away.
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
        let opening = async { Ok(self.client().await?.get_async_pubsub().await?) };
        match tokio::time::timeout(Duration::from_secs(1), opening).await {
            Ok(opened) => opened,
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
            .client()
            .await?
            .get_multiplexed_async_connection_with_config(&settings)
            .await?)
    }
}

/// The master, once one is known; not for longer than a command may take.
async fn found(watched: &Watched) -> Result<Master, RedisFailure> {
    let mut master = watched.master.clone();
    let known = master.wait_for(Option::is_some);
    match tokio::time::timeout(RESPONSE_TIMEOUT, known).await {
        Ok(Ok(known)) => known.clone().ok_or(RedisFailure::NoMaster),
        Ok(Err(_)) | Err(_) => Err(RedisFailure::NoMaster),
    }
}
