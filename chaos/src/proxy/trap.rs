//! Stopping a connection at a chosen moment, so that a process can be killed just then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use super::Point;

/// What is held when the moment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// What the client says does not reach the server.
    Request,
    /// It does, and the answer does not reach the client.
    Answer,
}

/// Waits on one or several links and springs once.
#[derive(Debug, Clone)]
pub(crate) struct Trap {
    wanted: Point,
    pub(super) hold: Hold,
    spent: Arc<AtomicBool>,
    sprung: mpsc::UnboundedSender<String>,
}

/// Where a trap tells that it has sprung: the name of the link.
pub(crate) type Sprung = mpsc::UnboundedReceiver<String>;

impl Trap {
    /// A trap for a commit of any of `writes`, or for a posted message.
    pub(crate) fn new(wanted: Point, hold: Hold) -> (Self, Sprung) {
        let (sprung, receiver) = mpsc::unbounded_channel();
        let trap = Self {
            wanted,
            hold,
            spent: Arc::default(),
            sprung,
        };
        (trap, receiver)
    }

    pub(super) fn wants(&self, point: Point) -> bool {
        match (self.wanted, point) {
            (Point::Commit(wanted), Point::Commit(writes)) => writes.any(wanted),
            (Point::Post, Point::Post) => true,
            _ => false,
        }
    }

    /// Takes the one chance; false when another link had it.
    pub(super) fn spring(&self) -> bool {
        !self.spent.swap(true, Ordering::AcqRel)
    }

    /// Says that the connection stands still.
    pub(super) fn tell(&self, link: &str) {
        // Whoever set the trap may have given up.
        let _ = self.sprung.send(link.to_owned());
    }
}
