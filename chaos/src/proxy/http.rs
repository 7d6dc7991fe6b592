//! Finding the requests that post a message.

use super::{Mark, Point};

/// A request's head comes in one piece and at the start of a packet: the clients are our own.
pub(super) fn scan(chunk: &[u8]) -> Option<Mark> {
    let line = chunk.split(|byte| *byte == b'\r').next()?;
    let posts = line.starts_with(b"POST /api/chat/conversations/")
        && line.windows(10).any(|part| part == b"/messages ");
    posts.then_some(Mark {
        start: 0,
        end: chunk.len(),
        point: Point::Post,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_posted_messages_count() {
        assert!(scan(b"POST /api/chat/conversations/7/messages HTTP/1.1\r\nhost: x").is_some());
        for other in [
            &b"POST /api/chat/conversations HTTP/1.1\r\n"[..],
            b"GET /api/chat/conversations/7/messages HTTP/1.1\r\n",
            b"{\"content\": \"POST /messages \"}",
        ] {
            assert_eq!(scan(other), None);
        }
    }
}
