//! What stands between a process and its servers: a TCP proxy for each pair that can be slow, deaf,
//! or cut, at random or at a chosen moment.

mod carry;
mod http;
pub(crate) mod postgres;
mod trap;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::postgres::Writes;
pub(crate) use self::trap::{Hold, Sprung, Trap};

/// What a link speaks, for finding the moments at which it can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Postgres,
    Http,
    /// Nothing of it is read.
    Opaque,
}

/// A moment in what a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// A transaction that wrote something is committed.
    Commit(Writes),
    /// A message is posted.
    Post,
}

/// Where in a chunk of bytes a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) point: Point,
}

/// How a link is at present. The default is a good one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Condition {
    /// Every byte arrives so much later, in both directions.
    pub(crate) delay: Duration,
    /// Nothing arrives and nothing is refused, as if the cable were out.
    pub(crate) deaf: bool,
    /// Each connection is reset after so many bytes of answers.
    pub(crate) cut_after: Option<u64>,
    /// The share of commits after which the connection is reset before the answer is there.
    pub(crate) ambiguous: f64,
}

/// One proxy. It ends with the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    server: SocketAddr,
    protocol: Protocol,
    condition: watch::Sender<Condition>,
    /// Counts up to cut every connection.
    cuts: watch::Sender<u64>,
    /// Counts up to let go on what a trap holds.
    releases: watch::Sender<u64>,
    traps: Mutex<Vec<Trap>>,
    dice: Mutex<StdRng>,
    tally: Arc<Tally>,
}

/// How often links did what they were told to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Connections cut by number of bytes.
    pub(crate) cut: AtomicU64,
    /// Commits cut off after they were sent; nobody knows whether they took place.
    pub(crate) commits_unknown: AtomicU64,
    /// Commits cut off after Postgres had answered: they took place and nobody was told.
    pub(crate) commits_untold: AtomicU64,
    /// Both, by what was committed.
    commits: Mutex<BTreeMap<&'static str, u64>>,
}

impl Tally {
    pub(crate) fn ambiguous(&self) -> u64 {
        self.commits_unknown.load(Ordering::Relaxed) + self.commits_untold.load(Ordering::Relaxed)
    }

    /// How many of each kind.
    pub(crate) fn by_kind(&self) -> BTreeMap<&'static str, u64> {
        self.commits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn count(&self, writes: Writes, untold: bool) {
        let counter = if untold {
            &self.commits_untold
        } else {
            &self.commits_unknown
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        *commits.entry(writes.name()).or_default() += 1;
    }
}

impl Link {
    /// Listens on a port of its own and carries everything to `server`.
    pub(crate) async fn open(
        name: String,
        server: SocketAddr,
        protocol: Protocol,
        seed: u64,
        tally: Arc<Tally>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("failed to open a port for a proxy")?;
        let address = listener
            .local_addr()
            .context("failed to open a port for a proxy")?;
        let shared = Arc::new(Shared {
            name,
            server,
            protocol,
            condition: watch::Sender::default(),
            cuts: watch::Sender::default(),
            releases: watch::Sender::default(),
            traps: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            tally,
        });
        crate::task::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// Where the process has to connect instead of the server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, condition: Condition) {
        self.shared.condition.send_replace(condition);
    }

    /// Resets every connection; new ones are carried.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Makes the link good again: no condition, no trap, and what a trap holds goes on.
    pub(crate) fn heal(&self) {
        self.shared.traps().clear();
        self.set(Condition::default());
        self.shared.releases.send_modify(|count| *count += 1);
    }

    /// Waits for a moment; see [`Trap`].
    pub(crate) fn arm(&self, trap: Trap) {
        self.shared.traps().push(trap);
    }
}

impl Shared {
    fn traps(&self) -> std::sync::MutexGuard<'_, Vec<Trap>> {
        self.traps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something with this probability happens now.
    fn happens(&self, probability: f64) -> bool {
        probability > 0.0
            && self
                .dice
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .random_bool(probability.min(1.0))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                crate::task::spawn(carry::carry(client, Arc::clone(&shared)));
            }
            // Out of descriptors, or the client has gone already.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[cfg(test)]
mod tests;
