//! The WebSocket of a user who comes back whenever it breaks, and resumes what they missed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::{mpsc, watch};

use super::Run;
use super::board::Event;
use crate::driver::feed::Feed;
use crate::driver::measure::bump;

/// The longest a client waits before it tries to come back again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What nothing was heard of for so long is asked for, as a careful client does: a feed remembers only so much of
/// somebody who asks for hundreds of replies at once.
const SILENCE: Duration = Duration::from_secs(10);

/// How often that is looked at, and how much is asked for at once.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ASKED_AT_ONCE: usize = 32;

/// A message was accepted; its request began at this moment.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) generation: String,
    pub(crate) began: Instant,
}

/// Why a socket is no longer read.
enum Why {
    /// The plan cut it.
    Cut,
    /// The server closed it.
    Closed,
}

/// Waits until the plan cuts all sockets; for ever when it does so no more.
async fn was_cut(cut: &mut watch::Receiver<u32>) {
    if cut.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One user's ears.
pub(crate) struct Listener {
    pub(crate) run: Arc<Run>,
    pub(crate) user: usize,
    pub(crate) authorization: Arc<str>,
    pub(crate) accepted: mpsc::UnboundedReceiver<Accepted>,
    pub(crate) cut: watch::Receiver<u32>,
}

impl Listener {
    /// Listens for ever; whoever started it ends it.
    pub(crate) async fn listen(mut self, mut feed: Feed) {
        let mut opened = Instant::now();
        loop {
            let why = self.follow(&mut feed, opened).await;
            drop(feed);
            if let Why::Closed = why {
                self.run
                    .counters
                    .fail("a WebSocket was closed by the server");
            }
            let since = Instant::now();
            feed = self.come_back().await;
            opened = Instant::now();
            self.run.came_back(since, opened);
            for (generation, after) in self.run.board.under_way_of(self.user) {
                // A socket that broke again shows when it is read.
                let _ = feed.resume(&generation, &after).await;
            }
        }
    }

    async fn follow(&mut self, feed: &mut Feed, opened: Instant) -> Why {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                text = feed.next_text() => {
                    let at = Instant::now();
                    let Some(text) = text else { return Why::Closed };
                    if let Ok(event) = serde_json::from_str::<Event>(&text) {
                        self.run.hear(&event, at);
                    }
                }
                () = was_cut(&mut self.cut) => return Why::Cut,
                _ = look.tick() => {
                    let silent = self.run.board.silent_of(self.user, SILENCE, ASKED_AT_ONCE);
                    for (generation, after) in silent {
                        let _ = feed.resume(&generation, &after).await;
                    }
                }
                accepted = self.accepted.recv() => {
                    let Some(Accepted { generation, began }) = accepted else { continue };
                    // What was accepted while the socket was away was told to nobody.
                    if began < opened && !self.run.board.has_ended(&generation) {
                        let _ = feed.resume(&generation, "").await;
                    }
                }
            }
        }
    }

    /// Tries until it is connected again: at once, then after random waits that grow.
    async fn come_back(&self) -> Feed {
        let mut wait = Duration::from_millis(50);
        loop {
            match Feed::open(&self.run.people.target, &self.authorization).await {
                Ok(feed) => return feed,
                Err(_) => _ = bump(&self.run.turned_away),
            }
            let part = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(wait.mul_f64(part)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}
