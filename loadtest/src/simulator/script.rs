//! The language that scripts a reply: directives, and the rules that carry them from outside.
//!
//! One grammar serves both those and the markers of a message ([`super::marker`]). A marker is
//! `[[sim:directive,directive,…]]` in a user message; a rule is the same list of directives with
//! conditions. [`Directives::parse`] documents them all.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::behaviour::{Failure, Place};

/// What is wrong with a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError(String);

impl std::fmt::Display for ScriptError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScriptError {}

/// Something that happens to a stream once a number of tokens has been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// Nothing more comes; the connection stays open.
    Hang,
    /// Nothing more comes until the simulator is told to release.
    Hold,
    /// The connection is reset (RST).
    Cut,
    /// The connection is closed (FIN) in the middle of the body.
    Drop,
    /// A chunk that is not JSON, after which the stream goes on.
    Malformed,
    /// The scripted failure, as a chunk or as finish reason.
    Fail,
}

/// What happens before the answer's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeforeHeaders {
    /// Nothing: the answer never starts.
    Hang,
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed (FIN).
    Close,
}

/// A parsed list of directives. Every field left out keeps what was decided before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directives {
    /// Only for these models: an id, with `*` for any run of characters.
    pub model: Option<String>,
    /// Only for calls with this API key (or its label).
    pub key: Option<String>,
    /// Only the first so many calls.
    pub times: Option<u32>,
    /// For title requests instead of replies.
    pub title: bool,
    /// A marker that also counts when it stands in an older message.
    pub sticky: bool,

    /// Milliseconds before the headers.
    pub ttfb_ms: Option<u64>,
    /// Milliseconds from the headers to the first token.
    pub ttft_ms: Option<u64>,
    /// Tokens per second; 0 sends everything at once.
    pub rate: Option<f64>,
    /// Length of the reply in tokens.
    pub tokens: Option<u32>,
    /// Length of the reply in bytes instead.
    pub bytes: Option<usize>,
    /// Tokens per chunk.
    pub chunk: Option<u32>,
    /// Milliseconds between `: OPENROUTER PROCESSING` comments while nothing else is sent.
    pub processing_ms: Option<u64>,

    /// The failure to answer with.
    pub failure: Option<Failure>,
    /// Where the failure shows up.
    pub place: Option<Place>,
    /// After how many tokens a failure inside the stream comes.
    pub at: Option<u32>,
    /// `Retry-After` in seconds.
    pub retry_after: Option<f64>,
    /// `X-RateLimit-Reset` in seconds from now.
    pub reset: Option<f64>,
    /// `error.availability.retryable`.
    pub retryable: Option<bool>,
    /// `error.metadata.error_type`.
    pub error_type: Option<String>,
    /// `error.metadata.provider_code`.
    pub provider_code: Option<String>,
    /// The error says its code and message only.
    pub no_metadata: bool,

    /// What happens before the headers.
    pub before_headers: Option<BeforeHeaders>,
    /// What happens inside the stream, after how many tokens.
    pub incidents: Vec<(u32, Incident)>,

    /// The stream ends without a finish reason.
    pub no_finish: bool,
    /// The stream ends without `[DONE]`.
    pub no_done: bool,
    /// The finish reason instead of `stop`.
    pub finish: Option<String>,
    /// No text at all.
    pub empty: bool,
    /// The usage chunk comes twice.
    pub duplicate_usage: bool,
    /// No usage at all.
    pub no_usage: bool,
    /// The usage rides on the chunk with the finish reason.
    pub usage_with_finish: bool,
    /// The usage does not say the cost.
    pub no_cost: bool,
    /// The cost instead of the computed one.
    pub cost: Option<Decimal>,
    /// Cached prompt tokens.
    pub cached: Option<u32>,
    /// Reasoning tokens, charged on top of the text.
    pub reasoning: Option<u32>,
    /// No `X-Generation-Id` header.
    pub no_id_header: bool,
    /// Lines end with `\r\n`.
    pub crlf: bool,
    /// The body is sent in pieces of so many bytes, each in a packet of its own.
    pub split: Option<usize>,
    /// The reply's text, word for word (by rule only: commas would end it in a marker).
    pub reply: Option<String>,

    /// Embeddings come in reverse order.
    pub reverse: bool,
    /// So many embeddings are missing at the end.
    pub short: Option<u32>,
    /// Embeddings have this many dimensions, whatever was asked.
    pub dimension: Option<usize>,
}

impl Directives {
    /// Reads a comma-separated list. The directives are:
    ///
    /// | directive | meaning |
    /// |---|---|
    /// | `model=ID`, `key=KEY` | only calls for this model (`*` matches anything) or with this key |
    /// | `times=N` | only the first N calls that carry this marker in the same message (or match this rule) |
    /// | `title` | for title requests (`max_tokens` ≤ 32), which ignore every other marker |
    /// | `sticky` | a marker that also counts in an older user message; others count in the last one only |
    /// | `ttfb=MS`, `ttft=MS` | delay before the headers, and from there to the first token |
    /// | `rate=N`, `tokens=N`, `bytes=N`, `chunk=N` | tokens per second (0 = at once), length, length in bytes, tokens per chunk |
    /// | `drip=MS` | one token every MS milliseconds |
    /// | `processing` or `processing=MS` | a `: OPENROUTER PROCESSING` comment every MS (200) milliseconds of silence |
    /// | `429` or `status=429` or a name | that failure; see [`Failure::names`] |
    /// | `in=http\|chunk\|finish`, `at=N` | where the failure shows up, after how many tokens |
    /// | `retry_after=S`, `reset=S`, `retryable=BOOL`, `error_type=T`, `code=C`, `no_metadata` | what the failure says |
    /// | `hang`, `hang=body`, `hang=N` | silence before the headers, before the first token, after N tokens |
    /// | `hold=N` | silence after N tokens until released |
    /// | `reset_connection`, `close` | RST or FIN before the headers |
    /// | `cut=N`, `drop=N` | RST or FIN after N tokens |
    /// | `malformed=N` | a chunk that is not JSON after N tokens |
    /// | `no_finish`, `no_done`, `finish=REASON`, `empty` | the end of the stream |
    /// | `duplicate_usage`, `no_usage`, `usage_with_finish`, `no_cost`, `cost=D`, `cached=N`, `reasoning=N` | the usage |
    /// | `no_id_header`, `crlf`, `split` or `split=N` | the wire |
    /// | `reverse`, `short=N`, `dimension=N` | embeddings |
    ///
    /// # Errors
    /// An unknown directive or a value that does not fit; the text names it. The simulator
    /// answers such a marker with 400, so that a mistyped test fails loudly.
    pub fn parse(list: &str) -> Result<Self, ScriptError> {
        let mut directives = Self::default();
        for item in list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, value) = match item.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (item, None),
            };
            directives.set(name, value)?;
        }
        if directives.failure.is_none() && (directives.place.is_some() || directives.at.is_some()) {
            return Err(ScriptError(format!(
                "in= and at= need a failure beside them in {list:?}"
            )));
        }
        Ok(directives)
    }

    fn set(&mut self, name: &str, value: Option<&str>) -> Result<(), ScriptError> {
        match name {
            "model" => self.model = Some(text(name, value)?),
            "key" => self.key = Some(text(name, value)?),
            "times" => self.times = Some(number(name, value)?),
            "title" => flag(&mut self.title, name, value)?,
            "sticky" => flag(&mut self.sticky, name, value)?,

            "ttfb" => self.ttfb_ms = Some(number(name, value)?),
            "ttft" => self.ttft_ms = Some(number(name, value)?),
            "rate" => self.rate = Some(positive(name, value)?),
            "drip" => {
                let millis: u32 = number(name, value)?;
                self.rate = Some(1_000.0 / f64::from(millis.max(1)));
            }
            "tokens" => self.tokens = Some(number(name, value)?),
            "bytes" => self.bytes = Some(number(name, value)?),
            "chunk" => self.chunk = Some(number(name, value)?),
            "processing" => self.processing_ms = Some(number(name, value.or(Some("200")))?),

            "status" => {
                let status = text(name, value)?;
                let failure = Failure::named(&status);
                self.failure =
                    Some(failure.ok_or_else(|| bad(name, value, "a status of 400 to 599"))?);
            }
            "in" => {
                self.place = Some(match value {
                    Some("http") => Place::Http,
                    Some("chunk") => Place::Chunk,
                    Some("finish") => Place::Finish,
                    _ => return Err(bad(name, value, "http, chunk or finish")),
                });
            }
            "at" => self.at = Some(number(name, value)?),
            "retry_after" => self.retry_after = Some(positive(name, value)?),
            "reset" => self.reset = Some(positive(name, value)?),
            "retryable" => self.retryable = Some(number(name, value)?),
            "error_type" => self.error_type = Some(text(name, value)?),
            "code" => self.provider_code = Some(text(name, value)?),
            "no_metadata" => flag(&mut self.no_metadata, name, value)?,

            "hang" => match value {
                None | Some("headers") => self.before_headers = Some(BeforeHeaders::Hang),
                Some("body") => self.incidents.push((0, Incident::Hang)),
                Some(_) => self.incidents.push((number(name, value)?, Incident::Hang)),
            },
            "reset_connection" => self.before_headers = Some(BeforeHeaders::Reset),
            "close" => self.before_headers = Some(BeforeHeaders::Close),
            "hold" => self
                .incidents
                .push((number(name, value.or(Some("0")))?, Incident::Hold)),
            "cut" => self
                .incidents
                .push((number(name, value.or(Some("0")))?, Incident::Cut)),
            "drop" => self
                .incidents
                .push((number(name, value.or(Some("0")))?, Incident::Drop)),
            "malformed" => self
                .incidents
                .push((number(name, value.or(Some("0")))?, Incident::Malformed)),

            "no_finish" => flag(&mut self.no_finish, name, value)?,
            "no_done" => flag(&mut self.no_done, name, value)?,
            "finish" => self.finish = Some(value.unwrap_or_default().to_owned()),
            "empty" => flag(&mut self.empty, name, value)?,
            "duplicate_usage" => flag(&mut self.duplicate_usage, name, value)?,
            "no_usage" => flag(&mut self.no_usage, name, value)?,
            "usage_with_finish" => flag(&mut self.usage_with_finish, name, value)?,
            "no_cost" => flag(&mut self.no_cost, name, value)?,
            "cost" => self.cost = Some(number(name, value)?),
            "cached" => self.cached = Some(number(name, value)?),
            "reasoning" => self.reasoning = Some(number(name, value)?),
            "no_id_header" => flag(&mut self.no_id_header, name, value)?,
            "crlf" => flag(&mut self.crlf, name, value)?,
            "split" => self.split = Some(number::<usize>(name, value.or(Some("3")))?.max(1)),

            "reverse" => flag(&mut self.reverse, name, value)?,
            "short" => self.short = Some(number(name, value)?),
            "dimension" => self.dimension = Some(number(name, value)?),

            _ => match (Failure::named(name), value) {
                (Some(failure), None) => self.failure = Some(failure),
                _ => return Err(ScriptError(format!("unknown directive {name:?}"))),
            },
        }
        Ok(())
    }

    /// True when these directives break the call rather than shape it: at most one such timed
    /// marker acts on a call, so that `[[sim:503,times=1]] [[sim:429,times=1]]` is first the
    /// one, then the other.
    pub fn is_timed(&self) -> bool {
        self.times.is_some()
    }

    /// Adds `later` on top: what it says wins, what it leaves open stays.
    pub fn overlay(&mut self, later: Directives) {
        macro_rules! some {
            ($($field:ident),+ $(,)?) => { $( if later.$field.is_some() { self.$field = later.$field; } )+ };
        }
        macro_rules! or {
            ($($field:ident),+ $(,)?) => { $( self.$field |= later.$field; )+ };
        }
        if later.failure.is_some() {
            // What an earlier marker said about its own failure is not about this one.
            (self.retry_after, self.reset, self.retryable) = (None, None, None);
            (self.error_type, self.provider_code, self.place, self.at) = (None, None, None, None);
        }
        some!(
            ttfb_ms,
            ttft_ms,
            rate,
            tokens,
            bytes,
            chunk,
            processing_ms,
            failure,
            place,
            at,
            retry_after,
            reset,
            retryable,
            error_type,
            provider_code,
            before_headers,
            finish,
            cost,
            cached,
            reasoning,
            split,
            reply,
            short,
            dimension,
        );
        or!(
            no_metadata,
            no_finish,
            no_done,
            empty,
            duplicate_usage,
            no_usage,
            usage_with_finish,
            no_cost,
            no_id_header,
            crlf,
            reverse,
        );
        self.incidents.extend(later.incidents);
    }

    /// The failure with everything the other directives say about it.
    pub fn resolved_failure(&self) -> Option<Failure> {
        let mut failure = self.failure.clone()?;
        failure.retry_after = self.retry_after.or(failure.retry_after);
        failure.reset = self.reset.or(failure.reset);
        failure.retryable = self.retryable.or(failure.retryable);
        if let Some(error_type) = &self.error_type {
            failure.error_type.clone_from(error_type);
        }
        if self.provider_code.is_some() {
            failure.provider_code.clone_from(&self.provider_code);
        }
        failure.metadata &= !self.no_metadata;
        Some(failure)
    }

    /// True when the conditions on model and key hold for a call.
    pub fn applies_to(&self, model: &str, key: &str, key_label: &str) -> bool {
        self.model
            .as_deref()
            .is_none_or(|pattern| glob(pattern, model))
            && self
                .key
                .as_deref()
                .is_none_or(|wanted| wanted == key || wanted == key_label)
    }
}

/// A script from outside: conditions and what to do. `{"model": "*:free", "do": "429,times=3"}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Only calls for these models; `*` matches any run of characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Only calls with this API key or key label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Only calls whose last user message (or any of whose inputs) contains this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Only calls of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The reply's text, word for word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// The directives, as in a marker.
    #[serde(rename = "do")]
    pub directives: String,
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// A reply.
    Chat,
    /// A title: a chat completion with `max_tokens` ≤ 32.
    Title,
    /// Embeddings.
    Embeddings,
}

/// True when `text` matches `pattern`, in which `*` stands for any run of characters.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(earlier) = last.replace(part) {
            match rest.find(earlier) {
                Some(at) => rest = &rest[at + earlier.len()..],
                None => return false,
            }
        }
    }
    match last {
        Some(suffix) => rest.ends_with(suffix),
        None => rest.is_empty(),
    }
}

fn bad(name: &str, value: Option<&str>, wanted: &str) -> ScriptError {
    match value {
        Some(value) => ScriptError(format!("{name}={value} is not {wanted}")),
        None => ScriptError(format!("{name} needs a value: {wanted}")),
    }
}

fn text(name: &str, value: Option<&str>) -> Result<String, ScriptError> {
    value
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| bad(name, None, "some text"))
}

fn number<T: std::str::FromStr>(name: &str, value: Option<&str>) -> Result<T, ScriptError> {
    value
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| bad(name, value, std::any::type_name::<T>()))
}

fn positive(name: &str, value: Option<&str>) -> Result<f64, ScriptError> {
    let wanted = "a number of 0 or more";
    let number: f64 = number(name, value).map_err(|_| bad(name, value, wanted))?;
    if number.is_finite() && number >= 0.0 {
        Ok(number)
    } else {
        Err(bad(name, value, wanted))
    }
}

fn flag(field: &mut bool, name: &str, value: Option<&str>) -> Result<(), ScriptError> {
    match value {
        None => {
            *field = true;
            Ok(())
        }
        Some(_) => Err(ScriptError(format!("{name} takes no value"))),
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
