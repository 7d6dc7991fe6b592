//! Posting a message.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::http::Connection;
use super::options::Common;
use super::world::Conversation;
use crate::clock;

/// The messages of one run: each says which run and which number it is, so that it is found
/// again in the simulator's call log.
#[derive(Debug)]
pub(crate) struct Messages {
    run: String,
    marker: String,
    idempotency_keys: bool,
}

/// A message that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The generation that makes its reply.
    pub(crate) generation: String,
    /// How long the API says the reply will take, in milliseconds.
    pub(crate) estimated_ms: Option<u64>,
    /// When the API says it was queued: microseconds since the epoch, exact to a millisecond.
    pub(crate) queued_us: i64,
    /// When the answer had arrived here.
    pub(crate) received_us: i64,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    generation: Generation<'a>,
}

#[derive(Deserialize)]
struct Generation<'a> {
    id: &'a str,
    estimated_response_time_ms: Option<u64>,
    #[serde(borrow)]
    timings: Timings<'a>,
}

#[derive(Deserialize)]
struct Timings<'a> {
    queued_at: &'a str,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

impl Messages {
    pub(crate) fn new(common: &Common, marker: &str) -> Self {
        let run = Uuid::new_v4().simple().to_string();
        let marker = if marker.is_empty() {
            String::new()
        } else {
            format!(" [[sim:{marker}]]")
        };
        Self {
            run,
            marker,
            idempotency_keys: common.idempotency_keys,
        }
    }

    /// What only the messages of this run contain.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    fn text(&self, number: usize) -> String {
        format!(
            "Load {} message {number}: which step should I take next?{}",
            self.run, self.marker
        )
    }

    /// The number of the message that `text` is, or contains.
    pub(crate) fn number(&self, text: &str) -> Option<usize> {
        let rest = &text[text.find(&self.run)? + self.run.len()..];
        rest.strip_prefix(" message ")?
            .split(':')
            .next()?
            .parse()
            .ok()
    }

    /// Posts message `number`.
    ///
    /// # Errors
    /// A short name of what went wrong, fit for counting.
    pub(crate) async fn post(
        &self,
        connection: &mut Connection,
        conversation: &Conversation,
        number: usize,
    ) -> Result<Accepted, String> {
        let body = Bytes::from(json!({"content": self.text(number)}).to_string());
        let key = if self.idempotency_keys {
            Uuid::new_v4().to_string()
        } else {
            String::new()
        };
        let headers = [
            ("authorization", conversation.authorization.as_ref()),
            ("idempotency-key", &key),
        ];
        let headers = if self.idempotency_keys {
            &headers[..]
        } else {
            &headers[..1]
        };
        let answer = connection
            .send(Method::POST, &conversation.path, headers, body)
            .await;
        let answer = answer.map_err(|error| format!("POST: {error}"))?;
        if answer.status != StatusCode::ACCEPTED {
            let code = serde_json::from_slice::<Problem>(&answer.body)
                .map_or(String::new(), |problem| problem.code);
            return Err(format!("POST: {} {code}", answer.status.as_u16()));
        }
        let received_us = i64::try_from(clock::unix_micros()).unwrap_or(i64::MAX);
        read(&answer.body, received_us).map_err(|error| format!("POST: unreadable 202: {error:#}"))
    }
}

fn read(body: &[u8], received_us: i64) -> anyhow::Result<Accepted> {
    let Body { generation } =
        serde_json::from_slice(body).context("not the JSON of the contract")?;
    let queued_at = OffsetDateTime::parse(generation.timings.queued_at, &Rfc3339);
    let queued_at = queued_at.context("queued_at is not RFC 3339")?;
    let queued_us =
        i64::try_from(queued_at.unix_timestamp_nanos() / 1_000).context("queued_at is absurd")?;
    Ok(Accepted {
        generation: generation.id.to_owned(),
        estimated_ms: generation.estimated_response_time_ms,
        queued_us,
        received_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_again() {
        let messages = Messages {
            run: "abc".into(),
            marker: " [[sim:429]]".into(),
            idempotency_keys: false,
        };
        assert_eq!(messages.number(&messages.text(42)), Some(42));
        assert_eq!(messages.number("Load xyz message 42: …"), None);
    }

    #[test]
    fn reads_the_202_of_the_contract() {
        let body = json!({
            "user_message": {"id": "m"},
            "generation": {"id": "g", "status": "queued", "estimated_response_time_ms": 40, "timings": {"queued_at": "1970-01-01T00:00:01.250Z", "started_at": null}},
            "links": {},
        });
        let accepted = read(body.to_string().as_bytes(), 5).unwrap();
        assert_eq!(
            (
                accepted.generation.as_str(),
                accepted.estimated_ms,
                accepted.queued_us,
                accepted.received_us
            ),
            ("g", Some(40), 1_250_000, 5)
        );
    }
}
