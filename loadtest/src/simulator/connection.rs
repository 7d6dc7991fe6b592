//! A TCP connection that a handler can break.
//!
//! A cut must look on the wire like a real one: a reset (RST) or a close (FIN) in the middle of
//! a body, or before the first byte of an answer. So the handler gets a handle on its
//! connection, and the socket obeys it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How a handler breaks its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Break {
    /// Close: the peer sees the end of the stream.
    Close = 1,
    /// Reset: the peer sees an error.
    Reset = 2,
}

/// A handler's handle on its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle {
    /// What becomes of the socket when it is dropped.
    on_drop: Arc<AtomicU8>,
    /// Whether nothing more may be written.
    mute: Arc<AtomicU8>,
}

impl Handle {
    /// Makes the end of the connection a reset or a close. The caller then ends its body with
    /// an error, which makes the server drop the socket.
    pub(crate) fn end_with(&self, how: Break) {
        self.on_drop.store(how as u8, Ordering::Relaxed);
    }

    /// Breaks the connection before another byte is written.
    pub(crate) fn break_now(&self, how: Break) {
        self.end_with(how);
        self.mute.store(1, Ordering::Relaxed);
    }
}

/// The socket, and the handle that breaks it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    handle: Handle,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> (Self, Handle) {
        let handle = Handle::default();
        (
            Self {
                stream,
                handle: handle.clone(),
            },
            handle,
        )
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.handle.on_drop.load(Ordering::Relaxed) == Break::Reset as u8 {
            // Closing a socket that must not linger sends RST. Where the option is refused the
            // peer sees a plain close, which is a cut as well.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Socket {
    fn check(&self) -> io::Result<()> {
        if self.handle.mute.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the script breaks this connection",
        ))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
