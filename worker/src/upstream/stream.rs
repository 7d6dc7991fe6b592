//! Puts a reply together from the events of a stream, and decides how it ended.
//!
//! **Invariant:** a stream that ends without a finish reason failed, however much text came.

use std::ops::Range;

use serde_json::value::RawValue;

use super::error::{CallError, Signal};
use super::hints::Hints;
use super::wire::{self, Chunk};
use super::{ErrorClass, TokenUsage};
use time::OffsetDateTime;

/// The longest reply, in bytes. `max_tokens` keeps replies far below it; a server that ignores
/// that gets cut, and the reply counts as incomplete like any other that met its limit.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// The longest id or model name that is kept, in characters.
const MAX_NAME_CHARS: usize = 200;

/// What came of a reply so far.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) upstream_id: Option<String>,
    pub(super) model_served: Option<String>,
    pub(super) finish_reason: Option<String>,
    usage: Option<Box<RawValue>>,
    /// The reply met [`MAX_REPLY_BYTES`]: the rest is not wanted.
    pub(super) cut: bool,
}

/// What an event added.
#[derive(Debug, Default)]
pub(super) struct Gain {
    /// Where in the reply the new text is; may be empty.
    pub(super) text: Range<usize>,
    /// The model gave a sign of working.
    pub(super) token: bool,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Regularly.
    Whole,
    /// At a length limit.
    Cut,
}

impl Reply {
    /// Takes in one event.
    pub(super) fn absorb(&mut self, data: &str, now: OffsetDateTime) -> Result<Gain, CallError> {
        let chunk: Chunk<'_> = match serde_json::from_str(data) {
            Ok(chunk) => chunk,
            // Whatever comes after the end of a reply takes nothing away from it.
            Err(_) if self.finish_reason.is_some() => return Ok(Gain::default()),
            // The error's own text would quote the data, which is content.
            Err(error) => {
                let place = format!("an event is not a chunk (column {})", error.column());
                return Err(CallError::of(ErrorClass::Malformed, place));
            }
        };
        if let Some(raw) = chunk.usage {
            self.usage = Some(raw.to_owned());
        }
        self.name(&chunk);
        if self.finish_reason.is_some() {
            return Ok(Gain::default());
        }
        if let Some(error) = chunk.error() {
            return Err(Signal::read(None, error, Hints::read(None, error, now)).into());
        }
        let text = self.append(chunk.text());
        if let Some(reason) = chunk.finish_reason() {
            self.finish_reason = Some(clean(reason));
            match reason {
                "error" => {
                    return Err(CallError::of(
                        ErrorClass::ServerError,
                        "the reply ended with an error",
                    ));
                }
                "content_filter" => {
                    return Err(CallError::of(
                        ErrorClass::ContentPolicy,
                        "the reply was filtered",
                    ));
                }
                _ => {}
            }
        }
        Ok(Gain {
            text,
            token: chunk.has_token(),
        })
    }

    /// Whether the reply is there as a whole, and how it ended; called when nothing more comes.
    pub(super) fn ending(&self) -> Result<Ending, CallError> {
        let reason = self.finish_reason.as_deref();
        let ending = match reason {
            _ if self.cut => Ending::Cut,
            None => {
                return Err(CallError::of(
                    ErrorClass::Connection,
                    "the stream ended without a finish reason",
                ));
            }
            Some("length" | "max_tokens") => Ending::Cut,
            Some(_) => Ending::Whole,
        };
        if self.text.trim().is_empty() {
            let detail = format!(
                "the reply is empty, its finish reason is {}",
                reason.unwrap_or("missing")
            );
            return Err(CallError::of(ErrorClass::EmptyAnswer, detail));
        }
        Ok(ending)
    }

    /// What the call used, by the last usage that came.
    pub(super) fn usage(&self, free_model: bool) -> Option<TokenUsage> {
        wire::usage(self.usage.as_deref()?, free_model)
    }

    fn append(&mut self, piece: &str) -> Range<usize> {
        let from = self.text.len();
        let room = MAX_REPLY_BYTES - from;
        let piece = if piece.len() > room {
            self.cut = true;
            &piece[..piece.floor_char_boundary(room)]
        } else {
            piece
        };
        // Postgres cannot store NUL.
        self.text.extend(piece.split('\0'));
        from..self.text.len()
    }

    fn name(&mut self, chunk: &Chunk<'_>) {
        let known = |name: &Option<wire::Lenient<'_>>| -> Option<String> {
            name.as_ref()
                .map(|name| clean(&name.0))
                .filter(|name| !name.is_empty())
        };
        if self.upstream_id.is_none() {
            self.upstream_id = known(&chunk.id);
        }
        if self.model_served.is_none() {
            self.model_served = known(&chunk.model);
        }
    }
}

/// A name as it may be stored and logged.
pub(super) fn clean(name: &str) -> String {
    name.chars()
        .filter(|character| !character.is_control())
        .take(MAX_NAME_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn feed(events: &[serde_json::Value]) -> Result<(Reply, Ending), CallError> {
        let mut reply = Reply::default();
        for event in events {
            reply.absorb(&event.to_string(), OffsetDateTime::UNIX_EPOCH)?;
        }
        let ending = reply.ending()?;
        Ok((reply, ending))
    }

    fn delta(text: &str) -> serde_json::Value {
        json!({"id": "gen-1", "model": "served", "choices": [{"delta": {"content": text}}]})
    }

    fn finish(reason: &str) -> serde_json::Value {
        json!({"choices": [{"delta": {}, "finish_reason": reason}]})
    }

    #[test]
    fn a_reply_is_the_sum_of_its_pieces_and_the_last_usage_counts() {
        let usage = |tokens: u32| json!({"choices": [], "usage": {"completion_tokens": tokens}});
        let (reply, ending) = feed(&[
            delta("a"),
            delta(""),
            delta("b"),
            finish("stop"),
            usage(1),
            usage(2),
        ])
        .unwrap();
        assert_eq!((reply.text.as_str(), ending), ("ab", Ending::Whole));
        assert_eq!(reply.upstream_id.as_deref(), Some("gen-1"));
        assert_eq!(reply.model_served.as_deref(), Some("served"));
        assert_eq!(reply.usage(true).unwrap().completion_tokens, 2);
    }

    #[test]
    fn how_a_reply_ended() {
        for (reason, expected) in [
            ("stop", Ok(Ending::Whole)),
            ("tool_calls", Ok(Ending::Whole)),
            ("eos", Ok(Ending::Whole)),
            ("length", Ok(Ending::Cut)),
            ("max_tokens", Ok(Ending::Cut)),
            ("error", Err(ErrorClass::ServerError)),
            ("content_filter", Err(ErrorClass::ContentPolicy)),
            ("", Err(ErrorClass::Connection)),
        ] {
            let end = feed(&[delta("text"), finish(reason)]);
            assert_eq!(
                end.map(|(_, ending)| ending).map_err(|error| error.class),
                expected,
                "{reason}"
            );
        }
    }

    #[test]
    fn a_reply_without_text_is_no_reply() {
        for reason in ["stop", "length", "tool_calls"] {
            let error = feed(&[delta(" \n"), finish(reason)]).unwrap_err();
            assert_eq!(error.class, ErrorClass::EmptyAnswer, "{reason}");
        }
    }

    #[test]
    fn what_follows_the_end_takes_nothing_away() {
        let mut reply = Reply::default();
        for event in [
            delta("a"),
            finish("stop"),
            json!({"error": {"code": 500}}),
            delta("b"),
        ] {
            reply
                .absorb(&event.to_string(), OffsetDateTime::UNIX_EPOCH)
                .unwrap();
        }
        reply
            .absorb("{not json", OffsetDateTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(
            (reply.text.as_str(), reply.ending().unwrap()),
            ("a", Ending::Whole)
        );
    }

    #[test]
    fn a_reply_that_is_too_long_is_cut_between_characters() {
        let mut reply = Reply::default();
        let piece = delta(&"é".repeat(MAX_REPLY_BYTES / 4 + 1)).to_string();
        while !reply.cut {
            reply.absorb(&piece, OffsetDateTime::UNIX_EPOCH).unwrap();
        }
        assert_eq!(reply.text.len(), MAX_REPLY_BYTES);
        assert_eq!(reply.ending().unwrap(), Ending::Cut);
    }

    #[test]
    fn nul_never_reaches_the_database() {
        let (reply, _) = feed(&[delta("a\0b\0"), finish("st\0op")]).unwrap();
        assert_eq!(reply.text, "ab");
        assert_eq!(reply.finish_reason.as_deref(), Some("stop"));
    }

    #[test]
    fn a_malformed_event_is_reported_without_its_content() {
        let error = Reply::default()
            .absorb("{\"secret\": ", OffsetDateTime::UNIX_EPOCH)
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Malformed);
        assert!(!error.detail.contains("secret"));
    }
}
