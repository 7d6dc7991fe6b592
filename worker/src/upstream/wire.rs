//! What comes back. Nothing is required: servers leave fields out, send null, numbers as text, or
//! fields of their own.

use std::borrow::Cow;
use std::fmt;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::TokenUsage;

/// One event of a stream, or the whole body of an answer that is not streamed.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Lenient<'a>>,
    #[serde(borrow, default)]
    pub(super) model: Option<Lenient<'a>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Value>,
}

/// The reply; only the first one is ever asked for.
#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    /// In place of `delta` when the answer is not streamed.
    #[serde(borrow, default)]
    message: Option<Delta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Lenient<'a>>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Lenient<'a>>,
    #[serde(borrow, default)]
    reasoning: Option<Lenient<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Lenient<'a>>,
}

impl<'a> Chunk<'a> {
    /// The error, at the top or inside the choice.
    pub(super) fn error(&self) -> Option<&Value> {
        self.error
            .as_ref()
            .or_else(|| self.choice()?.error.as_ref())
    }

    /// The new text of the reply.
    pub(super) fn text(&self) -> &str {
        self.delta()
            .and_then(|delta| delta.content.as_ref())
            .map_or("", |text| &text.0)
    }

    /// Whether the model gave a sign of working, by text or by reasoning.
    pub(super) fn has_token(&self) -> bool {
        self.delta().is_some_and(|delta| {
            [&delta.content, &delta.reasoning, &delta.reasoning_content]
                .into_iter()
                .flatten()
                .any(|text| !text.0.is_empty())
        })
    }

    /// Why the reply ended, once it has.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        let reason = self.choice()?.finish_reason.as_ref()?;
        Some(&*reason.0).filter(|reason| !reason.is_empty())
    }

    fn delta(&self) -> Option<&Delta<'a>> {
        let choice = self.choice()?;
        choice.delta.as_ref().or(choice.message.as_ref())
    }

    fn choice(&self) -> Option<&Choice<'a>> {
        self.choices.as_ref()?.first()
    }
}

/// Text, or whatever a server sends in its place: a number becomes its digits, a list of parts
/// their texts, anything else the empty text.
#[derive(Debug, Default)]
pub(super) struct Lenient<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Lenient<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor)
    }
}

struct LenientVisitor;

impl<'de> Visitor<'de> for LenientVisitor {
    type Value = Lenient<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Lenient(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Lenient(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Lenient(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Lenient(Cow::Owned(number.to_string())))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let mut all = String::new();
        while let Some(part) = parts.next_element::<Lenient<'de>>()? {
            all.push_str(&part.0);
        }
        Ok(Lenient(Cow::Owned(all)))
    }

    /// A part `{"type": "text", "text": …}`.
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut text = Lenient::default();
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            if name == "text" {
                text = fields.next_value()?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(text)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawUsage<'a> {
    #[serde(borrow)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    total_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_tokens_details: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens_details: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDetails<'a> {
    #[serde(borrow)]
    cached_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_tokens: Option<&'a RawValue>,
}

/// The longest usage object worth keeping, in bytes.
const MAX_RAW_USAGE: usize = 16 * 1024;

/// Reads a usage object; `None` when it is not even an object. Money is read from the digits the
/// upstream wrote, never through a float.
pub(super) fn usage(raw: &RawValue, free_model: bool) -> Option<TokenUsage> {
    if !raw.get().starts_with('{') {
        return None;
    }
    let fields: RawUsage<'_> = serde_json::from_str(raw.get()).ok()?;
    let details = |raw: Option<&RawValue>| -> (u32, u32) {
        let details: Option<RawDetails<'_>> =
            raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let details = details.unwrap_or_default();
        (
            count(details.cached_tokens),
            count(details.reasoning_tokens),
        )
    };
    let prompt_tokens = count(fields.prompt_tokens);
    let completion_tokens = count(fields.completion_tokens);
    let (cached_tokens, _) = details(fields.prompt_tokens_details);
    let (_, reasoning_tokens) = details(fields.completion_tokens_details);
    let sum = prompt_tokens
        .saturating_add(completion_tokens)
        .min(MAX_COUNT);
    // Nothing comes free of charge but free models, cache hits and replies that never began.
    let may_be_zero = free_model || cached_tokens > 0 || completion_tokens == 0;
    let cost = money(fields.cost).filter(|cost| !cost.is_zero() || may_be_zero);
    // Postgres cannot store NUL, which JSON writes like this.
    let storable = raw.get().len() <= MAX_RAW_USAGE && !raw.get().contains("\\u0000");
    Some(TokenUsage {
        prompt_tokens,
        completion_tokens,
        total_tokens: Some(count(fields.total_tokens))
            .filter(|total| *total > 0)
            .unwrap_or(sum),
        cached_tokens: cached_tokens.min(prompt_tokens),
        reasoning_tokens: reasoning_tokens.min(completion_tokens),
        cost,
        raw: storable.then(|| raw.to_owned()),
    })
}

/// The ledger keeps counts as 32-bit signed integers.
const MAX_COUNT: u32 = i32::MAX as u32;

fn digits(raw: &RawValue) -> &str {
    raw.get().trim_matches('"').trim()
}

pub(super) fn count(raw: Option<&RawValue>) -> u32 {
    let number: f64 = raw.and_then(|raw| digits(raw).parse().ok()).unwrap_or(0.0);
    // A cast saturates, and turns what is not a number into 0.
    (number as u32).min(MAX_COUNT)
}

pub(super) fn money(raw: Option<&RawValue>) -> Option<Decimal> {
    let text = digits(raw?);
    let exponent = text.contains(['e', 'E']);
    let amount = if exponent {
        Decimal::from_scientific(text)
    } else {
        text.parse()
    };
    amount
        .ok()
        .filter(|amount| !amount.is_sign_negative() || amount.is_zero())
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
