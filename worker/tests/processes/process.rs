//! Workers as processes, and connections that can be cut.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::Fleet;

/// A process that has not ended after so long never does. The watchdog alone takes 15 s.
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker as an operator starts it. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
}

/// The program with a test's settings and nothing of a person's shell.
pub(crate) fn command(settings: Vec<(&'static str, String)>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balas-worker"));
    command
        .env_clear()
        .envs(settings)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

impl Process {
    pub(crate) fn start(fleet: &Fleet, name: &str, settings: &[(&'static str, &str)]) -> Self {
        let mut child = command(fleet.settings(name, settings)).spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (lines, kept) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                shared::testing::keep_line(&line);
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log }
    }

    /// One that nobody listens to.
    pub(crate) fn of(child: Child) -> Self {
        Self {
            child,
            log: Arc::default(),
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().cast_signed()), signal).unwrap();
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has said something.
    pub(crate) async fn says(&self, fleet: &Fleet, what: &str) {
        fleet
            .until(async || self.log.lock().unwrap().contains(what).then_some(()))
            .await;
    }

    /// The value of a field of the first line that has it.
    pub(crate) async fn said(&self, fleet: &Fleet, field: &str) -> String {
        fleet
            .until(async || {
                let log = self.log.lock().unwrap();
                log.lines().find_map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).ok()?;
                    Some(line[field].as_str()?.to_owned())
                })
            })
            .await
    }

    /// Waits for the end and returns its exit code; none after a signal that it could not catch.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "the process does not end; it said:\n{}",
                self.log.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// `kill -9`.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a health port answers: status and body.
pub(crate) async fn probe(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

/// A way to a server that can be cut for good.
pub(crate) struct Link {
    /// The server's URL by this way.
    pub(crate) url: String,
    cut: CancellationToken,
}

impl Link {
    pub(crate) async fn to(url: &str) -> Self {
        let start = url.find("://").unwrap() + 3;
        let end = url[start..].find(['/', '?']);
        let end = end.map_or(url.len(), |length| start + length);
        let start = url[start..end]
            .rfind('@')
            .map_or(start, |at| start + at + 1);
        let server: SocketAddr = url[start..end].parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut through = url.to_owned();
        through.replace_range(start..end, &listener.local_addr().unwrap().to_string());
        let cut = CancellationToken::new();
        let carrying = carry(listener, server);
        let cutting = cut.clone();
        tokio::spawn(async move { cutting.run_until_cancelled(carrying).await });
        Self { url: through, cut }
    }

    /// Breaks every connection; no new one is taken.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

async fn carry(listener: TcpListener, server: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(server).await {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
