//! The gateway's JSON: what it reads and the pieces of what it sends.

use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use super::books::{Call, Price};
use super::catalogue;
use super::reply::count_tokens;

/// A chat completion request. Fields it does not know are ignored, as the real one does.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    #[serde(default)]
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) messages: Vec<ChatMessage>,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default, alias = "max_completion_tokens")]
    pub(crate) max_tokens: Option<u32>,
    #[serde(default)]
    pub(crate) session_id: Option<String>,
    #[serde(default)]
    pub(crate) user: Option<String>,
}

/// One message of a request.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatMessage {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) content: Content,
}

/// A message's content: text, or parts of which only the text is read.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    #[default]
    None,
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    #[serde(default)]
    pub(crate) text: Option<String>,
}

impl Content {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Text(text) => text,
            Self::Parts(parts) => parts
                .into_iter()
                .filter_map(|part| part.text)
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    pub(crate) fn tokens(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Text(text) => count_tokens(text),
            Self::Parts(parts) => parts
                .iter()
                .filter_map(|part| part.text.as_deref())
                .map(count_tokens)
                .sum(),
        }
    }
}

impl ChatRequest {
    /// What stands for a body that cannot be read, so that the call can be written down.
    pub(crate) fn empty() -> Self {
        Self {
            model: None,
            messages: Vec::new(),
            stream: false,
            max_tokens: None,
            session_id: None,
            user: None,
        }
    }

    /// Prompt tokens: the text's, and four for the frame of each message.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        self.messages
            .iter()
            .map(|message| message.content.tokens() + 4)
            .sum::<u32>()
            + 3
    }
}

/// An embeddings request.
#[derive(Debug, Deserialize)]
pub(crate) struct EmbeddingsRequest {
    #[serde(default)]
    pub(crate) model: Option<String>,
    pub(crate) input: Input,
    #[serde(default)]
    pub(crate) dimensions: Option<usize>,
    #[serde(default)]
    pub(crate) encoding_format: Option<String>,
    #[serde(default)]
    pub(crate) user: Option<String>,
}

/// One text or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Input {
    One(String),
    Many(Vec<String>),
}

impl Input {
    pub(crate) fn into_texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// The pieces of a stream's chunks that are the same in all of them, made once per stream.
#[derive(Debug)]
pub(crate) struct Chunks {
    head: String,
    end: &'static str,
}

impl Chunks {
    pub(crate) fn new(call: &Call, created: u64, crlf: bool) -> Self {
        let model = Value::from(call.facts.model.as_str());
        let head = format!(
            r#"data: {{"id":"{}","provider":"{}","model":{model},"object":"chat.completion.chunk","created":{created},"#,
            call.id,
            catalogue::PROVIDER,
        );
        Self {
            head,
            end: if crlf { "\r\n\r\n" } else { "\n\n" },
        }
    }

    /// A chunk with text.
    pub(crate) fn text(&self, out: &mut BytesMut, text: &str) {
        out.reserve(self.head.len() + text.len() + 112);
        out.put_slice(self.head.as_bytes());
        out.put_slice(br#""choices":[{"index":0,"delta":{"role":"assistant","content":"#);
        put_json_string(out, text);
        out.put_slice(br#"},"finish_reason":null,"native_finish_reason":null,"logprobs":null}]}"#);
        out.put_slice(self.end.as_bytes());
    }

    /// The chunk with the finish reason, and with the usage where it rides along.
    pub(crate) fn finish(&self, out: &mut BytesMut, reason: &str, usage: Option<&str>) {
        let reason = Value::from(reason);
        out.put_slice(self.head.as_bytes());
        out.put_slice(
            format!(
                r#""choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":{reason},"native_finish_reason":{reason},"logprobs":null}}]"#
            )
            .as_bytes(),
        );
        if let Some(usage) = usage {
            out.put_slice(br#","usage":"#);
            out.put_slice(usage.as_bytes());
        }
        out.put_u8(b'}');
        out.put_slice(self.end.as_bytes());
    }

    /// The chunk with the usage alone.
    pub(crate) fn usage(&self, out: &mut BytesMut, usage: &str) {
        out.put_slice(self.head.as_bytes());
        out.put_slice(
            br#""choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,"native_finish_reason":null,"logprobs":null}],"usage":"#,
        );
        out.put_slice(usage.as_bytes());
        out.put_u8(b'}');
        out.put_slice(self.end.as_bytes());
    }

    /// A failure as a chunk with a top-level error.
    pub(crate) fn error(&self, out: &mut BytesMut, error: &Value) {
        out.put_slice(self.head.as_bytes());
        out.put_slice(format!(r#""error":{error},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":"error","native_finish_reason":"error"}}]}}"#).as_bytes());
        out.put_slice(self.end.as_bytes());
    }

    /// A failure as a finish reason, without a top-level error.
    pub(crate) fn finish_error(&self, out: &mut BytesMut, error: &Value) {
        out.put_slice(self.head.as_bytes());
        out.put_slice(format!(r#""choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":"error","native_finish_reason":"error","error":{error}}}]}}"#).as_bytes());
        out.put_slice(self.end.as_bytes());
    }

    /// A chunk that stops in the middle of its JSON.
    pub(crate) fn malformed(&self, out: &mut BytesMut) {
        out.put_slice(self.head.as_bytes());
        out.put_slice(br#""choices":[{"index":0,"delta":{"content":"unfinis"#);
        out.put_slice(self.end.as_bytes());
    }

    /// The end of the stream.
    pub(crate) fn done(&self, out: &mut BytesMut) {
        out.put_slice(b"data: [DONE]");
        out.put_slice(self.end.as_bytes());
    }

    /// The comment that says the gateway is alive.
    pub(crate) fn comment(&self, out: &mut BytesMut) {
        out.put_slice(b": OPENROUTER PROCESSING");
        out.put_slice(self.end.as_bytes());
    }
}

/// The usage object. The cost is written as a plain decimal number, so that a client that reads
/// the digits sees the exact price.
pub(crate) fn usage_json(call: &Call, completion_text: u32, with_cost: bool) -> String {
    let facts = &call.facts;
    let completion = completion_text + facts.reasoning_tokens;
    let Price {
        prompt,
        completion: completion_price,
        total,
    } = facts.price(completion);
    let cost = if with_cost {
        format!(
            r#""cost":{total},"is_byok":false,"cost_details":{{"upstream_inference_cost":null,"upstream_inference_prompt_cost":{prompt},"upstream_inference_completions_cost":{completion_price}}},"#
        )
    } else {
        String::new()
    };
    format!(
        r#"{{"prompt_tokens":{},"completion_tokens":{completion},"total_tokens":{},{cost}"prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":{},"image_tokens":0}}}}"#,
        facts.prompt_tokens,
        facts.prompt_tokens + completion,
        facts.cached_tokens.min(facts.prompt_tokens),
        facts.reasoning_tokens,
    )
}

/// The body of an answer that is not streamed.
pub(crate) fn completion_json(
    call: &Call,
    created: u64,
    text: &str,
    reason: Option<&str>,
    error: Option<&Value>,
    usage: Option<&str>,
) -> String {
    let mut choice = json!({
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": null},
        "finish_reason": reason,
        "native_finish_reason": reason,
        "logprobs": null,
    });
    if let Some(error) = error {
        choice["error"] = error.clone();
    }
    let usage = usage
        .map(|usage| format!(r#","usage":{usage}"#))
        .unwrap_or_default();
    format!(
        r#"{{"id":"{}","provider":"{}","model":{},"object":"chat.completion","created":{created},"choices":[{choice}]{usage}}}"#,
        call.id,
        catalogue::PROVIDER,
        Value::from(call.facts.model.as_str()),
    )
}

/// Writes `text` as a JSON string, non-ASCII characters as they are.
fn put_json_string(out: &mut BytesMut, text: &str) {
    if text
        .bytes()
        .any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')
    {
        out.put_slice(Value::from(text).to_string().as_bytes());
    } else {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
    }
}
