//! Problem details for what hyper refuses itself.
//!
//! A request whose head cannot be read never reaches the router: hyper answers 400 or 431 without a
//! body, closes, and has no hook for it. [`Explained`] stands between hyper and the socket, knows
//! that one head by its exact shape, and sends the same refusal with a body instead. The router's own
//! answers never look like it: each carries `X-Request-Id`, which the outermost layer adds.
//!
//! Not covered: a head that comes while the previous answer has not left yet (only a client that
//! pipelines and does not read sees that), and HTTP/2, whose library answers a head of more than 128 KiB with a status
//! alone.
//!
//! It also gives those their answer who say that they will send no more and still listen ([`HOLD`]).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use shared::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::error::{CONTENT_TYPE, Code, Problem};
use crate::middleware::{RequestId, refused};

/// What every head of hyper's own starts with; the only comparison that other writes cost.
const START: &[u8] = b"HTTP/1.1 4";
/// What follows the status line, up to the date.
const HEADERS: &[u8] = b"\r\nconnection: close\r\ncontent-length: 0\r\ndate: ";
/// Bytes of `Sun, 06 Nov 1994 08:49:37 GMT` and of the empty line.
const DATE: usize = 29;
const END: &[u8] = b"\r\n\r\n";

/// To close while the client still sends would be a reset, and many a client then throws away what it
/// was told. What it sends is therefore read for this long and up to so many bytes.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// A client that sends its request and closes its half of the connection (as `nc -N` does) looks like one that has left,
/// and hyper then drops the request. So it hears of the end this much later while a request has no answer yet: long
/// enough for all but waits, and short enough that nothing is held for long for those who did leave.
const HOLD: Duration = Duration::from_secs(2);

/// A connection on which hyper's refusals are explained.
pub(super) struct Explained<S> {
    stream: S,
    /// Something came that was not answered yet.
    asked: bool,
    /// The client sends no more; the moment from which that is told.
    ended: Option<Pin<Box<Sleep>>>,
    peer: std::net::SocketAddr,
    clock: Clock,
    refusal: Option<Box<Refusal>>,
}

/// The answer that goes out in place of hyper's.
struct Refusal {
    bytes: Vec<u8>,
    written: usize,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Explained<S> {
    pub(super) fn new(stream: S, peer: std::net::SocketAddr, clock: Clock) -> Self {
        Self {
            stream,
            asked: false,
            ended: None,
            peer,
            clock,
            refusal: None,
        }
    }

    /// Whether `head` is a refusal of hyper's, or the repeated attempt to write one.
    fn replaces(&mut self, head: &[u8]) -> bool {
        if !head.starts_with(START) {
            return false;
        }
        if self.refusal.is_none() {
            self.refusal = code(head).map(|code| self.explain(code));
        }
        self.refusal.is_some()
    }

    fn explain(&self, code: Code) -> Box<Refusal> {
        let id = RequestId::of(&HeaderMap::new(), &self.clock);
        refused(self.peer, &id, code);
        Box::new(Refusal {
            bytes: answer(code, &id),
            written: 0,
            linger: None,
        })
    }
}

/// What hyper refused, if `written` is the head it writes for that and nothing else.
fn code(written: &[u8]) -> Option<Code> {
    let head = written.strip_suffix(END)?;
    let (head, _) = head.split_at_checked(head.len().checked_sub(DATE)?)?;
    let status = head.strip_suffix(HEADERS)?.strip_prefix(b"HTTP/1.1 ")?;
    match status.get(..3)? {
        b"400" => Some(Code::MalformedRequest),
        b"431" => Some(Code::HeadersTooLarge),
        _ => None,
    }
}

fn answer(code: Code, id: &RequestId) -> Vec<u8> {
    let body = Problem::of(code).body(id.as_str());
    let status: StatusCode = code.status();
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: {id}\r\n\r\n",
        body.len(),
    );
    [head.into_bytes(), body].concat()
}

impl Refusal {
    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(left @ [_, ..]) = self.bytes.get(self.written..) {
            match ready!(Pin::new(&mut *stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what the client still sends, until it ends or there was enough of it.
    fn poll_linger<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let (until, bytes) = self
            .linger
            .get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
        let mut nowhere = [0; 4096];
        while *bytes < LINGER_BYTES && until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut nowhere);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            match buffer.filled().len() {
                read_bytes @ 1.. if read.is_ok() => *bytes += read_bytes,
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Explained<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                this.asked = true;
                return Poll::Ready(Ok(()));
            }
        }
        let told = this.ended.get_or_insert_with(|| Box::pin(sleep(HOLD)));
        if this.asked {
            ready!(told.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Explained<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.asked = false;
        if this.replaces(bytes)
            && let Some(refusal) = &mut this.refusal
        {
            ready!(refusal.poll_write(&mut this.stream, cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [only] => self.poll_write(cx, only),
            several => {
                self.asked = false;
                Pin::new(&mut self.stream).poll_write_vectored(cx, several)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        match &mut this.refusal {
            Some(refusal) => refusal.poll_linger(&mut this.stream, cx).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
        date: Sun, 22 Nov 2026 12:09:27 GMT\r\n\r\n";

    /// What the client sees of `writes`, through a pipe of `room` bytes.
    async fn seen(room: usize, writes: &[&[u8]]) -> String {
        let (ours, mut theirs) = duplex(room);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut stream = Explained::new(ours, peer, Clock::system());
        let write = async {
            for bytes in writes {
                stream.write_all(bytes).await.unwrap();
            }
            drop(stream);
        };
        let mut seen = String::new();
        let (_, read) = tokio::join!(write, theirs.read_to_string(&mut seen));
        read.unwrap();
        seen
    }

    #[tokio::test]
    async fn a_bare_refusal_is_explained_also_through_a_narrow_pipe() {
        for room in [7, 64 * 1024] {
            let seen = seen(room, &[BARE]).await;
            let (head, body) = seen.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["code"], "malformed_request");
        }
    }

    #[tokio::test]
    async fn whatever_else_is_written_stays_as_it_is() {
        let text = std::str::from_utf8(BARE).unwrap();
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
            text.replace("date: ", "x-request-id: 1\r\ndate: "),
            text.replace("content-length: 0", "content-length: 5"),
            text.replace("400 Bad Request", "404 Not Found"),
            format!("{text}more"),
            format!("x{text}"),
            "HTTP/1.1 4".to_owned(),
            "HTTP/1.1 4\r\n\r\n".to_owned(),
        ] {
            assert_eq!(seen(1024, &[other.as_bytes()]).await, other);
        }
    }
}
