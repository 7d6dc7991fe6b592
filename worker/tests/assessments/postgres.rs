//! A Postgres of a test's own, which it may stop at once, kill and start again. It is run by the
//! programs of the server that `cargo xtask test` has started, as the same user.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use shared::testing::{Session, TestEnv};
use tokio::time::Instant;
use uuid::Uuid;

/// How long it may take to start: recovery reads the log of what was being done.
const READY_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct OwnPostgres {
    programs: PathBuf,
    folder: PathBuf,
    /// Postgres refuses to run as root.
    owner: (u32, u32),
    port: u16,
    server: Option<Child>,
}

impl OwnPostgres {
    pub(crate) async fn start() -> Self {
        let common = TestEnv::new().await;
        let ask = async |sql| PathBuf::from(common.value(sql).await.unwrap());
        let programs = ask("SELECT setting FROM pg_config WHERE name = 'BINDIR'").await;
        let data = ask("SELECT current_setting('data_directory')").await;
        let data = fs::metadata(data).unwrap();
        let folder = std::env::temp_dir().join(format!("balas-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).unwrap();
        let mut postgres = Self {
            programs,
            folder,
            owner: (data.uid(), data.gid()),
            port: free_port(),
            server: None,
        };
        postgres.init();
        postgres.start_again().await;
        postgres
    }

    fn init(&self) {
        chown(&self.folder, Some(self.owner.0), Some(self.owner.1)).unwrap();
        let made = self
            .command("initdb")
            .args(["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--auth=trust", "--no-sync", "--no-instructions", "-D"])
            .arg(self.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .current_dir(&self.folder)
            .env_remove("PGDATA")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        if geteuid().is_root() {
            command.uid(self.owner.0).gid(self.owner.1);
        }
        command
    }

    /// Any database's URL but for its name.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it on what it has on disk, and waits until it answers.
    pub(crate) async fn start_again(&mut self) {
        let (log, url) = (self.folder.join("log"), self.url());
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if self.server.is_none() {
                self.server = Some(self.spawn(&log));
            }
            let asking = tokio::time::timeout(Duration::from_secs(2), Session::open(&url));
            if matches!(asking.await, Ok(Ok(_))) {
                return;
            }
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < deadline, "Postgres says: {}", said());
            // The memory of one that was killed may not be free yet.
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() {
                self.server = None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn spawn(&self, log: &Path) -> Child {
        let log = fs::File::create(log).unwrap();
        let port = format!("port={}", self.port);
        let settings = [
            port.as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=50",
            "max_locks_per_transaction=256",
            // Said aloud: what was committed is on disk, as in production.
            "fsync=on",
            "synchronous_commit=on",
        ];
        let mut command = self.command("postgres");
        for setting in settings {
            command.args(["-c", setting]);
        }
        command
            .arg("-D")
            .arg(self.data())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// An immediate stop: every session is thrown out, nothing is finished or written down, and the next
    /// start recovers from the log.
    pub(crate) fn stop_at_once(&mut self) {
        let mut server = self.server.take().unwrap();
        kill(pid(&server), Signal::SIGQUIT).unwrap();
        server.wait().unwrap();
    }

    /// `kill -9` of the server with all its processes, none of which says a word to its client.
    pub(crate) fn kill(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        // Before any child can see that the parent is gone.
        let _ = kill(pid(&server), Signal::SIGSTOP);
        for child in children(pid(&server)) {
            let _ = kill(child, Signal::SIGKILL);
        }
        let _ = server.kill();
        let _ = server.wait();
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The processes whose parent this is.
fn children(parent: Pid) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let of = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            (of.trim() == parent.to_string()).then(|| Pid::from_raw(id))
        })
        .collect()
}

/// Below those that the kernel gives to outgoing connections, so that it is free again after a kill.
fn free_port() -> u16 {
    let start = u16::try_from(std::process::id() * 7 % 10_000).unwrap();
    let mut all = (0..10_000).map(|offset| 10_000 + (start + offset) % 10_000);
    all.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
