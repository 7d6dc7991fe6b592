//! Takes in an answer as it comes and passes it on.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Response;
use shared::clock::Clock;
use time::OffsetDateTime;

use super::error::CallError;
use super::sse::{self, SseError};
use super::stream::{Gain, Reply};
use super::watch::Watch;
use super::{ErrorClass, Progress};

/// The longest body that is read when the answer is not a stream, in bytes.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// How long the end of the body may lag behind the last event before the connection is given up
/// instead of kept for the next call.
const LINGER: Duration = Duration::from_millis(50);

/// What is noted while a call runs.
pub(super) struct Trace {
    pub(super) started_at: OffsetDateTime,
    pub(super) http_status: Option<u16>,
    pub(super) first_token_at: Option<OffsetDateTime>,
}

/// Takes in what comes and passes it on.
pub(super) struct Intake<'a, P> {
    pub(super) reply: &'a mut Reply,
    pub(super) trace: &'a mut Trace,
    pub(super) progress: &'a mut P,
    pub(super) clock: &'a Clock,
    pub(super) announced: bool,
}

impl<P: Progress> Intake<'_, P> {
    /// Takes in a stream of events to its end.
    pub(super) async fn stream(
        &mut self,
        response: Response,
        watch: &mut Watch,
    ) -> Result<(), CallError> {
        let mut events = pin!(sse::events(response.bytes_stream(), watch.pulse()));
        loop {
            let event = match watch.wait(self.progress, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(None) => return Ok(()),
                // The reply is whole; only its usage got lost, and that is asked for later.
                Ok(Some(Err(_))) | Err(_) if self.reply.finish_reason.is_some() => return Ok(()),
                Ok(Some(Err(SseError::Transport(error)))) => {
                    return Err(CallError::of(ErrorClass::Connection, error));
                }
                Ok(Some(Err(SseError::Malformed(what)))) => {
                    return Err(CallError::of(ErrorClass::Malformed, what));
                }
                Err(timeout) => return Err(timeout),
            };
            match event.data.trim() {
                "" => {}
                "[DONE]" => {
                    // Reading to the very end lets the next call reuse the connection.
                    let _ = tokio::time::timeout(LINGER, events.next()).await;
                    return Ok(());
                }
                data => self.absorb(data, watch).await?,
            }
            if self.reply.cut {
                return Ok(());
            }
        }
    }

    /// Takes in one event, or the body of an answer that is not a stream.
    pub(super) async fn absorb(&mut self, data: &str, watch: &mut Watch) -> Result<(), CallError> {
        let gain: Gain = self.reply.absorb(data, self.clock.now())?;
        if !self.announced
            && let Some(id) = &self.reply.upstream_id
        {
            self.announced = true;
            self.progress.accepted(id).await;
        }
        if gain.token {
            watch.token();
        }
        let piece = &self.reply.text[gain.text];
        if !piece.is_empty() {
            self.trace
                .first_token_at
                .get_or_insert_with(|| self.clock.now());
            self.progress.text(piece).await;
            watch.text();
        }
        if self.reply.finish_reason.is_some() {
            watch.finished();
        }
        Ok(())
    }
}

/// Reads a whole body that is not a stream of events.
pub(super) async fn read_body<P: Progress>(
    mut response: Response,
    watch: &mut Watch,
    progress: &mut P,
) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = watch
        .wait(progress, response.chunk())
        .await?
        .map_err(|error| transport(&error))?
    {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(CallError::of(
                ErrorClass::Malformed,
                "the answer is too long",
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error of the connection, with its causes: reqwest's own text hides them.
pub(super) fn transport(error: &reqwest::Error) -> CallError {
    let mut detail = if error.is_connect() {
        "failed to connect"
    } else {
        "the connection broke"
    }
    .to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        detail.push_str(": ");
        detail.push_str(&error.to_string());
        cause = error.source();
    }
    CallError::of(ErrorClass::Connection, detail)
}
