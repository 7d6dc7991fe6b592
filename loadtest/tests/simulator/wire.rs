//! Bytes: packets, line ends, resets, and very many of them.

use futures::StreamExt;
use loadtest::simulator::{Simulator, reply_text};

use crate::client::{Seen, ask, read, request};

#[tokio::test]
async fn a_cut_is_a_reset_on_the_wire() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let simulator = Simulator::start().await;
    for (marker, resets) in [
        ("cut=3", true),
        ("drop=3", false),
        ("reset_connection", true),
        ("close", false),
    ] {
        let address = simulator.origin().trim_start_matches("http://").to_owned();
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let body = request("m", &format!("x [[sim:{marker}]]")).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer k1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let mut received = Vec::new();
        let end = stream.read_to_end(&mut received).await;
        let was_reset = end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert_eq!(was_reset, resets, "{marker}");
        assert_eq!(received.is_empty(), !marker.contains('='), "{marker}");
    }
}

#[tokio::test]
async fn the_wire_in_all_its_forms() {
    let simulator = Simulator::start().await;
    let seen = read(ask(&simulator, "x [[sim:malformed=6]]").await).await;
    assert_eq!(
        (seen.malformed, seen.text, seen.finish.as_deref()),
        (1, reply_text("x", 24), Some("stop"))
    );

    let seen = read(ask(&simulator, "x [[sim:crlf]]").await).await;
    assert!(String::from_utf8_lossy(&seen.raw).contains("[DONE]\r\n\r\n"));
    assert_eq!(seen.text, reply_text("x", 24));

    assert!(
        !ask(&simulator, "x [[sim:no_id_header]]")
            .await
            .headers()
            .contains_key("x-generation-id")
    );
}

#[tokio::test]
async fn characters_are_split_between_packets() {
    let simulator = Simulator::start().await;
    // Pieces of five bytes and characters of three: two borders of three fall inside one.
    let message = "日本語".repeat(8);
    let response = ask(&simulator, &format!("{message} [[sim:split=5,tokens=3]]")).await;
    let mut body = response.bytes_stream();
    let (mut all, mut split) = (Vec::new(), false);
    while let Some(bytes) = body.next().await {
        let bytes = bytes.unwrap();
        split |= std::str::from_utf8(&bytes).is_err();
        all.extend_from_slice(&bytes);
    }
    assert!(split, "no packet ended inside a character");
    let mut seen = Seen {
        raw: all,
        ..Seen::default()
    };
    seen.parse();
    assert_eq!(seen.text, reply_text(&message, 3));
}

#[tokio::test]
async fn ten_megabytes_arrive_whole() {
    let simulator = Simulator::start().await;
    let message = "x [[sim:bytes=10000000,chunk=500]]";
    let seen = read(ask(&simulator, message).await).await;
    assert_eq!(seen.text.len(), simulator.expected_reply(message).len());
    assert!(seen.text == simulator.expected_reply(message) && seen.text.len() > 9_999_990);
    assert_eq!(seen.finish.as_deref(), Some("stop"));
}
