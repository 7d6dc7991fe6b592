//! Behind a pooler in transaction mode, where each transaction may have another session.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{World, chain, claimer, new_generation, proxy, text, until};
use secrecy::ExposeSecret as _;
use shared::config::Vars;
use shared::store::generations::{self, Accepted, Concurrency, Finished};
use shared::store::messages::{self, Cursor};
use shared::store::{Db, DbConfig, Pooler, ServingRole};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use uuid::Uuid;

const PASSWORD: &str = "secret";
/// Only a part of the socket's name.
const PORT: u16 = 6432;

impl World {
    /// A login that is one of the serving roles and nothing else, and its URL at `address`.
    async fn login(&self, role: ServingRole, address: &str) -> (String, String) {
        let login = format!("{}_{}", role.as_str(), Uuid::new_v4().simple());
        self.execute(&format!(
            "CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}' IN ROLE {}",
            role.as_str()
        ))
        .await;
        let database = self.env.database_url().rsplit('/').next().unwrap();
        let url = format!("postgres://{login}:{PASSWORD}@{address}/{database}");
        (login, url)
    }

    fn config(&self, url: &str, pooler: Pooler) -> DbConfig {
        DbConfig {
            url: url.to_owned().into(),
            pooler,
            ..self.env.db_config()
        }
    }
}

/// A running `PgBouncer` with two sessions for each login.
struct PgBouncer {
    process: Child,
    folder: PathBuf,
}

impl PgBouncer {
    /// None where the machine has none; `cargo xtask test` says so, and `REQUIRE_ALL` refuses it.
    async fn start(server: &str, logins: &[&str]) -> Option<Self> {
        let program: PathBuf =
            Vars::from_process().optional("TEST_PGBOUNCER", "set by cargo xtask test")?;
        let folder = std::env::temp_dir().join(format!("balas-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).unwrap();
        // As root it changes to a user who has to read its files and to make its socket.
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let users: Vec<String> = logins
            .iter()
            .map(|login| format!("\"{login}\" \"{PASSWORD}\"\n"))
            .collect();
        fs::write(folder.join("users.txt"), users.concat()).unwrap();
        let (host, port) = server.split_once(':').unwrap();
        // A socket in a folder of our own: nobody else can have taken it.
        let settings = format!(
            "[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n\
             unix_socket_dir = {}\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 2\nmax_client_conn = 100\n",
            folder.display(),
            folder.join("users.txt").display()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(&program);
        command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if is_root() {
            command.args(["--user", "nobody"]);
        }
        let process = command.spawn().unwrap();
        let mut started = Self { process, folder };
        let socket = started.folder.join(format!(".s.PGSQL.{PORT}"));
        until("the pooler answers", async || {
            let ended = started.process.try_wait().unwrap();
            assert!(ended.is_none(), "the pooler does not start: {ended:?}");
            UnixStream::connect(&socket).await.ok()
        })
        .await;
        Some(started)
    }

    /// The URL of a login, at the pooler.
    fn url(&self, direct: &str) -> String {
        let (login, database) = (
            direct.split('@').next().unwrap(),
            direct.rsplit('/').next().unwrap(),
        );
        format!(
            "{login}@localhost:{PORT}/{database}?host={}",
            self.folder.display()
        )
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn drop_logins(world: &World, logins: &[String]) {
    for login in logins {
        world
            .execute(&format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{login}'"
            ))
            .await;
        world.execute(&format!("DROP ROLE {login}")).await;
    }
}

/// What one person does all day: writes, is answered, reads; and never sees, nor can write to, what is
/// another's.
async fn a_day_of(db: Db, worker: Db, world: std::sync::Arc<World>, theirs: Uuid) {
    let user = Uuid::new_v4();
    let conversation = world.conversation_of(user).await;
    let clock = &world.clock;
    for round in 1..=10 {
        let (chain, content) = (chain(), format!("message {round} of {user}"));
        let new = new_generation(&chain);
        for (into, is_mine) in [(conversation, true), (theirs, false)] {
            let message = text(into, &content);
            let accepted =
                generations::accept_alone(&db, user, clock, &message, &new, Concurrency::Enqueue);
            match accepted.await.unwrap() {
                Accepted::Stored { generation, .. } if is_mine => {
                    let mut tx = worker.sweep_statement().await.unwrap();
                    let lease = common::LEASE;
                    let ids = [generation.id];
                    let claims = generations::claim(&mut tx, &ids, &claimer("w/1", lease)).await;
                    tx.commit().await.unwrap();
                    let claim = claims.unwrap().remove(0);
                    let said = claim.history.messages.last().unwrap();
                    assert_eq!(said.content, content);
                    let reply = world.finishing(claim.id, claim.token, &content, false);
                    let mut tx = worker.sweep_statement().await.unwrap();
                    let stored = generations::finish_many(&mut tx, &[&reply]).await.unwrap();
                    tx.commit().await.unwrap();
                    assert!(matches!(stored[0], Some(Finished::Stored { .. })));
                }
                Accepted::ConversationNotFound if !is_mine => {}
                other => panic!("{other:?}"),
            }
        }
        let mut tx = db.user(user).await.unwrap();
        let (mine, _) = messages::list(&mut tx, conversation, Cursor::Newest, 200)
            .await
            .unwrap();
        let (others, _) = messages::list(&mut tx, theirs, Cursor::Newest, 200)
            .await
            .unwrap();
        assert_eq!((mine.len(), others.len()), (round * 2, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_share_sessions_do_not_see_each_other() {
    let world = World::new().await;
    let server = proxy::server_of(world.env.database_url());
    let (api, api_url) = world.login(ServingRole::Api, "pooler").await;
    let (worker, worker_url) = world.login(ServingRole::Worker, "pooler").await;
    let Some(pooler) = PgBouncer::start(&server, &[&api, &worker]).await else {
        return;
    };
    let db = |url: &str, role| {
        let url = pooler.url(url);
        Db::connect_lazy(&world.config(&url, Pooler::Transaction), role).unwrap()
    };
    let (api_db, worker_db) = (
        db(&api_url, ServingRole::Api),
        db(&worker_url, ServingRole::Worker),
    );
    api_db.check_role().await.unwrap();
    worker_db.check_role().await.unwrap();
    api_db.ping().await.unwrap();
    let theirs = world.conversation_of(Uuid::new_v4()).await;
    let world = std::sync::Arc::new(world);
    let mut people = JoinSet::new();
    for _ in 0..12 {
        people.spawn(a_day_of(
            api_db.clone(),
            worker_db.clone(),
            std::sync::Arc::clone(&world),
            theirs,
        ));
    }
    while let Some(done) = people.join_next().await {
        done.unwrap();
    }
    let sessions =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename IN ('{api}', '{worker}')");
    let sessions: u32 = world.value(&sessions).await.parse().unwrap();
    assert!((1..=4).contains(&sessions), "{sessions} sessions");
    api_db.close().await;
    worker_db.close().await;
    drop(pooler);
    drop_logins(&world, &[api, worker]).await;
}

/// Whoever forgets to say that there is a pooler loses the start-up options, and with them the scope of
/// the sweeps' single statements: they become transactions.
#[tokio::test]
async fn a_sweep_without_its_start_up_options_still_finds_work() {
    let mut world = World::new().await;
    let direct = world.env.db_config();
    let link = proxy::pooler(proxy::server_of(direct.url.expose_secret())).await;
    let (login, url) = world
        .login(ServingRole::Worker, &link.address.to_string())
        .await;
    let config = world.config(&url, Pooler::None);
    world.worker = Db::connect_lazy(&config, ServingRole::Worker).unwrap();
    for content in ["first", "second"] {
        let sent = world.send(world.conversation().await, content).await;
        let claim = world.claim_one(sent.generation.id).await;
        assert_eq!(claim.history.messages.len(), 1);
        let finished = world.finish(&claim, "answer").await;
        assert!(matches!(finished, Finished::Stored { .. }));
    }
    world.worker.close().await;
    drop_logins(&world, &[login]).await;
}
