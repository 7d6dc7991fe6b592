//! Postgres and Redis: started from the recipes that `cargo xtask chaos` wrote.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use shared::testing::Session;
use tokio::time::Instant;

use super::children::Children;
use super::disk::Disk;
use super::process::{Process, Program};

/// How long a server may take to answer: recovery after a crash reads the log of a busy minute.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Redis,
}

/// A server that can be taken away and brought back on the same data and port.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    process: Process,
    url: String,
    dir: PathBuf,
}

impl Server {
    /// One that is not started yet.
    pub(crate) fn new(
        kind: Kind,
        recipe: &Path,
        url: &str,
        logs: &Path,
        children: Children,
    ) -> anyhow::Result<Self> {
        let name = match kind {
            Kind::Postgres => "postgres",
            Kind::Redis => "redis",
        };
        let text = std::fs::read_to_string(recipe)
            .with_context(|| format!("failed to read {}", recipe.display()))?;
        let mut program = program(name, &text, logs)
            .with_context(|| format!("{} is no recipe", recipe.display()))?;
        if kind == Kind::Postgres {
            // When something was committed tells the order of what ended.
            let settings = ["-c", "track_commit_timestamp=on"];
            program.args.extend(settings.map(str::to_owned));
        }
        let dir = program.dir.clone().unwrap_or_default();
        Ok(Self {
            kind,
            process: Process::new(program, children),
            url: url.to_owned(),
            dir,
        })
    }

    /// A disk for its tables, beside its data.
    pub(super) fn disk(&self) -> anyhow::Result<Option<Disk>> {
        Disk::mount(self.dir.with_file_name("disk"), self.process.user())
    }

    /// The URL, past all proxies.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        let (start, end) = place(&self.url).context("a server's URL has no host")?;
        self.url[start..end]
            .parse()
            .context("a server's URL has no address")
    }

    /// The URL with another address: that of a proxy.
    pub(crate) fn url_at(&self, address: SocketAddr) -> anyhow::Result<String> {
        let (start, end) = place(&self.url).context("a server's URL has no host")?;
        let mut url = self.url.clone();
        url.replace_range(start..end, &address.to_string());
        if self.kind == Kind::Postgres {
            // The proxies read along.
            url.push_str("?sslmode=disable");
        }
        Ok(url)
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        self.process.start()?;
        while !self.answers().await {
            if Instant::now() >= deadline {
                bail!("{} does not answer", self.process.name());
            }
            // After a crash the memory of the one before may not be free yet.
            if self.process.ended().is_some() {
                self.process.start()?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Whether it serves.
    pub(crate) async fn answers(&self) -> bool {
        let ask = async {
            match self.kind {
                Kind::Postgres => Session::open(&self.url).await.is_ok(),
                Kind::Redis => self.redis(redis::cmd("PING")).await.is_ok(),
            }
        };
        tokio::time::timeout(Duration::from_secs(2), ask)
            .await
            .unwrap_or(false)
    }

    /// Runs a command of Redis.
    pub(crate) async fn redis(&self, command: redis::Cmd) -> anyhow::Result<redis::Value> {
        let client = redis::Client::open(self.url.as_str()).context("REDIS_URL is wrong")?;
        let ask = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            command.query_async(&mut connection).await
        };
        match tokio::time::timeout(Duration::from_secs(10), ask).await {
            Ok(answer) => answer.context("Redis refused"),
            Err(_) => bail!("Redis does not answer"),
        }
    }

    /// Ends it without warning: `kill -9`; Postgres by its own word for it, which is the same to its
    /// clients and its data, and leaves no orphans behind.
    pub(crate) async fn crash(&mut self) {
        match self.kind {
            Kind::Postgres => self.stop(Signal::SIGQUIT).await,
            Kind::Redis => self.process.kill().await,
        }
    }

    /// Ends it in order: Postgres throws its clients out, Redis writes everything down.
    pub(crate) async fn shut_down(&mut self) {
        match self.kind {
            Kind::Postgres => self.stop(Signal::SIGINT).await,
            Kind::Redis => self.stop(Signal::SIGTERM).await,
        }
    }

    async fn stop(&mut self, signal: Signal) {
        self.process.stop(signal, Duration::from_secs(30)).await;
    }

    /// Deletes what Redis has on disk.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        let files = self.dir.join("appendonlydir");
        match std::fs::remove_dir_all(&files) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("failed to remove {}", files.display()))
            }
            _ => Ok(()),
        }
    }

    /// Cuts off the end of what Redis has on disk, as a machine does that loses power. Returns how many
    /// bytes that were.
    pub(crate) fn truncate(&self, bytes: u64) -> anyhow::Result<u64> {
        let files = self.dir.join("appendonlydir");
        let newest = std::fs::read_dir(&files)
            .with_context(|| format!("failed to read {}", files.display()))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok());
        let Some(path) = newest else { return Ok(0) };
        let cut = || -> std::io::Result<u64> {
            let file = std::fs::OpenOptions::new().write(true).open(&path)?;
            let length = file.metadata()?.len();
            file.set_len(length.saturating_sub(bytes))?;
            Ok(bytes.min(length))
        };
        cut().with_context(|| format!("failed to cut {}", path.display()))
    }

    /// The process, for signals and for its memory.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Reads a recipe: user, folder, program, arguments, one a line.
fn program(name: &str, text: &str, logs: &Path) -> Option<Program> {
    let mut lines = text.lines();
    let user = match lines.next()? {
        "-" => None,
        ids => {
            let (user, group) = ids.split_once(':')?;
            Some((user.parse().ok()?, group.parse().ok()?))
        }
    };
    let dir = PathBuf::from(lines.next()?);
    let path = PathBuf::from(lines.next()?);
    let home = ("HOME".to_owned(), dir.display().to_string());
    let locale = ("LC_ALL".to_owned(), "C".to_owned());
    let zone = ("TZ".to_owned(), "UTC".to_owned());
    Some(Program {
        name: name.to_owned(),
        path,
        args: lines.map(str::to_owned).collect(),
        env: vec![home, locale, zone],
        user,
        dir: Some(dir),
        log: logs.join(format!("{name}.log")),
    })
}

/// Where in a URL its host and port are.
fn place(url: &str) -> Option<(usize, usize)> {
    let start = url.find("://")? + 3;
    let end = url[start..]
        .find(['/', '?'])
        .map_or(url.len(), |length| start + length);
    let start = url[start..end]
        .rfind('@')
        .map_or(start, |at| start + at + 1);
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_read_as_it_was_written() {
        let logs = Path::new("/logs");
        let text = "7:8\n/data dir\n/bin/postgres\n-c\nport=5";
        let read = program("postgres", text, logs).unwrap();
        assert_eq!(read.user, Some((7, 8)));
        assert_eq!(read.dir.as_deref(), Some(Path::new("/data dir")));
        assert_eq!(read.args, ["-c", "port=5"]);
        assert_eq!(program("p", "-\n/\n/bin/x", logs).unwrap().user, None);
        assert!(program("p", "me\n/\n/bin/x", logs).is_none());
        assert!(program("p", "-\n/", logs).is_none());
    }

    #[test]
    fn the_address_of_a_url_is_replaced() {
        for (url, part) in [
            ("postgres://me:s@1.2.3.4:5/db", "1.2.3.4:5"),
            ("redis://:p%40@[::1]:6/0", "[::1]:6"),
            ("redis://127.0.0.1:7", "127.0.0.1:7"),
        ] {
            let (start, end) = place(url).unwrap();
            assert_eq!(&url[start..end], part);
        }
    }
}
