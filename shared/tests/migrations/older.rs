//! The oldest Postgres that is promised, where this machine has it: a server of its own, thrown away.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shared::clock::Clock;
use shared::domain::{ContentType, ContextType, Priority};
use shared::models::Model;
use shared::store::generations::{self, Accepted, Concurrency, NewGeneration, NewMessage};
use shared::store::{Db, DbConfig, ServingRole, conversations, maintenance, migrate};
use shared::{id, store};
use uuid::Uuid;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Postgres refuses to run as root.
const NOBODY: u32 = 65_534;

struct Server {
    data: PathBuf,
    sockets: tempfile::TempDir,
}

impl Server {
    fn program(name: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(name));
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn run(command: &mut Command) {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }

    /// It listens on a socket in a directory of its own, so there is no port to agree on.
    fn start() -> Self {
        let sockets = tempfile::tempdir().unwrap();
        if is_root() {
            chown(sockets.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = sockets.path().join("data");
        let mut initdb = Self::program("initdb");
        Self::run(
            initdb
                .args(["-U", "postgres", "-A", "trust", "--no-sync", "-D"])
                .arg(&data),
        );
        let settings = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c fsync=off -c full_page_writes=off",
            sockets.path().display()
        );
        let log = sockets.path().join("log");
        let mut start = Self::program("pg_ctl");
        // Its output would keep this test's pipes open as long as the server lives.
        Self::run(
            start
                .args(["start", "-w", "-t", "60", "-o", &settings, "-l"])
                .arg(log)
                .arg("-D")
                .arg(&data),
        );
        Self { data, sockets }
    }

    fn config(&self) -> DbConfig {
        DbConfig {
            url: format!(
                "postgres://postgres@localhost/postgres?host={}",
                self.sockets.path().display()
            )
            .into(),
            pool_min: 0,
            pool_max: 4,
            acquire_timeout: Duration::from_secs(10),
            places: 10_000,
            pooler: store::Pooler::None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = Self::program("pg_ctl");
        let _ = stop
            .args(["stop", "-m", "immediate", "-D"])
            .arg(&self.data)
            .output();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[tokio::test]
async fn postgres_15_will_do() {
    if !Path::new(PROGRAMS).is_dir() {
        eprintln!("not run: there is no {PROGRAMS}");
        return;
    }
    let server = Server::start();
    let config = server.config();
    migrate::run(&config.url).await.unwrap();
    migrate::run(&config.url).await.unwrap();
    let api = Db::connect_lazy(&config, ServingRole::Api).unwrap();
    let worker = Db::connect_lazy(&config, ServingRole::Worker).unwrap();
    api.check_role().await.unwrap();
    worker.check_role().await.unwrap();
    let (clock, user) = (Clock::system(), Uuid::new_v4());
    let mut tx = api.user(user).await.unwrap();
    let new = conversations::NewConversation {
        id: id::new(clock.now()),
        title: None,
        context_type: ContextType::General,
        context_data: &serde_json::json!({}),
        metadata: &serde_json::json!({}),
    };
    let conversation = conversations::create(&mut tx, &new).await.unwrap().id;
    let message = NewMessage {
        conversation_id: conversation,
        content: "hello",
        content_type: ContentType::Text,
        attachments: &[],
        parent_message_id: None,
    };
    let chain = [Model::new("test/first:free".to_owned(), true)];
    let generation = NewGeneration {
        priority: Priority::Premium,
        chain: &chain,
        stream: true,
        deadline: Duration::from_secs(60),
        max_attempts: 5,
        request_id: None,
        traceparent: None,
    };
    let accepted = generations::accept(&mut tx, &clock, &message, &generation, Concurrency::Reject)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let Accepted::Stored {
        user_message,
        generation,
        is_head: true,
        ..
    } = accepted
    else {
        panic!("{accepted:?}");
    };
    let mut tx = worker.sweep_statement().await.unwrap();
    let claims = generations::claim_ready(
        &mut tx,
        &generations::Room::for_any(10),
        &crate::common::claimer("w/1", Duration::from_secs(30)),
    )
    .await
    .unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!(
        generations::renew(
            &mut tx,
            &[(claims[0].id, claims[0].token)],
            Duration::from_secs(30)
        )
        .await
        .unwrap()
        .len(),
        1
    );
    assert!(
        generations::expired_leases(&mut tx, 10, std::time::Duration::ZERO)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        generations::expired_deadlines(&mut tx, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        generations::ready_unpushed(&mut tx, Priority::ALL, 15.0, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(maintenance::ensure_partitions(&mut tx).await.unwrap(), 0);
    tx.commit().await.unwrap();
    let mut tx = worker.sweep().await.unwrap();
    let of = generations::HistoryOf {
        user_id: user,
        conversation_id: conversation,
        user_message_id: user_message.id,
    };
    let histories = generations::histories(&mut tx, &[of], 1_000).await.unwrap();
    assert_eq!(histories[0].messages.len(), 1);
    let now = clock.now();
    let reply_id = id::new_after(now, Some(generation.id));
    let finish = generations::Finish {
        id: generation.id,
        token: claims[0].token,
        reply_id,
        usage_id: id::new(now),
        title_generation_id: id::new_after(now, Some(reply_id)),
        content: "hello to you".to_owned(),
        incomplete: false,
        usage: crate::common::usage(),
        context: None,
        first_token_ms_ago: None,
        metadata: serde_json::json!({}),
        call: None,
    };
    let finished = generations::finish(&mut tx, &finish).await.unwrap();
    assert!(matches!(finished, generations::Finished::Stored { .. }));
    tx.commit().await.unwrap();
    let mut tx = api.user(user).await.unwrap();
    let found = generations::find_with_reply(&mut tx, generation.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.assistant_message.unwrap().content, "hello to you");
    let mut tx = api.user(Uuid::new_v4()).await.unwrap();
    assert!(
        store::conversations::find(&mut tx, conversation)
            .await
            .unwrap()
            .is_none()
    );
}
