//! Following a reply as a browser does: event by event, resuming by id wherever the stream breaks.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::Conversation;
use super::api::Api;

/// Before a broken stream is resumed.
pub(super) const AGAIN: Duration = Duration::from_millis(200);
/// A stream sends at least a heartbeat in this time.
const SILENCE: Duration = Duration::from_secs(20);

/// What a reader has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How it was read.
    pub(crate) by: &'static str,
    pub(crate) last: Option<String>,
    /// The text since the last event that voided it; none once it has a gap.
    pub(crate) text: Option<String>,
    /// Type of the terminal event, and the whole reply that it brought.
    pub(crate) end: Option<(String, Option<String>)>,
    /// What must not happen.
    pub(crate) faults: Vec<String>,
    /// How often the stream broke and was resumed.
    pub(crate) resumed: u32,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            by: "stream",
            last: None,
            text: Some(String::new()),
            end: None,
            faults: Vec::new(),
            resumed: 0,
        }
    }
}

impl Seen {
    /// Takes the next event. `expected` is what the model answers.
    pub(super) fn take(&mut self, id: &str, kind: &str, data: &Value, expected: &str) {
        if self.end.is_some() {
            self.faults.push(format!("{kind} {id} came after the end"));
        }
        if self.last.as_deref().is_some_and(|last| id <= last) {
            let last = self.last.as_deref().unwrap_or_default();
            self.faults.push(format!("{id} came after {last}"));
        }
        self.last = Some(id.to_owned());
        let data = &data["data"];
        match kind {
            "generation.delta" => {
                if let Some(text) = &mut self.text {
                    text.push_str(data["text"].as_str().unwrap_or_default());
                    if !expected.starts_with(&*text) {
                        self.faults.push(format!("the text up to {id} has a gap"));
                        self.text = None;
                    }
                }
            }
            "generation.retrying" => self.text = Some(String::new()),
            "generation.completed" | "generation.failed" | "generation.cancelled" => {
                let reply = data["assistant_message"]["content"].as_str();
                if reply.is_some_and(|reply| reply != expected) {
                    self.faults.push(format!("{id} brings another reply"));
                }
                self.end = Some((kind.to_owned(), reply.map(str::to_owned)));
            }
            _ => {}
        }
    }
}

/// Reads to the end of the generation, or until `give_up`.
pub(crate) async fn follow(
    api: &Api,
    conversation: &Conversation,
    generation: Uuid,
    expected: &str,
    give_up: impl Fn() -> bool,
) -> Seen {
    let mut seen = Seen::default();
    let path = format!("/api/chat/generations/{generation}/events");
    while seen.end.is_none() && !give_up() {
        let mut request = api.request(api.turn(), Method::GET, &path, &conversation.authorization);
        if let Some(last) = &seen.last {
            request = request.header("last-event-id", last);
        }
        read(request, &mut seen, expected).await;
        if seen.end.is_none() {
            seen.resumed += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }
    seen
}

/// Reads one connection until it ends, however it does.
async fn read(request: reqwest::RequestBuilder, seen: &mut Seen, expected: &str) {
    let Ok(Ok(response)) = tokio::time::timeout(SILENCE, request.send()).await else {
        return;
    };
    if !response.status().is_success() {
        return;
    }
    let mut body = response.bytes_stream();
    let mut lines = Lines::default();
    let deadline = Instant::now() + Duration::from_secs(600);
    while Instant::now() < deadline {
        let Ok(Some(Ok(chunk))) = tokio::time::timeout(SILENCE, body.next()).await else {
            return;
        };
        for (id, kind, data) in lines.events(&chunk) {
            seen.take(&id, &kind, &data, expected);
        }
    }
}

/// The events in a stream of bytes: `id:`, `event:` and `data:` lines, and an empty one.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    id: String,
    kind: String,
    data: String,
}

impl Lines {
    fn events(&mut self, chunk: &[u8]) -> Vec<(String, String, Value)> {
        let mut events = Vec::new();
        self.bytes.extend_from_slice(chunk);
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(id) = line.strip_prefix("id: ") {
                self.id = id.to_owned();
            } else if let Some(kind) = line.strip_prefix("event: ") {
                self.kind = kind.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                self.data.push_str(data);
            } else if line.is_empty() && !self.data.is_empty() {
                let data = serde_json::from_str(&self.data).unwrap_or_default();
                events.push((
                    std::mem::take(&mut self.id),
                    std::mem::take(&mut self.kind),
                    data,
                ));
                self.data.clear();
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delta(text: &str) -> Value {
        json!({"data": {"text": text}})
    }

    #[test]
    fn events_are_read_across_packets() {
        let said = "id: a.1\nevent: generation.delta\ndata: {\"data\":{\"text\":\"Hé\"}}\n\n: heartbeat\n\nid: a.2\nevent: generation.completed\ndata: {}\n\n";
        let mut lines = Lines::default();
        let mut events = Vec::new();
        for byte in said.as_bytes() {
            events.extend(lines.events(&[*byte]));
        }
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].0, "a.1");
        assert_eq!(events[0].2, delta("Hé"));
        assert_eq!(events[1].1, "generation.completed");
    }

    #[test]
    fn a_whole_reply_over_two_attempts_is_no_fault() {
        let mut seen = Seen::default();
        seen.take("g.1.1", "generation.delta", &delta("Hel"), "Hello");
        seen.take("g.2.1", "generation.retrying", &Value::Null, "Hello");
        seen.take("g.2.2", "generation.delta", &delta("He"), "Hello");
        seen.take("g.2.3", "generation.delta", &delta("llo"), "Hello");
        let end = json!({"data": {"assistant_message": {"content": "Hello"}}});
        seen.take("g.2.9", "generation.completed", &end, "Hello");
        assert_eq!(seen.faults, Vec::<String>::new());
        assert_eq!(seen.end.unwrap().1.as_deref(), Some("Hello"));
    }

    #[test]
    fn gaps_repetitions_and_second_ends_are_faults() {
        let mut seen = Seen::default();
        seen.take("g.1.1", "generation.delta", &delta("He"), "Hello");
        seen.take("g.1.3", "generation.delta", &delta("o"), "Hello");
        seen.take("g.1.4", "generation.delta", &delta("!"), "Hello");
        seen.take("g.1.4", "generation.interim", &Value::Null, "Hello");
        let end = json!({"data": {"assistant_message": {"content": "Hallo"}}});
        seen.take("g.1.9", "generation.completed", &end, "Hello");
        seen.take("g.2.9", "generation.completed", &end, "Hello");
        assert_eq!(
            seen.faults,
            [
                "the text up to g.1.3 has a gap",
                "g.1.4 came after g.1.4",
                "g.1.9 brings another reply",
                "generation.completed g.2.9 came after the end",
                "g.2.9 brings another reply",
            ]
        );
    }
}
