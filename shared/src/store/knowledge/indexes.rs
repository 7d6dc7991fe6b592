//! Indexes of vectors. A small collection is searched by comparing all of its vectors, which is exact and quick
//! enough; a large one gets an index, made beside those who read and write.

use secrecy::ExposeSecret as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::store::{DbConfig, Pooler, StoreResult, SweepTx};

/// The role that owns the vectors.
const INDEXER: &str = "balas_indexer";
/// Held by whoever changes indexes, as long as it does.
const LOCK: i64 = 0x42_61_6c_61_74;

/// From how many texts on a collection has an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRules {
    /// Texts of a collection; 0 is never.
    pub from_texts: i64,
    /// Memory that the making of an index may take, in MiB. What does not fit makes it many times slower.
    pub memory_mib: u32,
}

/// Whose vectors are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are searched.
    Serving,
    /// Those of the profile that is about to be searched, too.
    ServingAndNext,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Indexes that were made.
    pub made: usize,
    /// Indexes that were dropped: too small a collection, a model that is not searched, or one left half-made.
    pub dropped: usize,
}

struct Index {
    name: String,
    is_valid: bool,
}

struct Counted {
    index: String,
    statement: String,
    is_next: bool,
    texts: i64,
}

/// What tells that there may be something to do: it changes with every upload and swap.
///
/// # Errors
/// When the database fails.
pub async fn signature(tx: &mut SweepTx) -> StoreResult<String> {
    let signature = sqlx::query_scalar!(
        r#"SELECT concat_ws(' ', (SELECT sum(version) FROM chat.knowledge_collections),
                            (SELECT max(finished_at) FROM chat.knowledge_ingestions),
                            (SELECT string_agg(id::text || state, ' ' ORDER BY id) FROM chat.knowledge_profiles)) AS "signature!""#
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(signature)
}

/// Makes the indexes that are wanted and drops those that are not; none while somebody else is at it. Behind a
/// pooler, and for a login that may not be the vectors' owner, nothing is done.
///
/// # Errors
/// When the database fails.
pub async fn arrange(
    config: &DbConfig,
    rules: IndexRules,
    which: Which,
) -> StoreResult<Option<Changed>> {
    if config.pooler == Pooler::Transaction {
        return Ok(Some(Changed::default()));
    }
    let Some(mut connection) = connect(config, rules).await? else {
        return Ok(Some(Changed::default()));
    };
    let locked = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, LOCK)
        .fetch_one(&mut connection)
        .await?;
    let changed = match locked {
        true => Some(change(&mut connection, rules, which).await?),
        false => None,
    };
    connection.close().await?;
    Ok(changed)
}

/// A session of the owner; none where there are no vectors, or our login may not be it.
async fn connect(config: &DbConfig, rules: IndexRules) -> StoreResult<Option<PgConnection>> {
    let options: PgConnectOptions = config.url.expose_secret().parse()?;
    let mut connection = options
        .application_name("balas-indexer")
        .options([("jit", "off"), ("tcp_keepalives_idle", "10")])
        .connect()
        .await?;
    let may = sqlx::query_scalar!(
        r#"SELECT COALESCE((SELECT pg_has_role(current_user, c.relowner, 'MEMBER') AND c.relowner = r.oid
                            FROM pg_class c JOIN pg_roles r ON r.rolname = $1
                            WHERE c.oid = to_regclass('chat.knowledge_vectors')), false) AS "may!""#,
        INDEXER
    )
    .fetch_one(&mut connection)
    .await?;
    if !may {
        connection.close().await?;
        return Ok(None);
    }
    let settings = format!(
        "SET ROLE {INDEXER}; SET maintenance_work_mem = '{}MB'",
        rules.memory_mib
    );
    connection.execute(AssertSqlSafe(settings)).await?;
    Ok(Some(connection))
}

async fn change(
    connection: &mut PgConnection,
    rules: IndexRules,
    which: Which,
) -> StoreResult<Changed> {
    let there = there(connection).await?;
    let counted = counted(connection).await?;
    let wanted: Vec<&Counted> = counted
        .iter()
        .filter(|one| {
            let has = there
                .iter()
                .any(|index| index.name == one.index && index.is_valid);
            // One that is there stays until the collection is clearly smaller, so that it does not come and go.
            let enough = match has {
                true => rules.from_texts * 4 / 5,
                false => rules.from_texts,
            };
            let now = has || !one.is_next || which == Which::ServingAndNext;
            rules.from_texts > 0 && one.texts >= enough && now
        })
        .collect();
    let mut changed = Changed::default();
    for index in &there {
        let is_wanted = wanted.iter().any(|one| one.index == index.name);
        if is_wanted && index.is_valid {
            continue;
        }
        // Names are ours: a fixed beginning and hexadecimal digits.
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS chat.{}", index.name);
        connection.execute(AssertSqlSafe(drop)).await?;
        changed.dropped += 1;
    }
    for one in wanted {
        let has = there
            .iter()
            .any(|index| index.name == one.index && index.is_valid);
        if !has {
            connection
                .execute(AssertSqlSafe(one.statement.clone()))
                .await?;
            changed.made += 1;
        }
    }
    Ok(changed)
}

async fn there(connection: &mut PgConnection) -> StoreResult<Vec<Index>> {
    let there = sqlx::query_as!(
        Index,
        r#"SELECT c.relname::text AS "name!", i.indisvalid AS is_valid
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           WHERE i.indrelid = to_regclass('chat.knowledge_vectors')
             AND starts_with(c.relname, 'knowledge_vectors_near_')"#
    )
    .fetch_all(connection)
    .await?;
    Ok(there)
}

async fn counted(connection: &mut PgConnection) -> StoreResult<Vec<Counted>> {
    let counted = sqlx::query_as!(
        Counted,
        r#"SELECT chat.vector_index_name(p.id, v.collection) AS "index!",
                  chat.vector_index_statement(p.id, v.collection) AS "statement!",
                  p.state = 'building' AS "is_next!", v.texts AS "texts!"
           FROM (SELECT o.profile_id, o.collection, count(*) AS texts FROM chat.knowledge_vectors o GROUP BY 1, 2) v
           JOIN chat.knowledge_profiles p ON p.id = v.profile_id
           WHERE p.state IN ('active', 'building')"#
    )
    .fetch_all(connection)
    .await?;
    Ok(counted)
}
