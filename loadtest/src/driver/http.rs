//! One kept-alive HTTP/1.1 connection, as cheap as it gets: on two cores the driver must not
//! take the time it measures.

use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::target::Target;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer that is read.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// A connection that is opened when it is needed and again after it broke.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Target,
    sender: Option<SendRequest<Body>>,
}

impl Connection {
    pub(crate) fn new(target: Target) -> Self {
        Self {
            target,
            sender: None,
        }
    }

    /// Sends a request with a JSON body and reads the whole answer.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.target.host)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Body::from(body))
            .context("failed to build a request")?;
        let answer = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
        if !matches!(answer, Ok(Ok(_))) {
            // Whatever state the connection is in, the next request gets a new one.
            self.sender = None;
        }
        answer.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
    }

    async fn exchange(&mut self, request: Request<Body>) -> anyhow::Result<Answer> {
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await.context("the connection was closed")?;
        let response = sender
            .send_request(request)
            .await
            .context("failed to exchange a request")?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), LARGEST_ANSWER).await;
        let body = body.context("failed to read an answer")?;
        self.sender = Some(sender);
        Ok(Answer { status, body })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Body>> {
        let address = self.target.address;
        let stream = TcpStream::connect(address).await;
        let stream = stream.with_context(|| format!("failed to connect to {address}"))?;
        stream
            .set_nodelay(true)
            .context("failed to set TCP_NODELAY")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .context("failed to speak HTTP")?;
        // It ends with the sender or the server, whoever goes first.
        drop(crate::task::spawn(connection));
        Ok(sender)
    }

    /// Sends a GET and reads the JSON it answers with.
    pub(crate) async fn get_json<T: serde::de::DeserializeOwned>(
        &mut self,
        path: &str,
    ) -> anyhow::Result<T> {
        let answer = self.send(Method::GET, path, &[], Bytes::new()).await?;
        if !answer.status.is_success() {
            bail!("GET {path} answered {}", answer.status);
        }
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("failed to read what GET {path} answered"))
    }
}
