//! Frames on their way to one client.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::Sink as _;
use futures::stream::SplitSink;

/// Frames that may wait. A client that lets more pile up is dropped: it resumes by event id, which
/// costs less than the memory of everybody who does not read.
const CAPACITY: usize = 256;

/// A bounded queue in front of the socket. Filling it never waits, so a slow client holds nobody up.
#[derive(Debug)]
pub(super) struct Outbox {
    sink: SplitSink<WebSocket, Message>,
    waiting: VecDeque<Message>,
    unflushed: bool,
    overflowing: bool,
}

impl Outbox {
    pub(super) fn new(sink: SplitSink<WebSocket, Message>) -> Self {
        Self {
            sink,
            waiting: VecDeque::new(),
            unflushed: false,
            overflowing: false,
        }
    }

    pub(super) fn push(&mut self, message: Message) {
        if self.waiting.len() < CAPACITY {
            self.waiting.push_back(message);
        } else {
            self.overflowing = true;
        }
    }

    /// Replaces all that waits by the end.
    pub(super) fn close(&mut self, code: u16, reason: &'static str) {
        self.waiting.clear();
        self.waiting.push_back(Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        })));
    }

    /// Forgets what waits: the client has closed, and hears nothing but the echo of that.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn is_overflowing(&self) -> bool {
        self.overflowing
    }

    pub(super) fn has_work(&self) -> bool {
        self.unflushed || !self.waiting.is_empty()
    }

    /// Sends all that waits. May be dropped at any time and called again.
    pub(super) async fn send(&mut self) -> Result<(), axum::Error> {
        poll_fn(|context| {
            while !self.waiting.is_empty() {
                ready!(Pin::new(&mut self.sink).poll_ready(context))?;
                if let Some(message) = self.waiting.pop_front() {
                    self.unflushed = true;
                    Pin::new(&mut self.sink).start_send(message)?;
                }
            }
            ready!(Pin::new(&mut self.sink).poll_flush(context))?;
            self.unflushed = false;
            Poll::Ready(Ok(()))
        })
        .await
    }
}
