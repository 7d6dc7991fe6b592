//! The body of a streamed reply: one timer, no task, no allocation per token besides the chunk.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, Sleep};

use super::Shared;
use super::connection::{Break, Handle};
use super::open_call::OpenCall;
use super::records::Outcome;
use super::script::Incident;
use super::wire::{Chunks, usage_json};

/// How much of a reply without a rate goes out in one frame.
const FRAME: usize = 16 * 1024;

/// How long an abort waits for what was already written to leave the process. The bytes are
/// then in the peer's hands, and the peer sees them before it sees the abort.
pub(crate) const FLUSH: Duration = Duration::from_millis(2);

/// Everything that was decided about a streamed reply.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The whole text.
    pub(crate) text: String,
    /// Where its tokens end, in bytes.
    pub(crate) ends: Vec<usize>,
    pub(crate) ttft: Duration,
    /// Tokens per second; 0 sends everything at once.
    pub(crate) rate: f64,
    pub(crate) chunk: usize,
    pub(crate) processing: Option<Duration>,
    /// In the order of their positions.
    pub(crate) incidents: Vec<(usize, Incident)>,
    /// The error of [`Incident::Fail`], and whether it is a finish reason only.
    pub(crate) error: Option<(Value, bool)>,
    pub(crate) finish: Option<String>,
    pub(crate) done: bool,
    pub(crate) usages: u8,
    pub(crate) usage_with_finish: bool,
    pub(crate) with_cost: bool,
    pub(crate) crlf: bool,
    pub(crate) split: Option<usize>,
    pub(crate) id_header: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Text,
    Abort(Instant),
    Ended,
}

/// Waits for a release and gives the receiver back, which then has seen it.
type Release = Pin<Box<dyn Future<Output = watch::Receiver<u64>> + Send>>;

/// The body.
pub(crate) struct ReplyBody {
    shared: Arc<Shared>,
    call: OpenCall,
    connection: Handle,
    plan: Plan,
    chunks: Chunks,
    timer: Pin<Box<Sleep>>,
    stage: Stage,
    started: Instant,
    first_at: Option<Instant>,
    sent: usize,
    incident: usize,
    next_comment: Option<Instant>,
    /// A release counts from the beginning of the call, however early it comes.
    releases: Option<watch::Receiver<u64>>,
    release: Option<Release>,
    /// What is left of a frame that goes out in pieces, and when the next piece may go.
    pieces: Bytes,
    next_piece: Instant,
}

impl ReplyBody {
    pub(crate) fn new(call: OpenCall, connection: Handle, plan: Plan) -> Self {
        let shared = Arc::clone(call.shared());
        let holds = plan
            .incidents
            .iter()
            .any(|(_, incident)| *incident == Incident::Hold);
        let releases = holds.then(|| call.releases());
        let started = Instant::now();
        let chunks = Chunks::new(&call, crate::clock::unix_micros() / 1_000_000, plan.crlf);
        Self {
            call,
            connection,
            chunks,
            timer: Box::pin(tokio::time::sleep_until(started)),
            stage: Stage::Text,
            started,
            first_at: None,
            sent: 0,
            incident: 0,
            next_comment: plan.processing.map(|every| started + every),
            releases,
            release: None,
            pieces: Bytes::new(),
            next_piece: started,
            plan,
            shared,
        }
    }

    fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        self.timer.as_mut().poll(cx)
    }

    /// Waits until `deadline`, or for ever without one; a comment that falls due is `Some`.
    fn poll_silence(
        &mut self,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        let comment = self
            .next_comment
            .filter(|comment| deadline.is_none_or(|deadline| *comment < deadline));
        if let (Some(comment), Some(every)) = (comment, self.plan.processing) {
            ready!(self.poll_until(comment, cx));
            self.next_comment = Some(Instant::now() + every);
            let mut out = BytesMut::with_capacity(32);
            self.chunks.comment(&mut out);
            return Poll::Ready(Some(out.freeze()));
        }
        match deadline {
            Some(deadline) => self.poll_until(deadline, cx).map(|()| None),
            // Only the end of the connection ends this: hyper drops the body then.
            None => Poll::Pending,
        }
    }

    /// The next bytes to send; `None` at the end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match self.stage {
                Stage::Ended => return Poll::Ready(None),
                Stage::Abort(at) => {
                    ready!(self.poll_until(at, cx));
                    self.stage = Stage::Ended;
                    return Poll::Ready(Some(Err(io::Error::other(
                        "the script breaks this stream",
                    ))));
                }
                Stage::Text => {}
            }
            if let Some(&(_, incident)) = self
                .plan
                .incidents
                .get(self.incident)
                .filter(|(at, _)| *at <= self.sent)
            {
                if let Some(bytes) = ready!(self.poll_incident(incident, cx)) {
                    return Poll::Ready(Some(Ok(bytes)));
                }
                continue;
            }
            if self.sent == self.plan.ends.len() {
                return Poll::Ready(Some(Ok(self.tail())));
            }
            let due = self.due_at();
            if let Some(comment) = ready!(self.poll_silence(Some(due), cx)) {
                return Poll::Ready(Some(Ok(comment)));
            }
            return Poll::Ready(Some(Ok(self.text())));
        }
    }

    /// Lets an incident happen; `None` when it is over and sent nothing.
    fn poll_incident(&mut self, incident: Incident, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match incident {
            Incident::Hang => return self.poll_silence(None, cx),
            Incident::Hold => {
                if let Some(mut releases) = self.releases.take() {
                    self.release = Some(Box::pin(async move {
                        // An error means that the simulator stops, which releases everything.
                        let _ = releases.changed().await;
                        releases
                    }));
                }
                if let Some(release) = &mut self.release {
                    let Poll::Ready(releases) = release.as_mut().poll(cx) else {
                        return self.poll_silence(None, cx);
                    };
                    self.releases = Some(releases);
                    self.release = None;
                }
                self.incident += 1;
                // The clock of the rest starts now, or it would all be overdue.
                self.restart_clock();
            }
            Incident::Cut | Incident::Drop => {
                let how = if incident == Incident::Cut {
                    Break::Reset
                } else {
                    Break::Close
                };
                self.connection.end_with(how);
                self.end(Outcome::Cut);
                self.stage = Stage::Abort(Instant::now() + FLUSH);
            }
            Incident::Malformed => {
                self.incident += 1;
                let mut out = BytesMut::new();
                self.chunks.malformed(&mut out);
                return Poll::Ready(Some(out.freeze()));
            }
            Incident::Fail => return Poll::Ready(Some(self.fail())),
        }
        Poll::Ready(None)
    }

    fn restart_clock(&mut self) {
        if self.first_at.is_some() && self.plan.rate > 0.0 {
            let gone = Duration::from_secs_f64(self.sent as f64 / self.plan.rate);
            self.first_at = Instant::now().checked_sub(gone).or(self.first_at);
        }
    }

    /// When the next token is due.
    fn due_at(&self) -> Instant {
        match self.first_at {
            None => self.started + self.plan.ttft,
            Some(_) if self.plan.rate <= 0.0 => self.started,
            Some(first) => {
                let seconds = self.sent as f64 / self.plan.rate;
                first + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
            }
        }
    }

    /// The chunk (or, without a rate, the chunks) that are due.
    fn text(&mut self) -> Bytes {
        let now = Instant::now();
        let first = *self.first_at.get_or_insert(now);
        let total = self.plan.ends.len();
        let limit = self
            .plan
            .incidents
            .get(self.incident)
            .map_or(total, |(at, _)| total.min(*at));
        let mut out = BytesMut::new();
        if self.plan.rate <= 0.0 {
            while self.sent < limit && out.len() < FRAME {
                let to = limit.min(self.sent + self.plan.chunk);
                self.put_text(&mut out, to);
            }
        } else {
            let gone = now.saturating_duration_since(first).as_secs_f64() * self.plan.rate;
            // As many tokens as are late go out together, and more per chunk while the
            // process as a whole would otherwise write too many chunks.
            let late = gone as usize + 1;
            let crowd = self.shared.books.in_flight() as f64
                / f64::from(self.shared.chunks_per_second().max(1));
            let crowded = (self.plan.rate * crowd).ceil() as usize;
            let to = late
                .max(self.sent + self.plan.chunk.max(crowded))
                .min(limit);
            self.put_text(&mut out, to);
        }
        self.call
            .set_tokens(u32::try_from(self.sent).unwrap_or(u32::MAX));
        if self.shared.books.is_watched() {
            self.shared.books.touch();
        }
        if let Some(every) = self.plan.processing {
            self.next_comment = Some(now + every);
        }
        out.freeze()
    }

    fn put_text(&mut self, out: &mut BytesMut, to: usize) {
        let from = self
            .sent
            .checked_sub(1)
            .map_or(0, |last| self.plan.ends[last]);
        self.chunks
            .text(out, &self.plan.text[from..self.plan.ends[to - 1]]);
        self.sent = to;
    }

    fn fail(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        match &self.plan.error {
            Some((error, true)) => self.chunks.finish_error(&mut out, error),
            Some((error, false)) => self.chunks.error(&mut out, error),
            None => {}
        }
        self.plan.finish = Some("error".to_owned());
        self.end(Outcome::Failed);
        self.stage = Stage::Ended;
        out.freeze()
    }

    /// Everything after the text.
    fn tail(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(1_024);
        let sent = u32::try_from(self.sent).unwrap_or(u32::MAX);
        let usage = usage_json(&self.call, sent, self.plan.with_cost);
        let rides =
            self.plan.usage_with_finish && self.plan.usages > 0 && self.plan.finish.is_some();
        if let Some(reason) = &self.plan.finish {
            self.chunks
                .finish(&mut out, reason, rides.then_some(usage.as_str()));
        }
        for _ in u8::from(rides)..self.plan.usages {
            self.chunks.usage(&mut out, &usage);
        }
        if self.plan.done {
            self.chunks.done(&mut out);
        }
        let outcome = if self.plan.finish.is_some() {
            Outcome::Completed
        } else {
            Outcome::Cut
        };
        self.end(outcome);
        self.stage = Stage::Ended;
        out.freeze()
    }

    fn end(&self, outcome: Outcome) {
        let finish = self.plan.finish.clone().filter(|_| outcome != Outcome::Cut);
        self.call.end(outcome, finish);
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            if !this.pieces.is_empty() {
                // A wait between two pieces makes the server flush the first, so each travels
                // alone, and a character may be cut in two.
                ready!(this.poll_until(this.next_piece, cx));
                let length = this.plan.split.unwrap_or(usize::MAX).min(this.pieces.len());
                this.next_piece = Instant::now() + Duration::from_millis(1);
                return Poll::Ready(Some(Ok(Frame::data(this.pieces.split_to(length)))));
            }
            match ready!(this.poll_bytes(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) if this.plan.split.is_some() => this.pieces = bytes,
                Some(Ok(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}
