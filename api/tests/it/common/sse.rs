//! A reader of Server-Sent Events.

use futures::StreamExt as _;
use http::Method;
use serde_json::Value;

use super::{Client, PATIENCE};

/// An open event stream.
pub(crate) struct EventStream {
    response: reqwest::Response,
    buffer: String,
    pub(crate) comments: usize,
}

impl EventStream {
    /// Opens the stream, resuming after an event where one is given.
    pub(crate) async fn open(client: &Client, path: &str, after: Option<&str>) -> Self {
        let mut request = client.request(Method::GET, path);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            buffer: String::new(),
            comments: 0,
        }
    }

    /// The next event, or none at the end of the stream. Checks that frame and event agree.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.read())
            .await
            .expect("an event comes in time")
    }

    async fn read(&mut self) -> Option<Value> {
        loop {
            while let Some((frame, rest)) = self.buffer.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.buffer = rest;
                if frame.starts_with(':') {
                    self.comments += 1;
                    continue;
                }
                return Some(parse(&frame));
            }
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Every event to the end of the stream.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let events = futures::stream::unfold(&mut self, |stream| async move {
            Some((stream.next().await?, stream))
        });
        events.collect().await
    }

    /// Reads up to and with the first event of a type.
    pub(crate) async fn through(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the stream ended before {kind}"));
            let found = event["type"] == kind;
            events.push(event);
            if found {
                return events;
            }
        }
    }
}

fn parse(frame: &str) -> Value {
    let field = |name: &str| {
        frame
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let event: Value = serde_json::from_str(field("data").unwrap()).unwrap();
    assert_eq!(event["id"].as_str(), field("id"));
    assert_eq!(event["type"].as_str(), field("event"));
    event
}

/// The types of events, with repeated ones counted once: `delta` comes in any number.
pub(crate) fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    kinds.dedup();
    kinds
}

/// The text of all deltas.
pub(crate) fn text(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| event["data"]["text"].as_str())
        .collect()
}

/// The ids are strictly increasing.
pub(crate) fn assert_ordered(events: &[Value]) {
    let ids: Vec<_> = events
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}
