//! Everything that runs: two replicas of the API, three workers, Postgres, Redis, and a proxy between
//! each pair of them.

mod children;
mod disk;
mod process;
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use shared::testing::Session;
use tokio::time::Instant;

use self::children::Children;
use self::disk::Disk;
pub(crate) use self::disk::stand_apart;
pub(crate) use self::process::Process;
use self::process::Program;
pub(crate) use self::server::{Kind, Server};
use crate::proxy::{Condition, Link, Protocol, Tally};
use crate::receiver;

/// Replicas of the API.
pub(crate) const APIS: usize = 2;
/// Workers.
pub(crate) const WORKERS: usize = 3;
/// A claim holds so long without renewal: short, so that a run sees many of them run out.
pub(crate) const LEASE: Duration = Duration::from_secs(6);
/// How long a draining worker lets running replies go on. Most of ours end within it, some do not.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How long a process may take to end in order: its grace and what closing takes, on a busy machine.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How long a replica may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What the fleet is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) api: &'a Path,
    pub(crate) worker: &'a Path,
    pub(crate) logs: &'a Path,
    pub(crate) children: &'a Path,
    pub(crate) postgres: (&'a Path, &'a str),
    pub(crate) redis: (&'a Path, &'a str),
    pub(crate) simulator: SocketAddr,
    /// The notification service.
    pub(crate) receiver: SocketAddr,
    pub(crate) jwt_secret: &'a str,
    pub(crate) seed: u64,
}

/// One process of Balas and its links.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) database: Link,
    pub(crate) redis: Link,
    /// To the model; of a worker only.
    pub(crate) upstream: Option<Link>,
    /// To the notification service; of a worker only.
    pub(crate) receiver: Option<Link>,
    /// From the clients; of a replica only.
    pub(crate) front: Option<Link>,
}

impl Member {
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        [&self.database, &self.redis]
            .into_iter()
            .chain(&self.upstream)
            .chain(&self.receiver)
            .chain(&self.front)
    }
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) postgres: Server,
    pub(crate) redis: Server,
    pub(crate) apis: Vec<Member>,
    pub(crate) workers: Vec<Member>,
    pub(crate) tally: Arc<Tally>,
    /// Where the tables are; none where nothing may be mounted.
    pub(crate) disk: Option<Disk>,
}

impl Fleet {
    /// Starts the servers, then everything on top of them, and waits until the API is ready.
    pub(crate) async fn start(parts: &Parts<'_>) -> anyhow::Result<Self> {
        let children = Children::open(parts.children.to_path_buf())?;
        let server = |kind, (recipe, url): (&Path, &str)| {
            Server::new(kind, recipe, url, parts.logs, children.clone())
        };
        let mut fleet = Self {
            postgres: server(Kind::Postgres, parts.postgres)?,
            redis: server(Kind::Redis, parts.redis)?,
            apis: Vec::new(),
            workers: Vec::new(),
            tally: Arc::default(),
            disk: None,
        };
        fleet.postgres.start().await?;
        fleet.disk = fleet.postgres.disk()?;
        if let Some(disk) = &fleet.disk {
            disk.take_tables(fleet.postgres.url()).await?;
        }
        fleet.redis.start().await?;
        for number in 1..=APIS {
            let api = fleet.api(parts, &children, number).await?;
            fleet.apis.push(api);
        }
        for number in 1..=WORKERS {
            let worker = fleet.worker(parts, &children, number).await?;
            fleet.workers.push(worker);
        }
        for member in fleet.apis.iter_mut().chain(&mut fleet.workers) {
            member.process.start()?;
        }
        fleet.wait_ready().await?;
        fleet.wait_telling().await?;
        Ok(fleet)
    }

    async fn api(
        &self,
        parts: &Parts<'_>,
        children: &Children,
        number: usize,
    ) -> anyhow::Result<Member> {
        let name = format!("api-{number}");
        let port = kept_free(number)?;
        let (database, redis, mut env) = self.shared_links(parts, &name).await?;
        let front = self.link(
            parts,
            &name,
            (Ipv4Addr::LOCALHOST, port).into(),
            Protocol::Http,
        );
        let front = front.await?;
        let mut set = |name: &str, value: &str| env.push((name.to_owned(), value.to_owned()));
        set("PORT", &port.to_string());
        set("JWT_SECRET", parts.jwt_secret);
        // Limits protect against one person, and all the load is a few persons'.
        for limit in [
            "RATE_LIMIT_MESSAGES_PER_HOUR",
            "RATE_LIMIT_CONVERSATIONS_PER_DAY",
            "RATE_LIMIT_UNAUTHENTICATED_PER_MINUTE",
        ] {
            set(limit, "100000000");
        }
        set("MAX_STREAMS_PER_USER", "1000");
        Ok(Member {
            process: process(parts.api, parts, children, name, env),
            database,
            redis,
            upstream: None,
            receiver: None,
            front: Some(front),
        })
    }

    async fn worker(
        &self,
        parts: &Parts<'_>,
        children: &Children,
        number: usize,
    ) -> anyhow::Result<Member> {
        let name = format!("worker-{number}");
        let (database, redis, mut env) = self.shared_links(parts, &name).await?;
        let upstream = self.link(parts, &name, parts.simulator, Protocol::Opaque);
        let upstream = upstream.await?;
        let receiver = self.link(parts, &name, parts.receiver, Protocol::Opaque);
        let receiver = receiver.await?;
        let mut set = |name: &str, value: String| env.push((name.to_owned(), value));
        set("WORKER_NAME", name.clone());
        set(
            "OPENROUTER_BASE_URL",
            format!("http://{}/api/v1", upstream.address()),
        );
        // The simulator notes the key, and so who called.
        set("OPENROUTER_API_KEY", name.clone());
        // The simulator sets none.
        set("FREE_MODEL_RATE_LIMIT_PER_MINUTE", "0".to_owned());
        // A crowd has room on any one worker, beside what is kept for premium.
        set("WORKER_CONCURRENCY", "2500".to_owned());
        set("LEASE_SECONDS", LEASE.as_secs().to_string());
        set("LEASE_RENEW_SECONDS", (LEASE.as_secs() / 3).to_string());
        set("DRAIN_GRACE", DRAIN_GRACE.as_secs().to_string());
        set("UPSTREAM_CONNECT_TIMEOUT", "2".to_owned());
        set("UPSTREAM_FIRST_TOKEN_TIMEOUT", "4".to_owned());
        set("UPSTREAM_IDLE_TIMEOUT", "4".to_owned());
        set(
            "NOTIFICATION_SERVICE_URL",
            format!("http://{}", receiver.address()),
        );
        set("NOTIFICATION_ALLOW_PRIVATE", "true".to_owned());
        set("NOTIFICATION_SIGNING_SECRET", receiver::SECRET.to_owned());
        set("NOTIFICATION_SERVICE_KEY", receiver::SERVICE_KEY.to_owned());
        set(
            "NOTIFICATION_TIMEOUT",
            receiver::TIMEOUT.as_secs().to_string(),
        );
        // A crowd is held until all of it is there.
        set("UPSTREAM_TOTAL_TIMEOUT", "300".to_owned());
        Ok(Member {
            process: process(parts.worker, parts, children, name, env),
            database,
            redis,
            upstream: Some(upstream),
            receiver: Some(receiver),
            front: None,
        })
    }

    async fn shared_links(
        &self,
        parts: &Parts<'_>,
        name: &str,
    ) -> anyhow::Result<(Link, Link, Vec<(String, String)>)> {
        let database = self.link(parts, name, self.postgres.address()?, Protocol::Postgres);
        let database = database.await?;
        let redis = self.link(parts, name, self.redis.address()?, Protocol::Opaque);
        let redis = redis.await?;
        let env = vec![
            (
                "DATABASE_URL".to_owned(),
                self.postgres.url_at(database.address())?,
            ),
            ("REDIS_URL".to_owned(), self.redis.url_at(redis.address())?),
            // All the load is a few persons'.
            ("MAX_ACTIVE_PER_USER".to_owned(), "10000".to_owned()),
        ];
        Ok((database, redis, env))
    }

    async fn link(
        &self,
        parts: &Parts<'_>,
        name: &str,
        server: SocketAddr,
        protocol: Protocol,
    ) -> anyhow::Result<Link> {
        // Dice of its own for each link, so that the traffic of one does not move another's.
        let seed = parts.seed ^ u64::from(server.port()) << 16;
        Link::open(
            name.to_owned(),
            server,
            protocol,
            seed,
            Arc::clone(&self.tally),
        )
        .await
    }

    /// Where clients find the replicas.
    pub(crate) fn fronts(&self) -> Vec<String> {
        let fronts = self.apis.iter().filter_map(|api| api.front.as_ref());
        fronts
            .map(|front| format!("http://{}", front.address()))
            .collect()
    }

    /// Waits until every replica says that it is ready.
    pub(crate) async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let client = crate::load::http_client()?;
        let deadline = Instant::now() + READY_WITHIN;
        for front in self.fronts() {
            let url = format!("{front}/health/ready");
            loop {
                let answer = client.get(&url).timeout(Duration::from_secs(2)).send();
                if answer.await.is_ok_and(|said| said.status().is_success()) {
                    break;
                }
                if Instant::now() >= deadline {
                    bail!("a replica of the API is not ready after {READY_WITHIN:?}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Waits until a worker has said that ends are to be told.
    async fn wait_telling(&self) -> anyhow::Result<()> {
        const TOLD: &str = "SELECT tgname::text FROM pg_trigger WHERE tgname = 'notify_ended' AND tgenabled <> 'D'";
        let refused = |refused| anyhow::anyhow!("Postgres refused: {refused:?}");
        let mut session = Session::open(self.postgres.url()).await.map_err(refused)?;
        let deadline = Instant::now() + READY_WITHIN;
        while session.rows(TOLD).await.map_err(refused)?.is_empty() {
            if Instant::now() >= deadline {
                bail!("no worker tells of ends after {READY_WITHIN:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(crate) fn members(&mut self) -> impl Iterator<Item = &mut Member> {
        self.apis.iter_mut().chain(&mut self.workers)
    }

    /// The place of the worker of this name.
    pub(crate) fn worker_named(&self, name: &str) -> Option<usize> {
        let is = |member: &Member| member.process.name() == name;
        self.workers.iter().position(is)
    }

    /// Makes every link good, and starts again what has ended by itself. Returns the names of those,
    /// with how they ended.
    pub(crate) fn heal(&mut self) -> anyhow::Result<Vec<(String, ExitStatus)>> {
        let mut died = Vec::new();
        for member in self.members() {
            member.links().for_each(Link::heal);
            if let Some(status) = member.process.ended() {
                died.push((member.process.name().to_owned(), status));
            }
            if member.process.id().is_none() {
                member.process.start()?;
            }
        }
        Ok(died)
    }

    /// Ends everything at once.
    pub(crate) async fn kill(&mut self) {
        for member in self.members() {
            member.process.kill().await;
        }
        self.postgres.crash().await;
        self.redis.process().kill().await;
    }

    /// All links of the processes to Postgres.
    pub(crate) fn set_database_links(&mut self, condition: Condition) {
        for member in self.members() {
            member.database.set(condition);
        }
    }
}

/// What a process says with its exit code when it had to leave something behind: on a machine that is
/// slow enough, giving back takes too long, and its leases run out. No promise is broken by that.
const UNDONE: i32 = 75;

/// Asks a process to stop as a deploy does. The error is a broken promise.
pub(crate) async fn stop_in_order(process: &mut Process) -> Result<(), String> {
    stop(process).await.map(drop)
}

/// The same; returns the exit code.
pub(crate) async fn stop(process: &mut Process) -> Result<i32, String> {
    match process.stop(Signal::SIGTERM, STOP_WITHIN).await {
        Some(status) => match status.code() {
            Some(code @ (0 | UNDONE)) => Ok(code),
            _ => Err(format!("{} ended with {status}", process.name())),
        },
        None => Err(format!(
            "{} did not stop within {STOP_WITHIN:?}",
            process.name()
        )),
    }
}

fn process(
    path: &Path,
    parts: &Parts<'_>,
    children: &Children,
    name: String,
    mut env: Vec<(String, String)>,
) -> Process {
    env.push(("LOG_LEVEL".to_owned(), "info".to_owned()));
    let log: PathBuf = parts.logs.join(format!("{name}.log"));
    let program = Program {
        name,
        path: path.to_path_buf(),
        args: Vec::new(),
        env,
        user: None,
        dir: None,
        log,
    };
    Process::new(program, children.clone())
}

/// A free port below those that the kernel gives to outgoing connections, so that it is still free
/// when a process is started again on it.
fn kept_free(number: usize) -> anyhow::Result<u16> {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 16_000;
    let start = std::process::id() as usize * 7 + number * 101;
    let start = u16::try_from(start % usize::from(COUNT)).unwrap_or_default();
    (0..COUNT)
        .map(|offset| FIRST + (start + offset) % COUNT)
        .find(|port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no port between 15000 and 31000 is free on 127.0.0.1")
}

/// A free port for the simulator, which closes it and opens it again.
pub(crate) fn simulator_port() -> anyhow::Result<u16> {
    kept_free(0)
}

/// The same for the notification service's double.
pub(crate) fn receiver_port() -> anyhow::Result<u16> {
    kept_free(100)
}
