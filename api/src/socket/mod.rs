//! One open WebSocket: events out, wishes in.
//!
//! Ten thousand idle ones must cost little, so each is one task with small buffers, and nothing is
//! allocated before it is needed.

mod command;
mod outbox;

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use futures::StreamExt as _;
use shared::store::generations;
use shared::tickets::Ticket;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use uuid::Uuid;

use self::command::Command;
use self::outbox::Outbox;
use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::feed::LiveFeed;

/// Frames and messages beyond this end the connection with 1009.
const MAX_FRAME_BYTES: usize = 256 * 1024;
/// Texts beyond this are answered with an error; no command is so long.
const MAX_TEXT_BYTES: usize = 64 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A client that has said nothing for so long, not even a pong, is gone.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the other side may take to end the connection properly.
const GOODBYE: Duration = Duration::from_secs(3);
/// Conversations one socket may be narrowed to.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// RFC 6455 and its registry, and the private range for our own.
const TOO_BIG: u16 = 1009;
const SERVICE_RESTART: u16 = 1012;
const TRY_AGAIN_LATER: u16 = 1013;
const TOKEN_EXPIRED: u16 = 4401;

/// The buffers of a socket.
pub(crate) fn limits(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
}

/// Serves the socket to its end.
pub(crate) async fn run(app: &AppState, ticket: &Ticket, websocket: WebSocket) {
    let (sink, mut source) = websocket.split();
    let mut outbox = Outbox::new(sink);
    let mut session = Session {
        app,
        user_id: ticket.user_id,
        feed: LiveFeed::new(app.clone(), ticket.user_id, None).await,
        narrowed_to: HashSet::new(),
    };
    let lifetime = (ticket.expires_at - app.gate.clock.now())
        .try_into()
        .unwrap_or_default();
    let expired = tokio::time::sleep(lifetime);
    tokio::pin!(expired);
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    let farewell = loop {
        tokio::select! {
            () = app.closing.cancelled() => break Some((SERVICE_RESTART, "the server restarts")),
            () = &mut expired => break Some((TOKEN_EXPIRED, "the token has expired")),
            () = sleep_until(heard_at + SILENCE) => return,
            sent = outbox.send(), if outbox.has_work() => {
                if sent.is_err() {
                    return;
                }
            }
            frame = source.next() => {
                heard_at = Instant::now();
                match frame {
                    Some(Ok(Message::Close(_))) => break None,
                    None => return,
                    Some(Ok(message)) => {
                        if let Some(answer) = session.answer(&message).await {
                            outbox.push(Message::Text(answer));
                        }
                    }
                    // A frame too large, or no WebSocket frame at all: what follows it makes no sense.
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a websocket broke its protocol");
                        break Some((TOO_BIG, "the frame is too large or malformed"));
                    }
                }
            }
            event = session.feed.next() => {
                if session.wants(event.conversation_id) {
                    outbox.push(Message::Text(Utf8Bytes::from(&*event.json)));
                }
            }
            _ = ping.tick() => outbox.push(Message::Ping(Default::default())),
        }
        if outbox.is_overflowing() {
            metrics::counter!(shared::metrics::PUSH_DROPPED).increment(1);
            break Some((
                TRY_AGAIN_LATER,
                "the client reads too slowly; resume by event id",
            ));
        }
    };
    match farewell {
        Some((code, reason)) => outbox.close(code, reason),
        None => outbox.clear(),
    }
    // A close of the client's own is echoed with this, as RFC 6455, 5.5.1 demands.
    let goodbye = async {
        if outbox.send().await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    // Whoever does not take part in it is cut off.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

struct Session<'a> {
    app: &'a AppState,
    user_id: Uuid,
    feed: LiveFeed,
    /// Empty means everything.
    narrowed_to: HashSet<Uuid>,
}

impl Session<'_> {
    fn wants(&self, conversation_id: Uuid) -> bool {
        self.narrowed_to.is_empty() || self.narrowed_to.contains(&conversation_id)
    }

    /// Follows a command; the answer is for the client.
    async fn answer(&mut self, message: &Message) -> Option<Utf8Bytes> {
        let text = match message {
            Message::Text(text) if text.len() <= MAX_TEXT_BYTES => text,
            Message::Text(_) => {
                return Some(command::error(&Problem::new(
                    Code::BodyTooLarge,
                    "a frame may have 64 KiB",
                )));
            }
            Message::Binary(_) => {
                let problem = Problem::new(Code::UnsupportedMediaType, "frames must be text");
                return Some(command::error(&problem));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
        };
        // Rare and large, so it takes no room in the sockets that say nothing.
        match Box::pin(self.follow(text)).await {
            Ok(answer) => answer,
            Err(problem) => Some(command::error(&problem)),
        }
    }

    async fn follow(&mut self, text: &str) -> Result<Option<Utf8Bytes>> {
        match command::parse(text)? {
            Command::Ping {} => return Ok(Some(command::pong())),
            Command::Subscribe { conversation_id } => {
                if self.narrowed_to.len() >= MAX_SUBSCRIPTIONS {
                    return Err(Problem::field(
                        "conversation_id",
                        "there are too many subscriptions",
                    ));
                }
                self.narrowed_to.insert(conversation_id);
            }
            Command::Unsubscribe { conversation_id } => {
                self.narrowed_to.remove(&conversation_id);
            }
            Command::Resume {
                generation_id,
                after,
            } => {
                let after = crate::extract::event_of(after.as_deref(), generation_id)?;
                let mut tx = self.app.db.user(self.user_id).await?;
                let found = generations::find(&mut tx, generation_id).await?;
                found.ok_or_else(|| Problem::of(Code::GenerationNotFound))?;
                if !self.feed.resume(generation_id, after) {
                    return Err(Problem::new(
                        Code::RateLimited,
                        "too many logs are being resumed at once",
                    ));
                }
            }
        }
        Ok(None)
    }
}
