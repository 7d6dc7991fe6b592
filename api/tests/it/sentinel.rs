//! Redis behind Sentinels: three of them, two servers, and fail-overs while people chat.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use loadtest::driver::{self, Arguments};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::cmd;
use shared::config::Vars;
use uuid::Uuid;

use crate::common::{EventStream, JWT_SECRET, TestApp, conversation, sse, until};

const NAME: &str = "balas";
const PASSWORD: &str = "p@ss of the servers";
const ENCODED: &str = "p%40ss%20of%20the%20servers";
const SENTINEL_PASSWORD: &str = "of-the-sentinels";

/// A server or a Sentinel. It is killed when this is dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Two servers and three Sentinels that watch over them.
struct Guarded {
    program: PathBuf,
    folder: PathBuf,
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.servers.clear();
        self.sentinels.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    let ports = listeners.iter();
    ports
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}

impl Guarded {
    async fn start() -> Self {
        let program: String = Vars::from_process()
            .optional("TEST_REDIS_SERVER", "set by cargo xtask test")
            .expect("run the tests with `cargo xtask test`");
        let folder = std::env::temp_dir().join(format!("balas-redis-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let mut guarded = Self {
            program: program.into(),
            folder,
            servers: Vec::new(),
            sentinels: Vec::new(),
        };
        let ports = free_ports(5);
        guarded.serve(ports[0], None).await;
        guarded.serve(ports[1], Some(ports[0])).await;
        for port in &ports[2..] {
            guarded.watch(*port, ports[0]).await;
        }
        // A fail-over needs a majority that knows of each other, and a replica that is known and in step.
        for port in &ports[2..] {
            until(async || {
                let known = sentinel(*port, &["MASTER", NAME]).await?;
                let has = |key: &str, value: &str| {
                    let mut pairs = known.chunks(2);
                    pairs.any(|pair| pair[0] == key && pair[1] == value)
                };
                let replicas = sentinel_table(*port, &["REPLICAS", NAME]).await?;
                let in_step = replicas.iter().any(|replica| {
                    let mut pairs = replica.chunks(2);
                    pairs.any(|pair| pair[0] == "master-link-status" && pair[1] == "ok")
                });
                (has("num-slaves", "1") && has("num-other-sentinels", "2") && in_step).then_some(())
            })
            .await;
        }
        guarded
    }

    fn spawn(&self, port: u16, settings: &str, arguments: &[&str]) -> Server {
        let file = self.folder.join(format!("{port}.conf"));
        let folder = self.folder.display();
        let text = format!("bind 127.0.0.1\nport {port}\ndir {folder}\n{settings}");
        std::fs::write(&file, text).unwrap();
        let process = Command::new(&self.program)
            .arg(&file)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Server { process, port }
    }

    async fn serve(&mut self, port: u16, master: Option<u16>) {
        let follows = master.map(|master| format!("replicaof 127.0.0.1 {master}\n"));
        let settings = format!(
            "requirepass \"{PASSWORD}\"\nmasterauth \"{PASSWORD}\"\nsave \"\"\nappendonly no\nrepl-diskless-sync-delay 0\n{}",
            follows.unwrap_or_default()
        );
        let server = self.spawn(port, &settings, &[]);
        self.servers.push(server);
        until(async || role(port).await).await;
    }

    async fn watch(&mut self, port: u16, master: u16) {
        let settings = format!(
            "requirepass \"{SENTINEL_PASSWORD}\"\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n\
             sentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel auth-pass {NAME} \"{PASSWORD}\"\n\
             sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 3000\n"
        );
        let server = self.spawn(port, &settings, &["--sentinel"]);
        self.sentinels.push(server);
        until(async || sentinel(port, &["MYID"]).await).await;
    }

    /// What `REDIS_URL` is.
    fn url(&self) -> String {
        let sentinels = self.sentinels.iter();
        let hosts: Vec<String> = sentinels
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        let hosts = hosts.join(",");
        format!(
            "redis+sentinel://:{ENCODED}@{hosts}/{NAME}/0?sentinel_password={SENTINEL_PASSWORD}"
        )
    }

    /// The place of the server that most Sentinels call the master.
    async fn master(&self) -> usize {
        let mut votes = vec![0; self.servers.len()];
        for sentinel_ in &self.sentinels {
            let said = sentinel(sentinel_.port, &["GET-MASTER-ADDR-BY-NAME", NAME]).await;
            let port = said.and_then(|said| said.get(1)?.parse::<u16>().ok());
            let place = self
                .servers
                .iter()
                .position(|server| Some(server.port) == port);
            if let Some(place) = place {
                votes[place] += 1;
            }
        }
        votes
            .iter()
            .position(|count| *count >= 2)
            .unwrap_or(usize::MAX)
    }

    /// Waits until the other server is the master and says so.
    async fn moves_to(&self, place: usize) {
        until(async || {
            let is_master = role(self.servers[place].port).await.as_deref() == Some("master");
            (self.master().await == place && is_master).then_some(())
        })
        .await;
    }
}

async fn ask<T: redis::FromRedisValue>(url: &str, command: &redis::Cmd) -> Option<T> {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    command.query_async(&mut connection).await.ok()
}

fn server_url(port: u16) -> String {
    format!("redis://:{ENCODED}@127.0.0.1:{port}")
}

/// `master` or `slave`; none while it does not answer.
async fn role(port: u16) -> Option<String> {
    let info: String = ask(&server_url(port), cmd("INFO").arg("replication")).await?;
    let role = info.lines().find_map(|line| line.strip_prefix("role:"))?;
    Some(role.trim().to_owned())
}

/// The connections to a server, but for those of the Sentinels themselves.
async fn connections(port: u16) -> String {
    let list: Option<String> = ask(&server_url(port), cmd("CLIENT").arg("LIST")).await;
    let list = list.unwrap_or_default();
    let others = list.lines().filter(|line| !line.contains("name=sentinel-"));
    others.collect::<Vec<_>>().join("\n")
}

async fn sentinel(port: u16, words: &[&str]) -> Option<Vec<String>> {
    let url = format!("redis://:{SENTINEL_PASSWORD}@127.0.0.1:{port}");
    let answer: redis::Value = ask(&url, cmd("SENTINEL").arg(words)).await?;
    match answer {
        redis::Value::BulkString(id) => Some(vec![String::from_utf8(id).ok()?]),
        redis::Value::Okay => Some(Vec::new()),
        other => redis::from_redis_value(other).ok(),
    }
}

async fn sentinel_table(port: u16, words: &[&str]) -> Option<Vec<Vec<String>>> {
    let url = format!("redis://:{SENTINEL_PASSWORD}@127.0.0.1:{port}");
    ask(&url, cmd("SENTINEL").arg(words)).await
}

/// Somebody chats as usual, and says at the end that all of it was answered, once.
async fn chat(app: &TestApp, seconds: &str) {
    let simulator = app.simulator.origin();
    let line = [
        "loadtest",
        "--quiet",
        "--api",
        &app.api.url,
        "--simulator",
        &simulator,
        "--jwt-secret",
        JWT_SECRET,
        "--connections",
        "16",
        "steady",
        "--rate",
        "12",
        "--seconds",
        seconds,
        "--users",
        "24",
        "--marker",
        "ttft=100,rate=40,tokens=20",
    ];
    let arguments = <Arguments as clap::Parser>::try_parse_from(line).unwrap();
    let driver::Command::Load(scenario) = &arguments.command else {
        unreachable!("steady is load");
    };
    let report = driver::run(&arguments.common, scenario).await.unwrap();
    let record = report.record.as_ref().unwrap();
    let counts = record.counts;
    assert!(counts.sent > 0, "{report}");
    assert_eq!((counts.failed, counts.unfinished), (0, 0), "{report}");
    assert_eq!(counts.completed, counts.sent, "{report}");
    let repeated = record
        .figures
        .iter()
        .find(|(name, _)| name.contains("called for more than once"));
    assert_eq!(repeated.unwrap().1, "0", "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_loses_nothing_and_doubles_nothing() {
    let mut guarded = Guarded::start().await;
    let url = guarded.url();
    let mut app = TestApp::with(&[("REDIS_URL", &url)]).await;
    app.start_worker_with(&[("REDIS_URL", &url)]);
    assert_eq!(guarded.master().await, 0);
    let old = guarded.servers[0].port;

    // The master dies.
    tokio::join!(chat(&app, "7"), async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        guarded.servers[0].kill();
        guarded.moves_to(1).await;
    });
    settled_at(&app, guarded.servers[1].port).await;

    // It comes back, is made a replica, and is then asked to take over again: now the old master lives, and
    // takes no writes.
    guarded.servers.remove(0);
    guarded.serve(old, None).await;
    guarded.servers.swap(0, 1);
    until(async || (role(old).await.as_deref() == Some("slave")).then_some(())).await;
    tokio::join!(chat(&app, "7"), async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let first = guarded.sentinels[0].port;
        // Refused while they still settle the last one, or do not know the replica well enough.
        until(async || sentinel(first, &["FAILOVER", NAME]).await).await;
        guarded.moves_to(0).await;
    });
    settled_at(&app, old).await;
    let left = guarded.servers[1].port;
    until(async || {
        let clients = connections(left).await;
        (!waits(&clients) && !subscribes(&clients)).then_some(())
    })
    .await;

    // A Sentinel that is frozen is no reason to lose the master.
    let frozen = &guarded.sentinels[2].process;
    kill(Pid::from_raw(frozen.id().cast_signed()), Signal::SIGSTOP).unwrap();
    let user = app.user();
    let sent = user.say(&conversation(&user).await, "still there?").await;
    let stream = EventStream::open(&user, &sent.text("/links/events"), None).await;
    assert_eq!(
        sse::kinds(&stream.rest().await).last(),
        Some(&"generation.completed")
    );
}

fn waits(clients: &str) -> bool {
    clients.contains("cmd=blmpop")
}

fn subscribes(clients: &str) -> bool {
    clients.contains("cmd=subscribe")
}

/// Every kind of connection goes to that server: commands, the worker's wait, subscriptions.
async fn settled_at(app: &TestApp, port: u16) {
    until(async || {
        let clients = connections(port).await;
        let prefix = app.env.redis_config().prefix;
        let mut size = cmd("KEYS");
        size.arg(format!("{prefix}:*"));
        let keys: Vec<String> = ask(&server_url(port), &size).await?;
        (waits(&clients) && subscribes(&clients) && !keys.is_empty()).then_some(())
    })
    .await;
}
