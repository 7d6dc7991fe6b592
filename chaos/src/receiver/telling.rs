//! What one request tells, and whether it was told by the rules of docs/notifications.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use loadtest::clock::unix_micros;
use serde_json::Value;
use sha2::Sha256;
use uuid::Uuid;

use super::wire::Incoming;
use super::{SECRET, SERVICE_KEY, Said};

/// How far from now a signature's time may be.
const TOLERANCE_S: u64 = 300;

/// One time that something was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Telling {
    /// The dedupe id.
    pub(crate) id: Uuid,
    pub(crate) generation: Uuid,
    pub(crate) conversation: Uuid,
    pub(crate) user: Uuid,
    /// `chat.generation.…`
    pub(crate) kind: String,
    /// How the generation ended.
    pub(crate) status: String,
    /// What kind of generation it is.
    pub(crate) made: String,
    pub(crate) message: Option<Uuid>,
    pub(crate) reply: Option<Reply>,
    pub(crate) error: Option<String>,
    /// `X-Request-Id`.
    pub(crate) request_id: Option<String>,
    /// Microseconds since 1970.
    pub(crate) at_us: u64,
    pub(crate) said: Said,
}

/// The reply that it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: Uuid,
    pub(crate) content: String,
}

/// Reads a request. The error is a broken promise.
pub(super) fn read(incoming: &Incoming) -> Result<Telling, String> {
    let header = |name| incoming.header(name).unwrap_or_default();
    if incoming.line != "POST /notifications HTTP/1.1" {
        return Err(format!("asked for {}", incoming.line));
    }
    let id = header("webhook-id");
    let at_us = unix_micros();
    let timestamp = header("webhook-timestamp");
    let sent: u64 = timestamp
        .parse()
        .map_err(|_| format!("{id} was signed at {timestamp:?}"))?;
    if sent.abs_diff(at_us / 1_000_000) > TOLERANCE_S {
        return Err(format!("{id} was signed at {sent}, at another time"));
    }
    let signature = signature(id, timestamp, &incoming.body);
    let signatures = header("webhook-signature");
    if !signatures.split(' ').any(|one| one == signature) {
        return Err(format!("{id} has no signature that fits"));
    }
    if header("x-service-key") != SERVICE_KEY {
        return Err(format!("{id} came without the service key"));
    }
    if header("content-type") != "application/json" {
        return Err(format!("{id} came as {}", header("content-type")));
    }
    let body = serde_json::from_slice(&incoming.body)
        .map_err(|error| format!("{id} has a body that is no JSON: {error}"))?;
    let telling = telling(&body, at_us, incoming.header("x-request-id"));
    let telling = telling.ok_or_else(|| format!("{id} lacks something: {body}"))?;
    if telling.id.to_string() != id {
        return Err(format!("{id} has a body of {}", telling.id));
    }
    Ok(telling)
}

/// The signature of Standard Webhooks, as their specification has it.
pub(super) fn signature(id: &str, timestamp: &str, body: &[u8]) -> String {
    let secret = SECRET.strip_prefix("whsec_").unwrap_or_default();
    let key = STANDARD.decode(secret).unwrap_or_default();
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
        return String::new();
    };
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

fn telling(body: &Value, at_us: u64, request_id: Option<&str>) -> Option<Telling> {
    let data = &body["data"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = |value: &Value| -> Option<Uuid> { value.as_str()?.parse().ok() };
    let reply = &data["assistant_message"];
    let reply = id(&reply["id"]).zip(text(&reply["content"]));
    Some(Telling {
        id: id(&body["id"])?,
        generation: id(&data["generation_id"])?,
        conversation: id(&data["conversation_id"])?,
        user: id(&body["user_id"])?,
        kind: text(&body["type"])?,
        status: text(&data["status"])?,
        made: text(&data["kind"])?,
        message: id(&data["user_message_id"]),
        reply: reply.map(|(id, content)| Reply { id, content }),
        error: text(&data["error"]["code"]),
        request_id: request_id.map(str::to_owned),
        at_us,
        said: Said::Nothing,
    })
}
