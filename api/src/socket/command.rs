//! What a client may say on a WebSocket, and the answers to it.

use axum::extract::ws::Utf8Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{FieldError, Problem, Result};
use crate::extract::parse_json;

/// A wish of the client.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Command {
    /// Send a generation's log after an event, or from its beginning.
    Resume {
        generation_id: Uuid,
        after: Option<String>,
    },
    /// Send only this conversation's events, and those of others subscribed to.
    Subscribe { conversation_id: Uuid },
    /// No longer. When none is left, everything is sent again.
    Unsubscribe { conversation_id: Uuid },
    /// Say pong.
    Ping {},
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

pub(super) fn parse(text: &str) -> Result<Command> {
    parse_json(text.as_bytes())
}

pub(super) fn pong() -> Utf8Bytes {
    Utf8Bytes::from_static(r#"{"type":"pong"}"#)
}

/// The same code and text as a problem of HTTP.
pub(super) fn error(problem: &Problem) -> Utf8Bytes {
    if problem.code().status().is_server_error() {
        tracing::error!(
            error = crate::error::chain(problem),
            "failed to follow a command"
        );
    }
    let frame = ErrorFrame {
        kind: "error",
        code: problem.code().as_str(),
        detail: problem.detail(),
        errors: problem.field_errors(),
    };
    serde_json::to_string(&frame).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (text, expected) in [
            ("", "malformed_json"),
            ("hello", "malformed_json"),
            ("[]", "validation_failed"),
            ("{}", "validation_failed"),
            (r#"["ping"]"#, "validation_failed"),
            (r#"{"type":"dance"}"#, "validation_failed"),
            (r#"{"type":"ping","extra":1}"#, "validation_failed"),
            (
                r#"{"type":"subscribe","conversation_id":"x"}"#,
                "validation_failed",
            ),
            (r#"{"type":"resume"}"#, "validation_failed"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.code().as_str(), expected, "{text}");
            let frame: serde_json::Value = serde_json::from_str(&error(&problem)).unwrap();
            assert_eq!(
                (frame["type"].as_str(), frame["code"].as_str()),
                (Some("error"), Some(expected))
            );
        }
        assert!(matches!(
            parse(r#"{"type":"ping"}"#).unwrap(),
            Command::Ping {}
        ));
    }
}
