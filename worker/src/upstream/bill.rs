//! What a call really cost, from `GET /generation?id=`. The upstream knows a moment after the end of the
//! call; servers that are not OpenRouter know nothing.

use std::time::Duration;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Client;
use super::client::endpoint;
use super::wire::{count, money};

/// The longest answer that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the upstream charged for a call that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Credits, as the upstream wrote them. Zero means zero here: nothing more will be added.
    pub cost: Decimal,
    /// Tokens read.
    pub prompt_tokens: u32,
    /// Tokens written.
    pub completion_tokens: u32,
    /// The model that served, if the upstream says so.
    pub model: Option<String>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    total_cost: Option<&'a RawValue>,
    #[serde(borrow, default)]
    native_tokens_prompt: Option<&'a RawValue>,
    #[serde(borrow, default)]
    native_tokens_completion: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tokens_prompt: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tokens_completion: Option<&'a RawValue>,
    #[serde(default)]
    model: Option<String>,
}

/// Asks what the call with this id of the upstream cost, with the key that made it: another account may not
/// know of it. None while the upstream does not know.
///
/// # Errors
/// When there is no answer that could be read; the text is for the log.
pub async fn bill(client: &Client, upstream_id: &str, key: &str) -> Result<Option<Bill>, String> {
    let mut url = endpoint(&client.config().base_url, "generation");
    url.query_pairs_mut().append_pair("id", upstream_id);
    let (status, body) = tokio::time::timeout(PATIENCE, client.get(url, Some(key), MAX_BYTES))
        .await
        .map_err(|_| "no answer in time".to_owned())??;
    match status.as_u16() {
        404 => Ok(None),
        200..=299 => read(&body).map(Some),
        other => Err(format!("upstream answered {other}")),
    }
}

fn read(body: &[u8]) -> Result<Bill, String> {
    let unreadable = || "the answer names no cost".to_owned();
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let data = answer.data;
    Ok(Bill {
        cost: money(data.total_cost).ok_or_else(unreadable)?,
        prompt_tokens: count(data.native_tokens_prompt.or(data.tokens_prompt)),
        completion_tokens: count(data.native_tokens_completion.or(data.tokens_completion)),
        model: data
            .model
            .filter(|model| !model.is_empty() && model.len() <= 200 && !model.contains('\0')),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_read_to_the_last_digit() {
        let body = br#"{"data": {"total_cost": 1.234567890123e-5, "native_tokens_prompt": 7,
                       "native_tokens_completion": null, "tokens_completion": 3, "model": "a/b"}}"#;
        let bill = read(body).unwrap();
        assert_eq!(bill.cost.to_string(), "0.00001234567890123");
        assert_eq!((bill.prompt_tokens, bill.completion_tokens), (7, 3));
        assert_eq!(bill.model.as_deref(), Some("a/b"));
    }

    #[test]
    fn a_bill_without_a_cost_is_none() {
        for body in [
            &br#"{"data": {}}"#[..],
            br#"{"data": {"total_cost": null}}"#,
            br#"{"data": {"total_cost": -1}}"#,
            b"<html>",
        ] {
            read(body).unwrap_err();
        }
    }
}
