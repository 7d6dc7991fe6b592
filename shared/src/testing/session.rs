//! One connection for raw statements, to do what no function of the store would: break a rule,
//! forge a setting, hold a lock.

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _,
};

use super::TestEnv;
use crate::store::ServingRole;

/// What stands for a connection that could not be had or broke, where Postgres itself said nothing.
const CONNECTION_FAILURE: &str = "08006";

/// A session of its own: its settings and its open transaction last until it is dropped.
#[derive(Debug)]
pub struct Session(PgConnection);

/// The database refused a statement, or is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The SQLSTATE, for example `42501` for a missing privilege; class 08 when the database is away.
    pub code: String,
    /// The violated constraint, where one was.
    pub constraint: Option<String>,
    /// What Postgres said.
    pub message: String,
}

impl Session {
    /// Opens one to any database, for what tests a whole installation from outside.
    ///
    /// # Errors
    /// When the database is away or refuses the login.
    pub async fn open(database_url: &str) -> Result<Self, Refused> {
        let opened = PgConnection::connect(database_url).await;
        opened.map(Self).map_err(refused)
    }

    /// Runs one or more statements. Returns how many rows they changed or gave.
    ///
    /// # Errors
    /// When the database refuses one or is away.
    pub async fn run(&mut self, sql: &str) -> Result<u64, Refused> {
        match self.0.execute(AssertSqlSafe(sql)).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(refused(error)),
        }
    }

    /// The rows of a query, every column as text; write `column::text` for what is not text.
    ///
    /// # Errors
    /// When the database refuses it or is away.
    ///
    /// # Panics
    /// When a column is not text.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Refused> {
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut self.0).await;
        let columns = |row: PgRow| (0..row.len()).map(|column| row.get(column)).collect();
        match rows {
            Ok(rows) => Ok(rows.into_iter().map(columns).collect()),
            Err(error) => Err(refused(error)),
        }
    }
}

fn refused(error: sqlx::Error) -> Refused {
    match error {
        sqlx::Error::Database(refusal) => Refused {
            code: refusal.code().unwrap_or_default().into_owned(),
            constraint: refusal.constraint().map(str::to_owned),
            message: refusal.message().to_owned(),
        },
        other => Refused {
            code: CONNECTION_FAILURE.to_owned(),
            constraint: None,
            message: other.to_string(),
        },
    }
}

impl TestEnv {
    /// A session of its own, as superuser.
    ///
    /// # Panics
    /// When the database is away.
    pub async fn session(&self) -> Session {
        Session(self.superuser().await)
    }

    /// A session of its own that is a serving role from its start, as those of `Db` are.
    ///
    /// # Panics
    /// When the database is away.
    pub async fn session_as(&self, role: ServingRole) -> Session {
        let options: PgConnectOptions = self
            .database_url
            .parse()
            .expect("the test database URL is well-formed");
        let connection = options
            .options([("role", role.as_str())])
            .connect()
            .await
            .expect("the test database answers");
        Session(connection)
    }
}
