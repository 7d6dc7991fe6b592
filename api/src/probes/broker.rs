//! Whether RabbitMQ is there, without logging in.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::BrokerAddress;

/// What a client of AMQP 0-9-1 says first.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The head of the answer: a method frame of channel 0 (then its length), with the method Connection.Start.
const FRAME: &[u8] = b"\x01\x00\x00";
const START: &[u8] = b"\x00\x0a\x00\x0a";

/// Connects and waits for the broker's first word. Behind TLS the connection alone has to do.
pub(super) async fn greet(address: &BrokerAddress) -> io::Result<()> {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    if address.tls {
        return Ok(());
    }
    stream.write_all(GREETING).await?;
    let mut head = [0; 11];
    stream.read_exact(&mut head).await?;
    if head.starts_with(FRAME) && head.ends_with(START) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "what answers is no broker",
    ))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn greeted(answer: &'static [u8]) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = BrokerAddress {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            tls: false,
        };
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 8];
            stream.read_exact(&mut greeting).await.unwrap();
            assert_eq!(greeting, GREETING);
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(greet(&address), answering).0
    }

    #[tokio::test]
    async fn only_a_broker_answers_like_one() {
        assert!(
            greeted(b"\x01\x00\x00\x00\x00\x01\xd4\x00\x0a\x00\x0a\x00\x09")
                .await
                .is_ok()
        );
        // What a broker says to another version of the protocol.
        assert!(greeted(b"AMQP\x00\x00\x09\x01").await.is_err());
        assert!(greeted(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.is_err());
        assert!(greeted(b"").await.is_err());
    }
}
