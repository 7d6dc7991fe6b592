//! The failures an upstream can answer with: the rows of the classification table as data.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::clock;

/// Where an error shows up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// As HTTP status before anything of the reply.
    #[default]
    Http,
    /// As a chunk with a top-level `error` inside a 200 stream.
    Chunk,
    /// As `finish_reason: "error"` of the choice inside a 200 body, without a top-level error.
    Finish,
}

/// One way the upstream refuses or breaks, with everything it says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// HTTP status, and `error.code` in the body.
    pub status: u16,
    /// `error.message`.
    pub message: String,
    /// `error.metadata.error_type`, a value of OpenRouter's open enum.
    pub error_type: String,
    /// `error.metadata.provider_code`, where a provider said no.
    pub provider_code: Option<String>,
    /// `error.metadata.limit_source`, which tells the kinds of 402 apart.
    pub limit_source: Option<String>,
    /// `error.availability.retryable`.
    pub retryable: Option<bool>,
    /// Seconds for `Retry-After` and `error.availability.retry_after`.
    pub retry_after: Option<f64>,
    /// Seconds from now for `X-RateLimit-Reset`; its presence marks a limit of the platform.
    pub reset: Option<f64>,
    /// False leaves out metadata and availability: only the code and the message remain.
    pub metadata: bool,
}

/// A named failure: name, status, message, error type, provider code, limit source, retryable,
/// retry after, reset.
type Row = (
    &'static str,
    u16,
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<bool>,
    Option<f64>,
    Option<f64>,
);

/// Every failure with a name. The status codes of upstream.md are names too, and stand for the
/// most common meaning of that status.
const ROWS: &[Row] = &[
    (
        "400",
        400,
        "Invalid request: messages[0].content is malformed",
        "invalid_request",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "context_length",
        400,
        "This endpoint's maximum context length is exceeded. Please reduce the length of the messages.",
        "context_length_exceeded",
        Some("context_length_exceeded"),
        None,
        Some(false),
        None,
        None,
    ),
    (
        "unknown_model",
        400,
        "The requested model is not a valid model ID",
        "not_found",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "content_policy",
        400,
        "The request was rejected by the provider's content policy",
        "content_policy_violation",
        Some("content_policy_violation"),
        None,
        Some(false),
        None,
        None,
    ),
    (
        "401",
        401,
        "User not found.",
        "authentication",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "402",
        402,
        "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
        "payment_required",
        None,
        Some("openrouter_credits"),
        Some(false),
        None,
        None,
    ),
    (
        "in_flight_budget",
        402,
        "In-flight budget exhausted. Wait for running requests to settle.",
        "payment_required",
        None,
        Some("openrouter_in_flight_budget"),
        Some(true),
        Some(1.0),
        None,
    ),
    (
        "403",
        403,
        "The input was flagged by moderation",
        "content_policy_violation",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "moderation",
        403,
        "The input was flagged by moderation",
        "content_policy_violation",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "key_limit",
        403,
        "Key limit exceeded",
        "permission_denied",
        None,
        Some("openrouter_key_limit"),
        Some(false),
        None,
        None,
    ),
    (
        "404",
        404,
        "No endpoints found for this model",
        "not_found",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "deprecated",
        404,
        "This model has been deprecated",
        "not_found",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "408",
        408,
        "The request timed out",
        "timeout",
        None,
        None,
        Some(true),
        None,
        None,
    ),
    (
        "413",
        413,
        "The request is too large",
        "payload_too_large",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "422",
        422,
        "The request could not be processed",
        "unprocessable",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "429",
        429,
        "Rate limit exceeded: free-models-per-min. ",
        "rate_limit_exceeded",
        None,
        Some("openrouter_free_models_per_min"),
        Some(true),
        None,
        Some(60.0),
    ),
    (
        "429_upstream",
        429,
        "Provider returned error",
        "rate_limit_exceeded",
        Some("rate_limited_upstream"),
        None,
        Some(true),
        Some(2.0),
        None,
    ),
    (
        "500",
        500,
        "Internal Server Error",
        "server",
        None,
        None,
        Some(true),
        None,
        None,
    ),
    (
        "502",
        502,
        "Provider returned error",
        "provider_unavailable",
        Some("bad_gateway"),
        None,
        Some(true),
        None,
        None,
    ),
    (
        "503",
        503,
        "There is no available model provider that meets your routing requirements",
        "provider_unavailable",
        None,
        None,
        Some(false),
        None,
        None,
    ),
    (
        "503_retryable",
        503,
        "The provider is temporarily overloaded",
        "provider_overloaded",
        Some("overloaded"),
        None,
        Some(true),
        Some(1.0),
        None,
    ),
    (
        "504",
        504,
        "The provider timed out",
        "timeout",
        Some("gateway_timeout"),
        None,
        Some(true),
        None,
        None,
    ),
    (
        "524",
        524,
        "A timeout occurred",
        "timeout",
        None,
        None,
        Some(true),
        None,
        None,
    ),
    (
        "529",
        529,
        "The provider is overloaded",
        "provider_overloaded",
        Some("overloaded_error"),
        None,
        Some(true),
        None,
        None,
    ),
];

impl Failure {
    /// The failure called `name`, or a bare one for any other status of 400 to 599.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(row) = ROWS.iter().find(|row| row.0 == name) {
            let &(
                _,
                status,
                message,
                error_type,
                provider_code,
                limit_source,
                retryable,
                retry_after,
                reset,
            ) = row;
            return Some(Self {
                status,
                message: message.to_owned(),
                error_type: error_type.to_owned(),
                provider_code: provider_code.map(str::to_owned),
                limit_source: limit_source.map(str::to_owned),
                retryable,
                retry_after,
                reset,
                metadata: true,
            });
        }
        let status = name
            .parse()
            .ok()
            .filter(|status| (400..600).contains(status))?;
        Some(Self {
            status,
            message: format!("Upstream answered {status}"),
            error_type: "unmapped".to_owned(),
            provider_code: None,
            limit_source: None,
            retryable: None,
            retry_after: None,
            reset: None,
            metadata: true,
        })
    }

    /// The names that [`Failure::named`] knows besides plain status codes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ROWS.iter().map(|row| row.0)
    }

    /// The status code; an impossible one becomes 500.
    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The headers this failure carries when it is an HTTP status.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        if let Some(seconds) = self.retry_after {
            headers.push(("retry-after", seconds_text(seconds)));
        }
        if let Some(seconds) = self.reset {
            headers.push(("x-ratelimit-limit", "20".to_owned()));
            headers.push(("x-ratelimit-remaining", "0".to_owned()));
            headers.push(("x-ratelimit-reset", reset_millis(seconds).to_string()));
        }
        headers
    }

    /// The `error` object.
    pub fn error(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), json!(self.status));
        error.insert("message".into(), json!(self.message));
        if !self.metadata {
            return Value::Object(error);
        }
        let mut metadata = Map::new();
        metadata.insert("error_type".into(), json!(self.error_type));
        if let Some(code) = &self.provider_code {
            metadata.insert("provider_code".into(), json!(code));
            metadata.insert("provider_name".into(), json!(super::catalogue::PROVIDER));
        }
        if let Some(source) = &self.limit_source {
            metadata.insert("limit_source".into(), json!(source));
        }
        if let Some(seconds) = self.reset {
            metadata.insert(
                "headers".into(),
                json!({"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset_millis(seconds).to_string()}),
            );
        }
        if self.error_type == "content_policy_violation" {
            metadata.insert("reasons".into(), json!(["simulated"]));
            metadata.insert("flagged_input".into(), json!("…"));
        }
        error.insert("metadata".into(), Value::Object(metadata));
        if self.retryable.is_some() || self.retry_after.is_some() {
            error.insert(
                "availability".into(),
                json!({"retryable": self.retryable.unwrap_or(false), "retry_after": self.retry_after}),
            );
        }
        Value::Object(error)
    }

    /// The whole body of the HTTP answer.
    pub fn body(&self) -> Value {
        json!({"error": self.error(), "user_id": "user_simulator"})
    }
}

/// Milliseconds since the epoch `seconds` from now, as `X-RateLimit-Reset` gives them.
fn reset_millis(seconds: f64) -> u64 {
    (clock::unix_micros() / 1_000).saturating_add(
        std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9)).as_millis() as u64,
    )
}

fn seconds_text(seconds: f64) -> String {
    // A whole number where it is one: the header's grammar knows no fractions, but a test may
    // want to see how a client copes with one.
    if seconds.fract() == 0.0 {
        format!("{seconds:.0}")
    } else {
        seconds.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_well_formed() {
        for name in Failure::names() {
            let failure = Failure::named(name).unwrap();
            assert_eq!(failure.status_code().as_u16(), failure.status, "{name}");
            assert_eq!(failure.body()["error"]["code"], failure.status, "{name}");
            assert!(
                failure.body()["error"]["metadata"]["error_type"].is_string(),
                "{name}"
            );
        }
    }

    #[test]
    fn any_error_status_works() {
        assert_eq!(Failure::named("418").unwrap().status, 418);
        assert!(Failure::named("200").is_none());
        assert!(Failure::named("nonsense").is_none());
    }
}
