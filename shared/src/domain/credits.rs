//! Money in JSON: a number with all its digits, never through a float.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::value::RawValue;

/// The amount with all its digits and no others; empty while it is not known.
#[must_use]
pub fn text(cost: Option<Decimal>) -> String {
    cost.map_or_else(String::new, |cost| cost.normalize().to_string())
}

/// Writes the decimal's own digits as a JSON number, or null.
///
/// # Errors
/// Only the serialiser's own.
pub fn serialize<S: Serializer>(cost: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
    let number = cost
        .map(|cost| RawValue::from_string(cost.normalize().to_string()))
        .transpose();
    number.map_err(S::Error::custom)?.serialize(serializer)
}

/// Reads a JSON number, a string of digits, or null.
///
/// # Errors
/// When it is none of them.
pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Decimal>, D::Error> {
    let Some(raw) = Option::<Box<RawValue>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let digits = raw.get().trim_matches('"');
    let parsed = digits.parse().or_else(|_| Decimal::from_scientific(digits));
    parsed.map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Money {
        #[serde(with = "super")]
        cost: Option<Decimal>,
    }

    #[test]
    fn every_digit_survives() {
        for text in ["0.000123456789012345678901", "12", "0.1", "null"] {
            let json = format!(r#"{{"cost":{text}}}"#);
            let money: Money = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&money).unwrap(), json);
        }
        let small: Money = serde_json::from_str(r#"{"cost":1.5e-7}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&small).unwrap(),
            r#"{"cost":0.00000015}"#
        );
    }
}
