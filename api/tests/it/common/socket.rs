//! A WebSocket client.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{Client, PATIENCE};

/// An open socket.
pub(crate) struct Socket(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Opens a socket with the client's token.
    pub(crate) async fn open(client: &Client) -> Self {
        Self::try_open(client, "").await.unwrap()
    }

    /// Opens a socket with any query; the error is the answer's status.
    pub(crate) async fn try_open(client: &Client, query: &str) -> Result<Self, u16> {
        let url = format!(
            "{}/api/chat/ws{query}",
            client.url.replace("http://", "ws://")
        );
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = client.bearer() {
            request
                .headers_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next JSON frame; pings are answered on the way.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match self.message().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads up to and with the first frame of a type.
    pub(crate) async fn through(&mut self, kind: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            let found = frame["type"] == kind;
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }

    /// Every frame of one generation up to and with its completion, leaving out the others: titles
    /// are generated in between.
    pub(crate) async fn completion_of(&mut self, generation: &str) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["generation_id"] != generation {
                continue;
            }
            let ended = frame["type"] == "generation.completed";
            frames.push(frame);
            if ended {
                return frames;
            }
        }
    }

    /// The code the server closes with.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.message().await {
                return frame.map_or(1005, |frame| frame.code.into());
            }
        }
    }

    /// Makes sure that everything sent so far was heard: a ping is answered in order.
    pub(crate) async fn settle(&mut self) {
        self.say(json!({ "type": "ping" })).await;
        self.through("pong").await;
    }

    async fn message(&mut self) -> Message {
        let message = tokio::time::timeout(PATIENCE, self.0.next())
            .await
            .expect("a frame comes in time");
        message.expect("the socket is open").unwrap()
    }
}
