//! The bytes of a request body, within the limits of size and time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, header};

use crate::error::{Code, Problem, Result};

/// A client on a slow line gets this long for the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// A client that sends too much reads our answer only after it has sent a part of the rest: closing
/// at once resets the connection, and the answer is lost with it. So some is read and thrown away.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
const LINGER_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads the whole body.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut stream = body.into_data_stream();
    let result = match declared {
        Some(length) if length > limit => Err(Problem::of(Code::BodyTooLarge)),
        _ => tokio::time::timeout(
            BODY_TIMEOUT,
            collect(&mut stream, declared.unwrap_or(0), limit),
        )
        .await
        .unwrap_or_else(|_| Err(Problem::of(Code::BodyTimeout))),
    };
    if matches!(&result, Err(problem) if problem.code() == Code::BodyTooLarge) {
        // Whether it succeeds or not, the answer is the same.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, discard(&mut stream)).await;
    }
    result
}

async fn collect(stream: &mut BodyDataStream, expected: usize, limit: usize) -> Result<Bytes> {
    // The client's word for the length is worth a small buffer, not a large one.
    let mut bytes = BytesMut::with_capacity(expected.min(64 * 1024));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            Problem::new(Code::MalformedRequest, "the body ended early").because(error)
        })?;
        if bytes.len() + chunk.len() > limit {
            return Err(Problem::of(Code::BodyTooLarge));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

async fn discard(stream: &mut BodyDataStream) {
    let mut rest = LINGER_BYTES;
    while let Some(Ok(chunk)) = stream.next().await {
        rest = rest.saturating_sub(chunk.len());
        if rest == 0 {
            return;
        }
    }
}
