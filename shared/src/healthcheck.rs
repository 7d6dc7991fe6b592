//! Asking a process of this machine whether it is ready: the health check of a container that has no shell and
//! no curl.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the answer, the status is all that counts.
const READ_AT_MOST: u64 = 256;

/// Why the process is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Nobody answers.
    #[error("failed to ask {0}")]
    NoAnswer(SocketAddr, #[source] std::io::Error),
    /// It says so itself.
    #[error("{0} answered: {1}")]
    Refused(SocketAddr, String),
}

/// Asks `GET /health/ready` of the process that listens on `address`; one that listens everywhere is asked on
/// the loopback.
///
/// # Errors
/// When it does not answer with 200.
pub fn ask(address: SocketAddr) -> Result<(), NotReady> {
    let address = here(address);
    let line = status_line(address).map_err(|error| NotReady::NoAnswer(address, error))?;
    if line.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    Err(NotReady::Refused(address, line))
}

fn status_line(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request =
        format!("GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    stream.take(READ_AT_MOST).read_to_end(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answered(answer: &'static str) -> Result<(), NotReady> {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /health/ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let asked = ask(address);
        server.join().unwrap();
        asked
    }

    #[test]
    fn only_200_is_ready() {
        assert!(answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok());
        let refused = answered("HTTP/1.1 503 Service Unavailable\r\n\r\n200").unwrap_err();
        assert!(
            refused
                .to_string()
                .ends_with("HTTP/1.1 503 Service Unavailable"),
            "{refused}"
        );
        assert!(answered("").is_err());
    }

    #[test]
    fn nobody_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(ask(address), Err(NotReady::NoAnswer(..))));
    }
}
