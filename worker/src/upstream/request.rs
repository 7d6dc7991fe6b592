//! What we send.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Call, Dialect, UpstreamConfig};

/// Who speaks in a [`ChatMessage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatRole {
    /// Balas itself: instructions and facts.
    System,
    /// The person.
    User,
    /// A model.
    Assistant,
}

/// One message of a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: ChatRole,
    /// What is said.
    pub content: Content,
}

/// Text, or text with images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Text only.
    Text(String),
    /// Several parts.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image, fetched by the provider.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl,
    },
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageUrl {
    /// An http or https address.
    pub url: String,
}

impl Part {
    /// The tokens it may take; an image is counted as most providers do at its largest.
    pub(super) fn tokens(&self, of: &impl Fn(&str) -> u32) -> u32 {
        match self {
            Self::Text { text } => of(text),
            Self::ImageUrl { .. } => 1_600,
        }
    }

    /// An image at an http or https address.
    #[must_use]
    pub fn image(url: &str) -> Self {
        Self::ImageUrl {
            image_url: ImageUrl {
                url: url.to_owned(),
            },
        }
    }
}

impl ChatMessage {
    /// A message of text only.
    #[must_use]
    pub fn text(role: ChatRole, text: impl Into<String>) -> Self {
        Self {
            role,
            content: Content::Text(text.into()),
        }
    }
}

/// Cuts the history harder, for a model whose window it does not fit: the older half of what
/// stands between the leading system messages and the newest message goes. Returns `None` when
/// nothing is left to cut.
#[must_use]
pub fn shorten(messages: &[ChatMessage]) -> Option<Vec<ChatMessage>> {
    let head = messages
        .iter()
        .take_while(|message| message.role == ChatRole::System)
        .count();
    let newest = messages
        .len()
        .checked_sub(1)
        .filter(|newest| *newest > head)?;
    let mut from = head + (newest - head).div_ceil(2);
    // A reply whose question is gone only confuses.
    while from < newest && messages[from].role == ChatRole::Assistant {
        from += 1;
    }
    Some(
        messages[..head]
            .iter()
            .chain(&messages[from..])
            .cloned()
            .collect(),
    )
}

/// The body of `POST /chat/completions`.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [ChatMessage],
    max_tokens: u32,
    temperature: f32,
    stream: bool,
    stream_options: StreamOptions,
    user: &'a str,
    #[serde(flatten)]
    extensions: Option<Extensions<'a>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// What only OpenRouter knows.
#[derive(Serialize)]
struct Extensions<'a> {
    session_id: String,
    usage: Value,
    /// The gateway's own compression would drop the middle of a long prompt without a word; our
    /// budget decides instead.
    plugins: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a Value>,
}

/// The body of one call as JSON.
pub(super) fn body(
    config: &UpstreamConfig,
    dialect: Dialect,
    call: &Call,
    messages: &[ChatMessage],
    model: &str,
) -> Vec<u8> {
    let extensions = (dialect == Dialect::OpenRouter).then(|| Extensions {
        session_id: call.session_id.to_string(),
        usage: json!({ "include": true }),
        plugins: json!([{ "id": "context-compression", "enabled": false }]),
        provider: config.provider.as_ref(),
    });
    let body = Body {
        model,
        messages,
        max_tokens: call.max_tokens,
        temperature: call.temperature,
        stream: true,
        stream_options: StreamOptions {
            include_usage: true,
        },
        user: &call.user,
        extensions,
    };
    // Serialising plain strings and numbers to memory cannot fail; an empty body would be refused
    // as invalid, which is the right end for the impossible.
    serde_json::to_vec(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Vars;
    use uuid::Uuid;

    fn sent(pairs: &[(&str, &str)]) -> Value {
        let base = [("OPENROUTER_BASE_URL", "http://localhost:1/v1")];
        let mut vars = Vars::from_map(base.iter().chain(pairs).copied());
        let config = UpstreamConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        let parts = vec![
            Part::Text {
                text: "look".into(),
            },
            Part::image("https://x/y.png"),
        ];
        let call = Call {
            messages: vec![
                ChatMessage::text(ChatRole::System, "be brief"),
                ChatMessage {
                    role: ChatRole::User,
                    content: Content::Parts(parts),
                },
            ],
            max_tokens: 1000,
            temperature: 0.7,
            user: "hash".into(),
            session_id: Uuid::nil(),
            request_id: None,
            traceparent: None,
            round: 1,
            is_last_round: false,
            time_left: std::time::Duration::ZERO,
        };
        serde_json::from_slice(&body(
            &config,
            config.dialect,
            &call,
            &call.messages,
            "a/b:free",
        ))
        .unwrap()
    }

    #[test]
    fn the_body_is_the_documented_one() {
        let mut body = sent(&[("OPENROUTER_PROVIDER", r#"{"sort":"throughput"}"#)]);
        let temperature = body["temperature"].take().as_f64().unwrap();
        assert!((temperature - 0.7).abs() < 1e-6);
        assert_eq!(
            body,
            json!({
                "model": "a/b:free",
                "messages": [
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                    ]},
                ],
                "max_tokens": 1000,
                "temperature": null,
                "stream": true,
                "stream_options": {"include_usage": true},
                "user": "hash",
                "session_id": "00000000-0000-0000-0000-000000000000",
                "usage": {"include": true},
                "plugins": [{"id": "context-compression", "enabled": false}],
                "provider": {"sort": "throughput"},
            })
        );
    }

    #[test]
    fn a_strict_server_gets_only_what_openai_documents() {
        let body = sent(&[("UPSTREAM_DIALECT", "openai")]);
        let names: Vec<_> = body
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            names,
            [
                "max_tokens",
                "messages",
                "model",
                "stream",
                "stream_options",
                "temperature",
                "user"
            ]
        );
    }

    #[test]
    fn shortening_keeps_the_system_prompt_and_the_newest_message() {
        let message = |role, text: &str| ChatMessage::text(role, text);
        let mut messages = vec![message(ChatRole::System, "s")];
        for turn in ["1", "2", "3"] {
            messages.push(message(ChatRole::User, turn));
            messages.push(message(ChatRole::Assistant, turn));
        }
        messages.push(message(ChatRole::User, "new"));
        let texts = |messages: &[ChatMessage]| -> Vec<String> {
            let text = |message: &ChatMessage| match &message.content {
                Content::Text(text) => text.clone(),
                Content::Parts(_) => String::new(),
            };
            messages.iter().map(text).collect()
        };
        let once = shorten(&messages).unwrap();
        assert_eq!(texts(&once), ["s", "3", "3", "new"]);
        let twice = shorten(&once).unwrap();
        assert_eq!(texts(&twice), ["s", "new"]);
        assert!(shorten(&twice).is_none());
        assert!(shorten(&[]).is_none());
    }
}
