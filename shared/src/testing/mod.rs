//! Real servers, apart for each test: a database cloned from a migrated template, and a key prefix
//! in Redis.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot have its servers must fail loudly"
)]

mod logs;
mod redis_user;
mod session;

pub use logs::keep_line;
pub use redis_user::RedisUser;
pub use session::{Refused, Session};

use std::time::Duration;

use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use crate::config::Vars;
use crate::redis::{Redis, RedisConfig};
use crate::store::{Db, DbConfig, Pooler, ServingRole, migrate};

/// One test's corner of the servers that `cargo xtask test` started. The database goes when this
/// is dropped.
#[derive(Debug)]
pub struct TestEnv {
    admin_url: String,
    database: String,
    database_url: String,
    redis: RedisConfig,
}

impl TestEnv {
    /// Clones the template database, migrating it first where no test has done so.
    ///
    /// # Panics
    /// When the servers are not there.
    pub async fn new() -> Self {
        Self::on(server("TEST_DATABASE_URL")).await
    }

    /// The same on another database server, of which a superuser's URL is given.
    ///
    /// # Panics
    /// When the servers are not there.
    pub async fn on(admin_url: String) -> Self {
        logs::keep();
        let redis_url = server("TEST_REDIS_URL");
        let mut admin = PgConnection::connect(&admin_url)
            .await
            .expect("the test database server answers");
        let template = ensure_template(&mut admin, &admin_url).await;
        let id = Uuid::new_v4().simple().to_string();
        let database = format!("test_{id}");
        execute(
            &mut admin,
            &format!("CREATE DATABASE {database} TEMPLATE {template} STRATEGY FILE_COPY"),
        )
        .await;
        Self {
            database_url: with_database(&admin_url, &database),
            admin_url,
            database,
            redis: RedisConfig {
                url: redis_url.into(),
                prefix: format!("test:{id}"),
                authorities: None,
            },
        }
    }

    /// The URL of this test's database, with a superuser's login; `Db` switches to its role.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The settings of a small pool on this test's database.
    #[must_use]
    pub fn db_config(&self) -> DbConfig {
        DbConfig {
            url: SecretString::from(self.database_url.as_str()),
            pool_min: 0,
            pool_max: 8,
            acquire_timeout: Duration::from_secs(5),
            places: 10_000,
            pooler: Pooler::None,
        }
    }

    /// The database as one of the serving roles.
    ///
    /// # Panics
    /// When the URL is malformed.
    #[must_use]
    pub fn db(&self, role: ServingRole) -> Db {
        Db::connect_lazy(&self.db_config(), role).expect("the test database URL is well-formed")
    }

    /// Where this test's keys are in Redis.
    #[must_use]
    pub fn redis_config(&self) -> RedisConfig {
        self.redis.clone()
    }

    /// A connection to Redis.
    ///
    /// # Panics
    /// When the URL is malformed.
    #[must_use]
    pub fn redis(&self) -> Redis {
        Redis::connect_lazy(&self.redis).expect("the test Redis URL is well-formed")
    }

    /// Deletes every key of this test, as a wiped Redis would.
    ///
    /// # Panics
    /// When Redis is away.
    pub async fn wipe_redis(&self) {
        let redis = self.redis();
        let pattern = redis.key("*");
        let keys: Vec<String> = redis
            .command(::redis::cmd("KEYS").arg(pattern))
            .await
            .expect("redis lists its keys");
        if !keys.is_empty() {
            redis
                .command::<i64>(::redis::cmd("DEL").arg(keys))
                .await
                .expect("redis deletes keys");
        }
    }

    /// Runs a statement as superuser, to look behind the curtain or to break something.
    ///
    /// # Panics
    /// When it fails.
    pub async fn execute(&self, sql: &str) -> u64 {
        let mut connection = self.superuser().await;
        connection
            .execute(AssertSqlSafe(sql))
            .await
            .expect("the statement runs")
            .rows_affected()
    }

    /// Runs several statements as superuser, as one transaction.
    ///
    /// # Panics
    /// When one fails.
    pub async fn execute_all(&self, sql: &str) {
        let mut connection = self.superuser().await;
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .expect("the statements run");
    }

    /// The one value of a query run as superuser, as text.
    ///
    /// # Panics
    /// When it fails or gives no row.
    pub async fn value(&self, sql: &str) -> Option<String> {
        let mut connection = self.superuser().await;
        let query = format!("SELECT ({sql})::text");
        sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut connection)
            .await
            .expect("the query gives a row")
    }

    /// Takes the database away: every connection dies and none is let in.
    ///
    /// # Panics
    /// When the server is away.
    pub async fn close_database(&self) {
        let mut admin = PgConnection::connect(&self.admin_url)
            .await
            .expect("the test database server answers");
        execute(
            &mut admin,
            &format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.database),
        )
        .await;
        let victims = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.database
        );
        execute(&mut admin, &victims).await;
    }

    /// Gives it back.
    ///
    /// # Panics
    /// When the server is away.
    pub async fn open_database(&self) {
        let mut admin = PgConnection::connect(&self.admin_url)
            .await
            .expect("the test database server answers");
        execute(
            &mut admin,
            &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.database),
        )
        .await;
    }

    async fn superuser(&self) -> PgConnection {
        PgConnection::connect(&self.database_url)
            .await
            .expect("the test database answers")
    }
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        // Dropping happens inside a runtime that cannot be blocked, hence the thread.
        let (admin_url, database) = (self.admin_url.clone(), self.database.clone());
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect(&admin_url)
                    .await
                    .map_err(std::io::Error::other)?;
                let sql = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
                admin
                    .execute(AssertSqlSafe(sql))
                    .await
                    .map_err(std::io::Error::other)
            })
        });
        if !matches!(dropper.join(), Ok(Ok(_))) {
            tracing::warn!(
                database = self.database,
                "the test database was not dropped"
            );
        }
    }
}

/// Where a server is that `cargo xtask test` has started.
fn server(name: &'static str) -> String {
    let url = Vars::from_process().optional(name, "set by cargo xtask test");
    url.unwrap_or_else(|| panic!("run the tests with `cargo xtask test`: {name} is not set"))
}

/// Makes the migrated template once per set of migrations, whichever test comes first.
async fn ensure_template(admin: &mut PgConnection, admin_url: &str) -> String {
    let template = format!("balas_template_{}", migrate::fingerprint());
    let exists = format!("SELECT count(*) FROM pg_database WHERE datname = '{template}'");
    let count = |sql: String| sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql));
    if count(exists.clone())
        .fetch_one(&mut *admin)
        .await
        .expect("pg_database can be read")
        > 0
    {
        return template;
    }
    execute(
        admin,
        "SELECT pg_advisory_lock(hashtext('balas.test_template'))",
    )
    .await;
    if count(exists)
        .fetch_one(&mut *admin)
        .await
        .expect("pg_database can be read")
        == 0
    {
        let draft = format!("{template}_draft");
        execute(
            admin,
            &format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)"),
        )
        .await;
        execute(admin, &format!("CREATE DATABASE {draft}")).await;
        let url = SecretString::from(with_database(admin_url, &draft));
        migrate::run(&url).await.expect("the migrations run");
        execute(
            admin,
            &format!("ALTER DATABASE {draft} RENAME TO {template}"),
        )
        .await;
    }
    execute(
        admin,
        "SELECT pg_advisory_unlock(hashtext('balas.test_template'))",
    )
    .await;
    template
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    connection
        .execute(AssertSqlSafe(sql))
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The same server, another database.
fn with_database(url: &str, database: &str) -> String {
    let (server, query) = url
        .split_once('?')
        .map_or((url, None), |(server, query)| (server, Some(query)));
    let path = server.find("://").map_or(0, |scheme| scheme + 3);
    let server = server[path..]
        .find('/')
        .map_or(server, |slash| &server[..path + slash]);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{server}/{database}{query}")
}
