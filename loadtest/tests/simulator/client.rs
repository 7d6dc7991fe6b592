//! A plain HTTP client, and what it makes of a stream.

use std::sync::Once;

use futures::StreamExt;
use loadtest::simulator::{CallRecord, Outcome, Simulator, reply_text};
use serde_json::{Value, json};

pub(crate) fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // The client is built with TLS support even where it speaks plain HTTP.
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn request(model: &str, message: &str) -> Value {
    json!({
        "model": model, "stream": true, "max_tokens": 1000, "session_id": "s1", "user": "u1",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": message}],
    })
}

pub(crate) async fn post(
    simulator: &Simulator,
    body: &Value,
) -> reqwest::Result<reqwest::Response> {
    client()
        .post(format!("{}/chat/completions", simulator.base_url()))
        .bearer_auth("k1")
        .json(body)
        .send()
        .await
}

pub(crate) async fn ask(simulator: &Simulator, message: &str) -> reqwest::Response {
    post(simulator, &request("openai/gpt-4o-mini", message))
        .await
        .unwrap()
}

/// What a client makes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) raw: Vec<u8>,
    pub(crate) text: String,
    pub(crate) chunks: usize,
    pub(crate) comments: usize,
    pub(crate) finish: Option<String>,
    pub(crate) usages: Vec<Value>,
    pub(crate) errors: Vec<Value>,
    pub(crate) malformed: usize,
    pub(crate) done: bool,
    pub(crate) broken: bool,
}

pub(crate) async fn read(response: reqwest::Response) -> Seen {
    let mut seen = Seen::default();
    let mut body = response.bytes_stream();
    while let Some(bytes) = body.next().await {
        match bytes {
            Ok(bytes) => seen.raw.extend_from_slice(&bytes),
            Err(_) => seen.broken = true,
        }
    }
    seen.parse();
    seen
}

impl Seen {
    pub(crate) fn parse(&mut self) {
        let raw = String::from_utf8_lossy(&self.raw).replace("\r\n", "\n");
        for line in raw.lines() {
            if line.starts_with(": ") {
                self.comments += 1;
            }
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                self.done = true;
                continue;
            }
            let Ok(chunk) = serde_json::from_str::<Value>(data) else {
                self.malformed += 1;
                continue;
            };
            self.chunks += 1;
            let choice = &chunk["choices"][0];
            self.text
                .push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            if let Some(reason) = choice["finish_reason"].as_str() {
                self.finish = Some(reason.to_owned());
            }
            if chunk["usage"].is_object() {
                self.usages.push(chunk["usage"].clone());
            }
            for error in [&chunk["error"], &choice["error"]] {
                if error.is_object() {
                    self.errors.push(error.clone());
                }
            }
        }
    }
}

pub(crate) async fn only_call(simulator: &Simulator, outcome: Outcome) -> CallRecord {
    let call = simulator
        .wait_for_call(|call| call.outcome == outcome)
        .await;
    assert_eq!(simulator.calls().len(), 1);
    call
}

/// The first `tokens` tokens of the reply to `message`, by the simulator's own rule that a
/// token is a word with the space before it. (No word of these is longer than twelve letters.)
pub(crate) fn prefix(message: &str, tokens: usize) -> String {
    let text = reply_text(message, 24);
    let mut count = 0;
    let mut inside = false;
    for (at, character) in text.char_indices() {
        if character.is_whitespace() {
            if inside && count == tokens {
                return text[..at].to_owned();
            }
            inside = false;
        } else if !inside {
            inside = true;
            count += 1;
        }
    }
    text
}

pub(crate) async fn get(simulator: &Simulator, path: &str) -> Value {
    let response = client()
        .get(format!("{}{path}", simulator.origin()))
        .bearer_auth("k1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}
