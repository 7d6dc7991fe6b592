//! History read from a streaming replica: whoever was told of something finds it, however far behind the
//! replica is.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use secrecy::SecretString;
use serde_json::json;
use shared::config::Vars;
use shared::store::conversations::{self, Filter};
use shared::store::{Db, DbConfig, ServingRole, migrate};
use shared::testing::Session;
use uuid::Uuid;

use crate::common::{Client, Scrape, TestApp, conversation, until};

/// A server on a free port.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    async fn session(&self) -> Session {
        until(async || Session::open(&self.url("postgres")).await.ok()).await
    }
}

/// A primary and its replica.
struct Pair {
    bin: PathBuf,
    user: String,
    folder: PathBuf,
    primary: Option<Server>,
    replica: Option<Server>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        (self.replica, self.primary) = (None, None);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Pair {
    async fn start() -> Self {
        let mut vars = Vars::from_process();
        let mut given = |name| {
            vars.optional::<String>(name, "set by cargo xtask test")
                .expect("run the tests with `cargo xtask test`")
        };
        let (bin, user) = (
            given("TEST_POSTGRES_BIN").into(),
            given("TEST_POSTGRES_USER"),
        );
        let folder = std::env::temp_dir().join(format!("balas-pair-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let mut pair = Self {
            bin,
            user,
            folder,
            primary: None,
            replica: None,
        };
        if let Some((uid, gid)) = pair.ids() {
            chown(&pair.folder, Some(uid), Some(gid)).unwrap();
        }
        let data = pair.folder.join("primary");
        let mut initdb = pair.command("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
            "-D",
        ]);
        finish(initdb.arg(&data)).await;
        let primary = pair.serve(&data);
        // Who was acknowledged is on the disk, as in production; that the disk is real is of no matter here.
        let mut session = primary.session().await;
        session.run("CREATE DATABASE balas").await.unwrap();
        migrate::run(&SecretString::from(primary.url("balas")))
            .await
            .unwrap();
        let copy = pair.folder.join("replica");
        let mut backup = pair.command("pg_basebackup");
        backup.args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ]);
        backup
            .args(["--no-sync", "--wal-method=stream", "-D"])
            .arg(&copy);
        finish(backup.arg(format!("--port={}", primary.port))).await;
        let replica = pair.serve(&copy);
        replica.session().await;
        (pair.primary, pair.replica) = (Some(primary), Some(replica));
        pair
    }

    fn ids(&self) -> Option<(u32, u32)> {
        let (uid, gid) = self.user.split_once(':')?;
        Some((uid.parse().ok()?, gid.parse().ok()?))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command
            .current_dir(&self.folder)
            .env_remove("PGDATA")
            .env("LC_ALL", "C");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = self.ids() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn serve(&self, data: &Path) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut command = self.command("postgres");
        command.arg("-D").arg(data);
        for setting in [
            &format!("port={port}"),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=100",
            "shared_buffers=64MB",
        ] {
            command.args(["-c", setting]);
        }
        Server {
            process: command.spawn().unwrap(),
            port,
        }
    }

    fn primary(&self) -> &Server {
        self.primary.as_ref().unwrap()
    }

    fn replica(&self) -> &Server {
        self.replica.as_ref().unwrap()
    }

    async fn replica_session(&self) -> Session {
        Session::open(&self.replica().url("balas")).await.unwrap()
    }

    /// Runs a statement on the replica as superuser.
    async fn tell_replica(&self, sql: &str) {
        self.replica_session().await.run(sql).await.unwrap();
    }

    /// What it says is on the replica.
    async fn on_replica(&self, expression: &str) -> String {
        let mut session = self.replica_session().await;
        let query = format!("SELECT ({expression})::text");
        let rows = session.rows(&query).await.unwrap();
        rows[0][0].clone().unwrap_or_default()
    }
}

async fn finish(command: &mut Command) {
    let mut child = command.spawn().unwrap();
    let done = until(async || child.try_wait().unwrap()).await;
    assert!(done.success(), "{command:?}: {done}");
}

/// Reads of history so far, by who answered.
async fn reads(client: &Client, server: &str) -> f64 {
    Scrape::of(client)
        .await
        .sum("history_reads_total", &[("server", server)])
}

/// The contents of a conversation's messages, as its reader finds them in each way there is.
async fn contents(client: &Client, conversation: &str) -> Vec<String> {
    let listed = client
        .get(&format!("/api/chat/conversations/{conversation}/messages"))
        .await;
    let whole = client
        .get(&format!("/api/chat/conversations/{conversation}"))
        .await;
    assert_eq!(
        (listed.status, whole.status),
        (200, 200),
        "{}",
        listed.shown()
    );
    assert_eq!(listed.body["messages"], whole.body["messages"]);
    let messages = listed.body["messages"].as_array().unwrap();
    let content = |message: &serde_json::Value| message["content"].as_str().unwrap().to_owned();
    messages.iter().map(content).collect()
}

async fn reads_from_the_replica(client: &Client) {
    until(async || {
        let before = reads(client, "replica").await;
        assert_eq!(client.get("/api/chat/conversations").await.status, 200);
        (reads(client, "replica").await > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_reads_what_they_wrote_however_far_behind_the_replica_is() {
    let pair = Pair::start().await;
    let (primary, replica) = (pair.primary().url("balas"), pair.replica().url("balas"));
    let settings = [
        ("DATABASE_URL", &*primary),
        ("DATABASE_REPLICA_URL", &*replica),
    ];
    let mut app = TestApp::with(&settings).await;
    app.start_worker_with(&[("DATABASE_URL", &primary)]);
    let other = app.another_replica().await;
    let user = app.user();
    let elsewhere = user.at(&other.url);
    let id = conversation(&user).await;

    // While the replica follows, it is read: the reply that a worker stored as well.
    let answer = user.ask(&id, "first").await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    reads_from_the_replica(&user).await;
    let before = reads(&user, "replica").await;
    assert_eq!(contents(&user, &id).await.len(), 2);
    until(async || (reads(&user, "replica").await > before).then_some(())).await;

    // Now it stands still, and answers all the same.
    pair.tell_replica("SELECT pg_wal_replay_pause()").await;
    until(async || {
        let state = pair.on_replica("pg_get_wal_replay_pause_state()").await;
        (state == "paused").then_some(())
    })
    .await;
    let mut expected = 2;
    for number in 0..6 {
        let text = format!("message {number}");
        let client = if number % 2 == 0 { &user } else { &elsewhere };
        let reader = if number % 3 == 0 { &user } else { &elsewhere };
        assert_eq!(client.ask(&id, &text).await.status, 200);
        expected += 2;
        let found = contents(reader, &id).await;
        assert_eq!((found.len(), &*found[expected - 2]), (expected, &*text));
        let found = reader
            .get(&format!(
                "/api/chat/conversations?q={}",
                text.replace(' ', "%20")
            ))
            .await;
        assert_eq!(found.body["total"], 1, "{}", found.shown());
    }
    let path = format!("/api/chat/conversations/{id}");
    let renamed = user.patch(&path, json!({ "title": "A new name" })).await;
    assert_eq!(renamed.status, 200, "{}", renamed.shown());
    let whole = elsewhere.get(&path).await;
    assert_eq!(whole.text("/conversation/title"), "A new name");
    let stale = pair.on_replica("SELECT count(*) FROM chat.messages").await;
    assert_eq!(stale, "2", "it stood still");
    assert!(reads(&user, "primary_behind").await >= 1.0);
    until(async || {
        let lag = Scrape::of(&user).await.sum("replica_lag_seconds", &[]);
        (lag > 1.0).then_some(())
    })
    .await;

    // It goes on, and is read again.
    pair.tell_replica("SELECT pg_wal_replay_resume()").await;
    reads_from_the_replica(&user).await;
    assert_eq!(contents(&elsewhere, &id).await.len(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_anothers_history_from_a_replica_nor_misses_one_that_is_away() {
    let mut pair = Pair::start().await;
    let (primary, replica) = (pair.primary().url("balas"), pair.replica().url("balas"));
    let settings = [
        ("DATABASE_URL", &*primary),
        ("DATABASE_REPLICA_URL", &*replica),
    ];
    let app = TestApp::with(&settings).await;
    let (user, stranger) = (app.user(), app.user());
    let id = conversation(&user).await;
    user.say(&id, "mine alone").await;
    reads_from_the_replica(&stranger).await;
    let before = reads(&user, "replica").await;
    for path in ["", "/messages", "/usage"] {
        let found = stranger
            .get(&format!("/api/chat/conversations/{id}{path}"))
            .await;
        assert_eq!(found.status, 404, "{}", found.shown());
    }
    let listed = stranger.get("/api/chat/conversations?q=mine").await;
    assert_eq!(listed.body["total"], 0, "{}", listed.shown());
    assert!(
        reads(&user, "replica").await > before,
        "the replica was not asked"
    );

    // The rows themselves, with no handler's check before them: what the person has is there, and nobody else's.
    let config = DbConfig {
        url: replica.clone().into(),
        ..app.env.db_config()
    };
    let db = Db::connect_lazy(&config, ServingRole::Api).unwrap();
    let every = Filter {
        status: shared::domain::ConversationStatus::Active,
        context_type: None,
        search: None,
        limit: 10,
        offset: 0,
    };
    for (who, count) in [(user.user, 1), (stranger.user, 0)] {
        let mut tx = db.user(who).await.unwrap();
        let (_, total) = conversations::list(&mut tx, &every).await.unwrap();
        assert_eq!(total, count);
    }
    let mut session = pair.replica_session().await;
    session.run("SET ROLE balas_api").await.unwrap();
    let seen = session
        .rows("SELECT content FROM chat.messages")
        .await
        .unwrap();
    assert_eq!(seen.len(), 0);

    // Without it, nobody notices.
    pair.replica = None;
    for _ in 0..3 {
        assert_eq!(contents(&user, &id).await, ["mine alone"]);
    }
    assert!(reads(&user, "primary_failed").await >= 1.0);
}
