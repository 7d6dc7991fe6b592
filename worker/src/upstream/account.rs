//! What the account may still do, from `GET /key` and `GET /credits`. Servers that have neither are
//! as good: then nothing is known.

use std::time::Duration;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Client;

/// The longest answer that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// For both answers together.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the upstream says about the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Calls of free models that are left today, by UTC; none where it does not say.
    pub free_calls_left: Option<u32>,
    /// Credits bought less credits used; may be negative.
    pub credits_left: Option<Decimal>,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct KeyFacts {
    free_model_daily_requests: Option<Daily>,
}

#[derive(Deserialize)]
struct Daily {
    remaining: Option<i64>,
}

#[derive(Deserialize)]
struct Credits {
    total_credits: Box<RawValue>,
    total_usage: Box<RawValue>,
}

/// Asks the upstream.
///
/// # Errors
/// When neither answer comes; the text is for the log.
pub async fn account(client: &Client) -> Result<Account, String> {
    let both = async {
        tokio::join!(
            client.read("key", MAX_BYTES),
            client.read("credits", MAX_BYTES)
        )
    };
    let (key, credits) = tokio::time::timeout(PATIENCE, both)
        .await
        .map_err(|_| "no answer in time".to_owned())?;
    if let (Err(error), Err(_)) = (&key, &credits) {
        return Err(error.clone());
    }
    Ok(Account {
        free_calls_left: key.ok().and_then(|body| free_calls_left(&body)),
        credits_left: credits.ok().and_then(|body| credits_left(&body)),
    })
}

fn free_calls_left(body: &[u8]) -> Option<u32> {
    let key: Data<KeyFacts> = serde_json::from_slice(body).ok()?;
    let left = key.data.free_model_daily_requests?.remaining?;
    Some(u32::try_from(left.max(0)).unwrap_or(u32::MAX))
}

/// Money is read from the digits that were written, never through a float.
fn credits_left(body: &[u8]) -> Option<Decimal> {
    let credits: Data<Credits> = serde_json::from_slice(body).ok()?;
    let amount = |raw: &RawValue| {
        let text = raw.get().trim_matches('"');
        text.parse()
            .or_else(|_| Decimal::from_scientific(text))
            .ok()
    };
    let bought: Decimal = amount(&credits.data.total_credits)?;
    bought.checked_sub(amount(&credits.data.total_usage)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_to_the_last_digit() {
        let body = br#"{"data": {"total_credits": 12.5, "total_usage": "12.500000000001"}}"#;
        assert_eq!(credits_left(body).unwrap().to_string(), "-0.000000000001");
        let body = br#"{"data": {"total_credits": 1e1, "total_usage": 0}}"#;
        assert_eq!(credits_left(body), Some(Decimal::TEN));
        assert_eq!(credits_left(b"{}"), None);
    }

    #[test]
    fn a_day_may_be_over_overdrawn_or_unlimited() {
        let left = |remaining: &str| {
            let body = format!(
                r#"{{"data": {{"free_model_daily_requests": {{"remaining": {remaining}}}}}}}"#
            );
            free_calls_left(body.as_bytes())
        };
        assert_eq!(left("17"), Some(17));
        assert_eq!(left("-3"), Some(0));
        assert_eq!(left("null"), None);
        assert_eq!(free_calls_left(br#"{"data": {"label": "x"}}"#), None);
    }
}
