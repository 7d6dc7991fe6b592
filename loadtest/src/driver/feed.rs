//! A user's WebSocket.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures::{SinkExt as _, StreamExt};
use http::header;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::target::Target;

/// The read buffer of a socket: thousands of them share this process's memory.
const BUFFER: usize = 4 * 1024;

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct Feed(WebSocketStream<TcpStream>);

/// The part of an event that the driver looks at.
#[derive(Debug, Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(default)]
    pub(crate) generation_id: Option<&'a str>,
}

impl Feed {
    /// Opens the feed of the user with this `Authorization` header.
    pub(crate) async fn open(target: &Target, authorization: &str) -> anyhow::Result<Self> {
        let url = format!("ws://{}/api/chat/ws", target.host);
        let mut request = url
            .into_client_request()
            .context("failed to build the upgrade request")?;
        let value = authorization
            .parse()
            .context("the token is not fit for a header")?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
        let stream = TcpStream::connect(target.address)
            .await
            .context("failed to connect")?;
        stream
            .set_nodelay(true)
            .context("failed to set TCP_NODELAY")?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0);
        let opened =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = opened.context("failed to upgrade to a WebSocket")?;
        Ok(Self(socket))
    }

    /// The next text frame; pings are answered meanwhile. `None` when the server is gone.
    pub(crate) async fn next_text(&mut self) -> Option<Utf8Bytes> {
        loop {
            match self.0.next().await? {
                Ok(Message::Text(text)) => return Some(text),
                // Reading the next frame sends the answer to a ping.
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Asks for what was missed of a generation after this event, or, if that is empty, from its
    /// beginning.
    pub(crate) async fn resume(&mut self, generation: &str, after: &str) -> anyhow::Result<()> {
        let after = (!after.is_empty()).then_some(after);
        let wish = json!({"type": "resume", "generation_id": generation, "after": after});
        let sent = self.0.send(Message::text(wish.to_string())).await;
        sent.context("failed to write to a WebSocket")
    }

    /// Reads events until the server is gone, and hands each of them over with its time.
    pub(crate) async fn read(mut self, each: impl Fn(&Event<'_>, Instant)) {
        while let Some(text) = self.next_text().await {
            let at = Instant::now();
            if let Ok(event) = serde_json::from_str::<Event<'_>>(&text) {
                each(&event, at);
            }
        }
    }
}

/// Opens one feed per user, in their order, at most `at_once` at a time.
pub(crate) async fn open_all(
    target: &Target,
    users: &[Arc<str>],
    at_once: usize,
) -> anyhow::Result<Vec<Feed>> {
    let opening = users
        .iter()
        .map(|authorization| Feed::open(target, authorization));
    let mut opened = futures::stream::iter(opening).buffered(at_once);
    let mut feeds = Vec::with_capacity(users.len());
    while let Some(feed) = opened.next().await {
        feeds.push(feed.context("failed to open a WebSocket")?);
    }
    Ok(feeds)
}
