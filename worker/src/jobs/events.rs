//! The events of an attempt, written beside the upstream's stream so that Redis never slows it.

use std::time::Duration;

use serde_json::json;
use shared::domain::{Event, EventType};
use shared::push::LogWriter;
use shared::store::generations::{Claim, Next};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::context::Context;

/// Text waits at most so long for more.
const COALESCE: Duration = Duration::from_millis(40);
/// The first text hardly waits at all: it is what a person is waiting for.
const COALESCE_FIRST: Duration = Duration::from_millis(4);
/// About 64 tokens.
const COALESCE_BYTES: usize = 256;

/// Something to tell the clients.
#[derive(Debug)]
pub(super) enum Note {
    /// More text.
    Text(String),
    /// Anything else, in its place among the text.
    Event(EventType, serde_json::Value),
}

/// The log of this attempt.
pub(super) fn writer(context: &Context, claim: &Claim) -> LogWriter {
    LogWriter::new(
        context.redis.clone(),
        context.clock.clone(),
        claim.user_id,
        claim.conversation_id,
        claim.id,
        super::attempt(claim),
    )
}

/// Sends what the log holds already, then writes notes until their sender is gone. The last text is left for the terminal event's round
/// trip, so that a reply that came at once costs one.
pub(super) async fn write(
    log: &mut LogWriter,
    mut notes: mpsc::UnboundedReceiver<Note>,
    stream: bool,
) {
    let mut text = String::new();
    let mut due: Option<Instant> = None;
    let mut coalesce = COALESCE_FIRST;
    log.flush().await;
    loop {
        let note = match due {
            None => notes.recv().await,
            Some(at) => match tokio::time::timeout_at(at, notes.recv()).await {
                Ok(note) => note,
                Err(_) => {
                    push_text(log, &mut text);
                    log.flush().await;
                    due = None;
                    continue;
                }
            },
        };
        match note {
            None => break,
            // A client that wants no stream gets the reply with the terminal event.
            Some(Note::Text(_)) if !stream => {}
            Some(Note::Text(piece)) => {
                text.push_str(&piece);
                if text.len() >= COALESCE_BYTES {
                    push_text(log, &mut text);
                    log.flush().await;
                    due = None;
                } else if due.is_none() {
                    due = Some(Instant::now() + coalesce);
                    coalesce = COALESCE;
                }
            }
            Some(Note::Event(kind, data)) => {
                push_text(log, &mut text);
                log.write(kind, &data).await;
                due = None;
            }
        }
    }
    push_text(log, &mut text);
}

/// Ends the log and wakes what may run next. Tried again after a moment's silence of Redis, which
/// the listeners' side need not have noticed: a client of theirs would wait for ever. Redis away for
/// longer is noticed there, and the event then comes from the row.
pub(super) async fn end(log: &LogWriter, terminal: &Event, wake: &[Next]) {
    let mut pauses = [250, 500, 1_000].map(Duration::from_millis).into_iter();
    let wake = || wake.iter().map(|next| (next.id, next.priority));
    while let Err(failure) = log.end(terminal, wake()).await {
        tracing::debug!(generation.id = ?terminal.generation_id, %failure, "end not pushed");
        // Refused because it is in the log already: only the answer had been lost.
        if failure.is_answer() {
            return;
        }
        match pauses.next() {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return,
        }
    }
}

fn push_text(log: &mut LogWriter, text: &mut String) {
    if !text.is_empty() {
        log.push(EventType::Delta, &json!({ "text": std::mem::take(text) }));
    }
}
