//! The notification service's double: it verifies every signature, notes everything it is told, and is
//! as unreliable as a real one.

mod telling;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use uuid::Uuid;

#[cfg(test)]
pub(crate) use self::telling::Reply;
pub(crate) use self::telling::Telling;
use self::telling::read;
use self::wire::{Incoming, Reader};

/// What the workers sign with.
pub(crate) const SECRET: &str = "whsec_Y2hhb3MtY2hhb3MtY2hhb3MtY2hhb3MtY2hhb3M=";
/// What they name themselves with.
pub(crate) const SERVICE_KEY: &str = "the key of the suite";
/// How long a try of theirs may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);
/// Of so many answers one is a failure of the usual kinds.
const FAILS: u32 = 12;

/// How it is at present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It takes everything.
    #[default]
    Good,
    /// Some answers go wrong.
    Usual,
    /// It takes everything, and no answer arrives.
    Ambiguous,
    /// It refuses everything.
    Refusing,
}

/// What was done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// 204: it has it.
    Fine,
    /// 200, of which only half arrives: it has it, and nobody knows.
    Half,
    /// 500.
    Broken,
    /// 429 with `Retry-After`.
    Busy,
    /// Nothing, and the connection stays open.
    Nothing,
    /// Nothing, and the connection is closed.
    HungUp,
}

impl Said {
    /// For a line of the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fine => "confirmed",
            Self::Half => "confirmed in vain",
            Self::Broken => "500",
            Self::Busy => "429",
            Self::Nothing => "without an answer",
            Self::HungUp => "hung up on",
        }
    }
}

/// Everything it was told, in the order in which it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) tellings: Vec<Telling>,
    /// What must not happen.
    pub(crate) faults: Vec<String>,
    /// The first bytes of each id.
    bodies: HashMap<Uuid, Bytes>,
}

impl Told {
    fn note(&mut self, incoming: &Incoming, said: Said) {
        match read(incoming) {
            Ok(telling) => {
                let first = self
                    .bodies
                    .entry(telling.id)
                    .or_insert_with(|| incoming.body.clone());
                if *first != incoming.body {
                    self.faults
                        .push(format!("{} was told in two ways", telling.id));
                }
                self.tellings.push(Telling { said, ..telling });
            }
            Err(fault) => self.faults.push(fault),
        }
    }
}

/// The receiver. It ends with the runtime.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Whoever accepts, and with it every connection; none while it is down.
    listening: Option<JoinSet<()>>,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    mood: Mutex<Mood>,
    dice: Mutex<StdRng>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Listens.
    pub(crate) async fn start(address: SocketAddr, seed: u64) -> anyhow::Result<Self> {
        let shared = Shared {
            told: Mutex::default(),
            mood: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
        };
        let mut receiver = Self {
            address,
            shared: Arc::new(shared),
            listening: None,
        };
        receiver.come_back().await?;
        Ok(receiver)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was told so far.
    pub(crate) fn told(&self) -> Told {
        lock(&self.shared.told).clone()
    }

    /// How many requests came so far.
    pub(crate) fn count(&self) -> usize {
        lock(&self.shared.told).tellings.len()
    }

    /// How it is from now on.
    pub(crate) fn set(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// Closes its port and every connection.
    pub(crate) async fn go_down(&mut self) {
        if let Some(mut listening) = self.listening.take() {
            listening.shutdown().await;
        }
    }

    /// Opens its port, where it is closed.
    pub(crate) async fn come_back(&mut self) -> anyhow::Result<()> {
        if self.listening.is_none() {
            let listener = TcpListener::bind(self.address)
                .await
                .context("failed to open the port of the notification service")?;
            let mut listening = JoinSet::new();
            listening.spawn(accept(listener, Arc::clone(&self.shared)));
            self.listening = Some(listening);
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and every connection with it.
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let shared = Arc::clone(&shared);
                    clients.spawn(async move {
                        // A client that goes away says everything by that.
                        let _ = serve(client, &shared).await;
                    });
                }
                // Out of descriptors, or the client has gone already.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = Reader::new(client);
    while let Some(incoming) = reader.request().await? {
        let said = {
            let said = decide(*lock(&shared.mood), &mut lock(&shared.dice));
            // Noted before a word of it is said: what comes next comes later.
            lock(&shared.told).note(&incoming, said);
            said
        };
        let client = reader.client();
        match said {
            Said::Fine => client.write_all(wire::NO_CONTENT).await?,
            Said::Broken => client.write_all(wire::BROKEN).await?,
            Said::Busy => client.write_all(wire::BUSY).await?,
            Said::Half => {
                client.write_all(wire::HALF).await?;
                return client.shutdown().await;
            }
            Said::HungUp => return client.shutdown().await,
            // The next request, or the end of the connection, is all that can come.
            Said::Nothing => {}
        }
    }
    Ok(())
}

fn decide(mood: Mood, dice: &mut StdRng) -> Said {
    match mood {
        Mood::Good => Said::Fine,
        Mood::Ambiguous => Said::Half,
        Mood::Refusing => [Said::Broken, Said::HungUp][dice.random_range(0..2)],
        Mood::Usual if !dice.random_ratio(1, FAILS) => Said::Fine,
        // Whoever is asked to wait keeps everything back for a second, so that is rare.
        Mood::Usual => match dice.random_range(0..10) {
            0 => Said::Busy,
            1..=3 => Said::Broken,
            4 => Said::Nothing,
            5 | 6 => Said::HungUp,
            _ => Said::Half,
        },
    }
}

#[cfg(test)]
mod tests;
