//! `migrate::run`, and the role that a process serves as.

use secrecy::{ExposeSecret as _, SecretString};
use shared::store::migrate::{self, MigrationError};
use shared::store::{Db, ServingRole};
use shared::testing::{Session, TestEnv};

use crate::common::{World, proxy, until};

/// Everything that a migration may make, in words.
const SHAPE: &str = "
    SELECT 'column', concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                               pg_get_expr(d.adbin, d.adrelid), c.relrowsecurity, c.relforcerowsecurity, c.reloptions)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'chat'::regnamespace AND c.relkind IN ('r', 'p')
    UNION ALL SELECT 'index', pg_get_indexdef(indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = 'chat'::regnamespace
    UNION ALL SELECT 'constraint', conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'chat'::regnamespace
    UNION ALL SELECT 'policy', p::text FROM pg_policies p WHERE schemaname = 'chat'
    UNION ALL SELECT 'function', pg_get_functiondef(oid) || proacl::text FROM pg_proc
    WHERE pronamespace = 'chat'::regnamespace
    UNION ALL SELECT 'grant', concat_ws(' ', grantee, table_name, privilege_type)
    FROM information_schema.role_table_grants WHERE table_schema = 'chat'
    UNION ALL SELECT 'migration', concat_ws(' ', version, success, encode(checksum, 'hex'), installed_on)
    FROM chat._sqlx_migrations
    ORDER BY 1, 2";

async fn shape(session: &mut Session) -> Vec<String> {
    let rows = session.rows(SHAPE).await.unwrap();
    let text = |row: Vec<Option<String>>| row.into_iter().flatten().collect::<Vec<_>>().join(" ");
    rows.into_iter().map(text).collect()
}

fn without_dates(shape: &[String]) -> Vec<&str> {
    let dated = |line: &&str| !line.starts_with("migration");
    shape.iter().map(String::as_str).filter(dated).collect()
}

fn url(env: &TestEnv) -> SecretString {
    env.database_url().into()
}

/// Makes the database an empty one, as an operator creates it.
async fn empty(env: &TestEnv) {
    env.execute("DROP SCHEMA chat CASCADE; DROP EXTENSION IF EXISTS vector")
        .await;
}

/// A message can be accepted and answered.
async fn works(world: &World) {
    for role in [&world.api, &world.worker] {
        role.check_role().await.unwrap();
        role.ping().await.unwrap();
    }
    let sent = world.send(world.conversation().await, "hello").await;
    world.reply(sent.generation.id, "hello to you").await;
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let world = World::new().await;
    let mut session = world.env.session().await;
    let before = shape(&mut session).await;
    assert!(before.len() > 100, "{before:?}");
    migrate::run(&url(&world.env)).await.unwrap();
    assert_eq!(shape(&mut session).await, before);
    works(&world).await;
}

#[tokio::test]
async fn an_empty_database_becomes_what_the_template_is() {
    let world = World::new().await;
    let template = shape(&mut world.env.session().await).await;
    empty(&world.env).await;
    migrate::run(&url(&world.env)).await.unwrap();
    let made = shape(&mut world.env.session().await).await;
    assert_eq!(without_dates(&made), without_dates(&template));
    works(&world).await;
}

#[tokio::test]
async fn two_runs_at_once_do_not_trip_over_each_other() {
    let env = TestEnv::new().await;
    // The first run has begun and waits for this session.
    let mut holder = env.session().await;
    holder
        .run("BEGIN; LOCK TABLE chat._sqlx_migrations IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let url = url(&env);
    let first = migrate::run(&url);
    let second = async {
        let mut watcher = env.session().await;
        until("the first run waits", async || {
            let waiting = "SELECT pid::text FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            (watcher.rows(waiting).await.unwrap().len() == 1).then_some(())
        })
        .await;
        let second = migrate::run(&url).await;
        holder.run("ROLLBACK").await.unwrap();
        second
    };
    let (first, second) = tokio::join!(first, second);
    first.unwrap();
    assert!(
        matches!(second, Err(MigrationError::AlreadyRunning)),
        "{second:?}"
    );
    // And it may go on now.
    migrate::run(&url).await.unwrap();
}

/// Whoever comes first: the database is whole afterwards, and nobody fails for another reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_migrate_an_empty_database_at_once_make_it_once() {
    let world = World::new().await;
    let template = shape(&mut world.env.session().await).await;
    empty(&world.env).await;
    let url = url(&world.env);
    let outcomes = futures::future::join_all((0..4).map(|_| migrate::run(&url))).await;
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    let acceptable = |outcome: &Result<(), MigrationError>| {
        matches!(outcome, Ok(()) | Err(MigrationError::AlreadyRunning))
    };
    assert!(outcomes.iter().all(acceptable), "{outcomes:?}");
    let made = shape(&mut world.env.session().await).await;
    assert_eq!(without_dates(&made), without_dates(&template));
    works(&world).await;
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    let env = TestEnv::new().await;
    env.execute("UPDATE chat._sqlx_migrations SET checksum = '\\x00'")
        .await;
    let refused = migrate::run(&url(&env)).await;
    assert!(
        matches!(refused, Err(MigrationError::Migrate(_))),
        "{refused:?}"
    );
}

/// While the next version is being rolled out, this one may start beside its schema.
#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let world = World::new().await;
    let newer = "INSERT INTO chat._sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (29990101000000, 'from the future', true, '\\x00', 1);
                 ALTER TABLE chat.messages ADD COLUMN mood text";
    world.execute(newer).await;
    migrate::run(&url(&world.env)).await.unwrap();
    works(&world).await;
}

#[tokio::test]
async fn a_login_without_rights_is_told_what_it_needs() {
    let env = TestEnv::new().await;
    empty(&env).await;
    let login = env
        .database_url()
        .rsplit('/')
        .next()
        .unwrap()
        .replace("test_", "login_");
    env.execute(&format!("CREATE ROLE {login} LOGIN PASSWORD 'secret'"))
        .await;
    let url = env.database_url();
    let authority = format!("{login}:secret@{}", proxy::server_of(url));
    let database = url.rsplit('/').next().unwrap();
    let refused = migrate::run(&format!("postgres://{authority}/{database}").into()).await;
    env.execute(&format!("DROP ROLE {login}")).await;
    let Err(refused @ MigrationError::Bootstrap(_)) = refused else {
        panic!("{refused:?}");
    };
    assert!(refused.to_string().contains("DATABASE_URL"), "{refused}");
    let nobody = format!("postgres://x@{}/x", proxy::nobody().await);
    let unreachable = migrate::run(&nobody.into()).await;
    assert!(
        matches!(unreachable, Err(MigrationError::Connect(_))),
        "{unreachable:?}"
    );
}

/// Only the knowledge base needs the extension.
#[tokio::test]
async fn without_the_extension_everything_else_works() {
    let world = World::new().await;
    empty(&world.env).await;
    world
        .execute(
            "CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql
                AS $$ BEGIN RAISE 'extension \"vector\" is not available'; END $$;
             CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION')
                EXECUTE FUNCTION public.refuse()",
        )
        .await;
    migrate::run(&url(&world.env)).await.unwrap();
    assert_eq!(
        world
            .value("SELECT count(*) FROM pg_extension WHERE extname = 'vector'")
            .await,
        "0"
    );
    works(&world).await;
    // Once the operator has installed it, the next run finds it.
    world.execute("DROP EVENT TRIGGER refuse").await;
    migrate::run(&url(&world.env)).await.unwrap();
    let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'";
    let installed = "SELECT count(*) FROM pg_extension WHERE extname = 'vector'";
    assert_eq!(world.value(installed).await, world.value(available).await);
}

/// Behind a pooler that ignores start-up options the login itself must be the role. A superuser's
/// login is not, and must not serve.
#[tokio::test]
async fn a_role_that_bypasses_row_level_security_is_refused() {
    let env = TestEnv::new().await;
    let mut config = env.db_config();
    let pooler = proxy::pooler(proxy::server_of(config.url.expose_secret())).await;
    config.url = proxy::url_at(config.url.expose_secret(), pooler.address).into();
    for role in [ServingRole::Api, ServingRole::Worker] {
        env.db(role).check_role().await.unwrap();
        let db = Db::connect_lazy(&config, role).unwrap();
        let refused = db.check_role().await.unwrap_err();
        assert!(refused.to_string().contains("must not serve"), "{refused}");
        assert!(!refused.is_unavailable());
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_not_an_unsafe_role() {
    let env = TestEnv::new().await;
    let db = env.db(ServingRole::Api);
    db.check_role().await.unwrap();
    env.close_database().await;
    assert!(db.check_role().await.unwrap_err().is_unavailable());
    env.open_database().await;
    until("the database is back", async || db.check_role().await.ok()).await;
}
