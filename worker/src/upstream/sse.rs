//! Server-sent events from a stream of bytes, with the bounds that the parser does not have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use eventsource_stream::{Event, EventStream, EventStreamError};
use futures::{Stream, StreamExt as _, stream};

use super::watch::Pulse;

/// The longest event, in bytes. A delta is a few hundred, a whole reply in one piece some thousand.
/// The parser reads an unfinished event again with every slice, so this bounds its work as well.
pub(super) const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The parser copies what is left of its buffer after every line, so it is fed in small pieces.
const SLICE_BYTES: usize = 8 * 1024;

/// Why a stream of events ended early.
#[derive(Debug)]
pub(super) enum SseError {
    /// The connection broke.
    Transport(String),
    /// The bytes are not events.
    Malformed(&'static str),
}

/// Decodes `body`. Comments are no events, but each byte is a beat of `pulse`.
pub(super) fn events<S, E>(body: S, pulse: Pulse) -> impl Stream<Item = Result<Event, SseError>>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: std::fmt::Display,
{
    let unfinished = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&unfinished);
    let mut utf8 = Utf8Check::default();
    let guarded = body.flat_map(slices).map(move |slice| {
        let slice = slice.map_err(|error| SseError::Transport(error.to_string()))?;
        pulse.beat();
        if counter.fetch_add(slice.len(), Ordering::Relaxed) + slice.len()
            > MAX_EVENT_BYTES + SLICE_BYTES
        {
            return Err(SseError::Malformed("an event is too long"));
        }
        // The parser would wait for a broken character to be completed, for ever.
        if utf8.breaks(&slice) {
            Err(SseError::Malformed("the stream is not UTF-8"))
        } else {
            Ok(slice)
        }
    });
    // The parser panics on a byte order mark at the very start, which an empty line avoids.
    let begun = stream::iter([Ok(Bytes::from_static(b"\n"))]).chain(guarded);
    EventStream::new(begun).map(move |event| {
        unfinished.store(0, Ordering::Relaxed);
        event.map_err(|error| match error {
            EventStreamError::Transport(error) => error,
            EventStreamError::Utf8(_) => SseError::Malformed("the stream ends inside a character"),
            EventStreamError::Parser(_) => SseError::Malformed("the stream is not made of events"),
        })
    })
}

fn slices<E>(chunk: Result<Bytes, E>) -> impl Stream<Item = Result<Bytes, E>> {
    let (mut rest, mut error) = match chunk {
        Ok(bytes) => (bytes, None),
        Err(error) => (Bytes::new(), Some(error)),
    };
    stream::iter(std::iter::from_fn(move || {
        if let Some(error) = error.take() {
            return Some(Err(error));
        }
        let length = rest.len().min(SLICE_BYTES);
        (length > 0).then(|| Ok(rest.split_to(length)))
    }))
}

/// Finds bytes that can never become UTF-8, across the borders of slices.
#[derive(Default)]
struct Utf8Check {
    /// The bytes of a character that the last slice began: at most 3.
    tail: Vec<u8>,
}

impl Utf8Check {
    fn breaks(&mut self, slice: &[u8]) -> bool {
        let mut begun = std::mem::take(&mut self.tail);
        let mut rest = slice;
        // Completes the begun character byte by byte, so that only the slice itself is walked.
        while !begun.is_empty() {
            let Some((byte, after)) = rest.split_first() else {
                self.tail = begun;
                return false;
            };
            begun.push(*byte);
            rest = after;
            match std::str::from_utf8(&begun) {
                Ok(_) => begun.clear(),
                Err(error) if error.error_len().is_some() => return true,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(rest) {
            Ok(_) => false,
            Err(error) => {
                self.tail = rest[error.valid_up_to()..].to_vec();
                error.error_len().is_some()
            }
        }
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
