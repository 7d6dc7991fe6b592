//! As much of HTTP/1.1 as a receiver needs.

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

pub(super) const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
pub(super) const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
pub(super) const BUSY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
/// The head is not whole, so nobody can know what it would have said.
pub(super) const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-len";

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    /// Method, path and version.
    pub(super) line: String,
    head: String,
    pub(super) body: Bytes,
}

impl Incoming {
    /// A header by its name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The first request in the bytes, taken out of them once it is whole.
    pub(super) fn take(bytes: &mut BytesMut) -> Option<Self> {
        const END: &[u8] = b"\r\n\r\n";
        let head = bytes.windows(END.len()).position(|window| window == END)?;
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let (line, head_lines) = text.split_once("\r\n").unwrap_or((&text, ""));
        let mut incoming = Self {
            line: line.to_owned(),
            head: head_lines.to_owned(),
            body: Bytes::new(),
        };
        let length: usize = incoming
            .header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        let start = head + END.len();
        if bytes.len() < start + length {
            return None;
        }
        incoming.body = bytes.split_to(start + length).freeze().slice(start..);
        Some(incoming)
    }
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Reader {
    client: TcpStream,
    bytes: BytesMut,
}

impl Reader {
    pub(super) fn new(client: TcpStream) -> Self {
        Self {
            client,
            bytes: BytesMut::new(),
        }
    }

    pub(super) fn client(&mut self) -> &mut TcpStream {
        &mut self.client
    }

    /// The next request; none when the client has no more.
    pub(super) async fn request(&mut self) -> std::io::Result<Option<Incoming>> {
        loop {
            if let Some(incoming) = Incoming::take(&mut self.bytes) {
                return Ok(Some(incoming));
            }
            if self.client.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }
}
