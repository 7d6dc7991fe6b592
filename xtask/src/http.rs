//! Just enough HTTP to ask a process of ours whether it is ready.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// The status and body of `GET path` on loopback; `None` when there is no answer in two seconds.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let ask = || -> std::io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(250))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut said = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    parse(&ask().ok()?)
}

fn parse(response: &str) -> Option<(u16, String)> {
    let status = response.split_whitespace().nth(1)?.parse().ok()?;
    let body = response
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default();
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let said = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbody";
        assert_eq!(parse(said), Some((503, "body".to_owned())));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n"), Some((200, String::new())));
        assert_eq!(parse(""), None);
        assert_eq!(parse("+PONG"), None);
    }
}
