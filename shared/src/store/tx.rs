//! The pool and the two scopes in which statements may run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::conn::Conn;
use super::{DbConfig, Pooler, StoreError, StoreResult};

/// The role a process serves as; neither owns a table nor may bypass row-level security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingRole {
    /// `balas_api`: own rows only.
    Api,
    /// `balas_worker`: own rows, and the sweeps its policies name.
    Worker,
    /// `balas_operator`: everybody's work, without what anybody wrote; pauses queues.
    Operator,
}

impl ServingRole {
    /// The role's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "balas_api",
            Self::Worker => "balas_worker",
            Self::Operator => "balas_operator",
        }
    }
}

/// A transaction whose process does nothing for so long is ended by the database.
const STANDS_STILL: &str = "5s";

/// Connections for the sweeps' single statements: few, because each statement does the work of many
/// generations.
const SWEEP_CONNECTIONS: u32 = 4;

/// The process's connections to Postgres.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
    /// Connections that carry the sweeps' scope from their start.
    sweeps: PgPool,
    /// Whether a pooler between us and the database has dropped that scope.
    sweeps_unscoped: Arc<AtomicBool>,
    places: i64,
    pooler: Pooler,
}

/// What each session is set to when it starts.
fn session_options(options: PgConnectOptions, role: ServingRole) -> PgConnectOptions {
    // Every statement finds its rows by key, so its plan does not depend on the values: planning
    // it once per connection saves more than any better plan could, and cannot flip. Nor may a
    // plan that was made while a table was small read all of it when it has grown.
    let options = options.options([
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
    ]);
    // A process that stands still or is cut off in the middle of a transaction would hold its locks
    // for ever. None of ours waits for anything but its next statement.
    let options = options.options([("idle_in_transaction_session_timeout", STANDS_STILL)]);
    // Nor would the database ever hear of a machine that vanished in the middle of a statement: it asks
    // after 10 s of silence, and gives up another 15 s later.
    let options = options.options([
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
    ]);
    if options.get_username() == role.as_str() {
        return options;
    }
    options.options([("role", role.as_str())])
}

impl Db {
    /// Opens the pool lazily: a database that is away at start-up is waited for by whoever needs
    /// it, not by the process.
    ///
    /// The connections switch to `role` unless they log in as it. Behind a pooler the login itself must
    /// be the role.
    ///
    /// # Errors
    /// When the URL cannot be parsed.
    pub fn connect_lazy(config: &DbConfig, role: ServingRole) -> StoreResult<Self> {
        let options: PgConnectOptions = config.url.expose_secret().parse()?;
        let options = options.application_name(match role {
            ServingRole::Api => "balas-api",
            ServingRole::Worker => "balas-worker",
            ServingRole::Operator => "balas-operator",
        });
        let options = match config.pooler {
            Pooler::None => session_options(options, role),
            // The next transaction may have another session: nothing may be left in this one.
            Pooler::Transaction => options.extra_float_digits(None),
        };
        let pool = PgPoolOptions::new()
            .acquire_timeout(config.acquire_timeout)
            // The ping would be one more round trip for every request; a connection that died
            // meanwhile shows at BEGIN, which is tried again.
            .test_before_acquire(false)
            .idle_timeout(Duration::from_mins(10))
            .max_lifetime(Duration::from_mins(30));
        let sweeps_unscoped = Arc::new(AtomicBool::new(false));
        let found_unscoped = Arc::clone(&sweeps_unscoped);
        let sweeps = pool
            .clone()
            .max_connections(SWEEP_CONNECTIONS)
            .after_connect(move |connection, _| {
                let found_unscoped = Arc::clone(&found_unscoped);
                Box::pin(async move {
                    let scope = sqlx::query_scalar!("SELECT current_setting('app.sweep', true)")
                        .fetch_one(connection)
                        .await?;
                    found_unscoped.store(scope.as_deref() != Some("on"), Ordering::Relaxed);
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone().options([("app.sweep", "on")]));
        let pool = pool
            .min_connections(config.pool_min)
            .max_connections(config.pool_max)
            .connect_lazy_with(options);
        Ok(Self {
            pool,
            sweeps,
            sweeps_unscoped,
            places: config.places,
            pooler: config.pooler,
        })
    }

    /// Fails when the connections could read what they must not: a superuser or a role that
    /// bypasses row-level security.
    ///
    /// # Errors
    /// When the database is away or the role is unsafe.
    pub async fn check_role(&self) -> StoreResult<()> {
        let row = sqlx::query!(
            r#"SELECT current_user::text AS "name!", rolsuper AS "rolsuper!", rolbypassrls AS "rolbypassrls!"
               FROM pg_roles WHERE rolname = current_user"#
        )
        .fetch_one(self.begin("BEGIN").await?.conn())
        .await?;
        if row.rolsuper || row.rolbypassrls {
            return Err(StoreError::Corrupt(format!(
                "the database role {} bypasses row-level security and must not serve",
                row.name
            )));
        }
        Ok(())
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> StoreResult<()> {
        drop(self.begin("BEGIN").await?);
        Ok(())
    }

    /// Connections that are open, and those of them that nobody uses.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let pools = [&self.pool, &self.sweeps];
        let idle = pools.map(|pool| u32::try_from(pool.num_idle()).unwrap_or(u32::MAX));
        (
            pools.iter().map(|pool| pool.size()).sum(),
            idle.iter().sum(),
        )
    }

    /// Begins a transaction as one person; every statement in it sees that person's rows only.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn user(&self, user_id: Uuid) -> StoreResult<UserTx> {
        let begin = format!("BEGIN; SET LOCAL app.current_user_id = '{user_id}'");
        Ok(UserTx {
            tx: self.begin(&begin).await?,
            user_id,
            places: self.places,
        })
    }

    /// Begins a transaction of one of the worker's sweeps over all users.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn sweep(&self) -> StoreResult<SweepTx> {
        // Whoever stands still in a sweep keeps the whole fleet from finding lost work.
        let begin = "BEGIN; SET LOCAL app.sweep = 'on'; SET LOCAL idle_in_transaction_session_timeout = '500ms'";
        Ok(self.scope(Sweep::Transaction(self.begin(begin).await?)))
    }

    /// A connection with the scope of a sweep, for one statement that is a transaction of its own
    /// and so costs one round trip: it is committed when it returns, whether or not
    /// [`SweepTx::commit`] is called.
    ///
    /// The scope comes with the start-up options of the connection. Behind a pooler that drops
    /// them this is a transaction like [`Db::sweep`]. The connection may have died in the pool.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn sweep_statement(&self) -> StoreResult<SweepTx> {
        if self.has_sessions() && !self.sweeps_unscoped.load(Ordering::Relaxed) {
            let connection = self.sweeps.acquire().await?;
            // Opening it may just have shown that it has no scope.
            if !self.sweeps_unscoped.load(Ordering::Relaxed) {
                return Ok(self.scope(Sweep::Statement(Alone(connection))));
            }
        }
        self.sweep().await
    }

    fn scope(&self, scope: Sweep) -> SweepTx {
        SweepTx {
            scope,
            places: self.places,
        }
    }

    /// Like [`Db::sweep`], but the commit does not wait for the disk. Only for writes that may be
    /// lost in a crash of the database: a claim (its token is random, so a lost one never matches
    /// a later one) and the renewal of leases.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn sweep_async(&self) -> StoreResult<SweepTx> {
        let begin = "BEGIN; SET LOCAL app.sweep = 'on'; SET LOCAL synchronous_commit = off";
        Ok(self.scope(Sweep::Transaction(self.begin(begin).await?)))
    }

    /// Like [`Db::user`], but the commit does not wait for the disk. Only for the ledger's notes
    /// that an upstream call began.
    ///
    /// # Errors
    /// When no connection can be had.
    pub async fn user_async(&self, user_id: Uuid) -> StoreResult<UserTx> {
        let begin = format!(
            "BEGIN; SET LOCAL app.current_user_id = '{user_id}'; SET LOCAL synchronous_commit = off"
        );
        Ok(UserTx {
            tx: self.begin(&begin).await?,
            user_id,
            places: self.places,
        })
    }

    /// Generations of one person that may be active at a time.
    pub(super) fn places(&self) -> i64 {
        self.places
    }

    /// Whether a connection is one session. If not, a statement outside a transaction may be prepared
    /// in one session and run in another.
    pub(super) fn has_sessions(&self) -> bool {
        self.pooler == Pooler::None
    }

    /// A connection outside any transaction, for a statement that is one of its own and sets its
    /// scope itself. It may have died in the pool, and there must be [sessions](Self::has_sessions).
    pub(super) async fn connection(&self) -> StoreResult<Alone> {
        Ok(Alone(self.pool.acquire().await?))
    }

    /// Nothing has run when BEGIN fails, so a connection that died in the pool is simply replaced.
    /// A restart of the database kills all of them at once, hence more than one try.
    pub(super) async fn begin(&self, statement: &str) -> StoreResult<Begun> {
        let mut tries = self.pool.size().clamp(1, 64);
        loop {
            match self.begin_once(statement).await {
                Err(sqlx::Error::Io(_) | sqlx::Error::BeginFailed | sqlx::Error::Protocol(_))
                    if tries > 0 =>
                {
                    tries -= 1;
                }
                // The server is going down and said so on the idle connection.
                Err(sqlx::Error::Database(error))
                    if tries > 0 && error.code().as_deref() == Some("57P01") =>
                {
                    tries -= 1;
                }
                other => {
                    return Ok(Begun {
                        tx: other?,
                        has_session: self.has_sessions(),
                    });
                }
            }
        }
    }

    /// Begins in a task of its own, because the caller may be dropped at any await. sqlx would put a
    /// connection whose BEGIN was dropped half-way back into the pool with the transaction open, and
    /// the next user of it would inherit its settings: another scope, or a commit that does not wait
    /// for the disk. The task always gets to the end, and what nobody takes is rolled back.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task ends with its BEGIN; nothing need wait for it"
    )]
    async fn begin_once(&self, statement: &str) -> sqlx::Result<Transaction<'static, Postgres>> {
        let mut statement = statement.to_owned();
        if !self.has_sessions() && !statement.contains("idle_in_transaction_session_timeout") {
            statement += "; SET LOCAL idle_in_transaction_session_timeout = '";
            statement += STANDS_STILL;
            statement += "'";
        }
        let (pool, statement) = (self.pool.clone(), AssertSqlSafe(statement));
        match tokio::spawn(async move { pool.begin_with(statement).await }).await {
            Ok(begun) => begun,
            Err(_) => Err(sqlx::Error::WorkerCrashed),
        }
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        tokio::join!(self.pool.close(), self.sweeps.close());
    }
}

/// An open transaction; dropping it rolls it back.
#[derive(Debug)]
pub(super) struct Begun {
    tx: Transaction<'static, Postgres>,
    has_session: bool,
}

impl Begun {
    pub(super) fn conn(&mut self) -> Conn<'_> {
        Conn {
            connection: &mut self.tx,
            has_session: self.has_session,
        }
    }

    pub(super) async fn commit(self) -> StoreResult<()> {
        Ok(self.tx.commit().await?)
    }
}

/// A connection outside any transaction, and so with a session of its own.
#[derive(Debug)]
pub(super) struct Alone(PoolConnection<Postgres>);

impl Alone {
    pub(super) fn conn(&mut self) -> Conn<'_> {
        Conn {
            connection: &mut self.0,
            has_session: true,
        }
    }
}

/// A transaction as one person.
#[derive(Debug)]
pub struct UserTx {
    tx: Begun,
    user_id: Uuid,
    places: i64,
}

impl UserTx {
    /// The person.
    #[must_use]
    pub fn user_id(&self) -> Uuid {
        self.user_id
    }

    /// Generations of one person that may be active at a time.
    pub(super) fn places(&self) -> i64 {
        self.places
    }

    pub(super) fn conn(&mut self) -> Conn<'_> {
        self.tx.conn()
    }

    /// Makes what was done durable. Dropping the transaction undoes it instead, which is also the
    /// cheap way to end one that only read.
    ///
    /// # Errors
    /// When the outcome is unknown or the commit was refused.
    pub async fn commit(self) -> StoreResult<()> {
        self.tx.commit().await
    }
}

/// The scope of a sweep over all users; only the worker's role has policies for it.
#[derive(Debug)]
pub struct SweepTx {
    scope: Sweep,
    places: i64,
}

#[derive(Debug)]
enum Sweep {
    /// Statements that take effect together.
    Transaction(Begun),
    /// A statement that takes effect alone.
    Statement(Alone),
}

impl SweepTx {
    /// Generations of one person that may be active at a time.
    pub(super) fn places(&self) -> i64 {
        self.places
    }

    pub(super) fn conn(&mut self) -> Conn<'_> {
        match &mut self.scope {
            Sweep::Transaction(tx) => tx.conn(),
            Sweep::Statement(alone) => alone.conn(),
        }
    }

    /// Makes what was done durable; dropping undoes it, but for a single statement.
    ///
    /// # Errors
    /// When the outcome is unknown or the commit was refused.
    pub async fn commit(self) -> StoreResult<()> {
        match self.scope {
            Sweep::Transaction(tx) => tx.commit().await,
            Sweep::Statement(_) => Ok(()),
        }
    }
}
