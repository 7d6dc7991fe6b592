//! What can go wrong with a call, and how it is told apart.
//!
//! An error shows up in one of three places: as an HTTP status, as a chunk with an `error` inside
//! a 200 stream, or as a choice that ends with `finish_reason: "error"`. All three become a
//! `Signal` and go through the same table, `RULES`.

use serde::Serialize;
use serde_json::Value;

use super::hints::Hints;
use super::rules::{Needs, RULES, Rule};

/// The kinds of failure that are handled differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The upstream calls the request malformed: our bug.
    InvalidRequest,
    /// There is no model of this name.
    UnknownModel,
    /// The prompt does not fit the model's window.
    ContextLength,
    /// The content was refused by a policy.
    ContentPolicy,
    /// The key is not accepted.
    KeyRefused,
    /// There is no credit left for this model.
    PaymentRequired,
    /// The credit is held by calls that are still running.
    InFlightBudget,
    /// Nobody serves the model (to this account).
    NoEndpoint,
    /// The upstream or a provider broke.
    ServerError,
    /// The account's own request limit.
    PlatformLimit,
    /// A provider is at its capacity.
    Capacity,
    /// No provider is available right now.
    Unavailable,
    /// The reply ended regularly and has no text.
    EmptyAnswer,
    /// The connection could not be made or broke, or the stream ended early.
    Connection,
    /// What came is not what was agreed on.
    Malformed,
    /// Nothing, or not enough, came in time.
    Timeout,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: &'static [Self] = &[
        Self::InvalidRequest,
        Self::UnknownModel,
        Self::ContextLength,
        Self::ContentPolicy,
        Self::KeyRefused,
        Self::PaymentRequired,
        Self::InFlightBudget,
        Self::NoEndpoint,
        Self::ServerError,
        Self::PlatformLimit,
        Self::Capacity,
        Self::Unavailable,
        Self::EmptyAnswer,
        Self::Connection,
        Self::Malformed,
        Self::Timeout,
    ];

    /// The stable name, for events, the ledger and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownModel => "unknown_model",
            Self::ContextLength => "context_length",
            Self::ContentPolicy => "content_policy",
            Self::KeyRefused => "key_refused",
            Self::PaymentRequired => "payment_required",
            Self::InFlightBudget => "in_flight_budget",
            Self::NoEndpoint => "no_endpoint",
            Self::ServerError => "server_error",
            Self::PlatformLimit => "platform_limit",
            Self::Capacity => "capacity",
            Self::Unavailable => "unavailable",
            Self::EmptyAnswer => "empty_answer",
            Self::Connection => "connection",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
        }
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the upstream says about an error, wherever it says it.
#[derive(Debug, Default)]
pub(super) struct Signal {
    code: Option<u16>,
    names: Vec<String>,
    limit: String,
    message: String,
    pub(super) retryable: Option<bool>,
    pub(super) hints: Hints,
}

impl Signal {
    /// Reads an error object. `status` is the HTTP status if it is an error itself.
    pub(super) fn read(status: Option<u16>, error: &Value, hints: Hints) -> Self {
        let text = |path: &str| error.pointer(path).and_then(Value::as_str);
        let names: Vec<String> =
            match text("/metadata/error_type").filter(|name| *name != "unmapped") {
                Some(name) => vec![name.to_ascii_lowercase()],
                None => {
                    let names = ["/code", "/type"].iter().filter_map(|path| text(path));
                    // A number sent as text is the code, not a name.
                    names
                        .filter(|name| name.parse::<u16>().is_err())
                        .map(str::to_ascii_lowercase)
                        .collect()
                }
            };
        let code = status.or_else(|| {
            let code = error.get("code")?;
            code.as_u64()
                .or_else(|| code.as_str()?.parse().ok())?
                .try_into()
                .ok()
        });
        // Some servers send a bare string, others put the text under another name.
        let message = error
            .as_str()
            .or_else(|| text("/message"))
            .or_else(|| text("/detail"))
            .unwrap_or_default();
        Self {
            code,
            names,
            limit: text("/metadata/limit_source")
                .unwrap_or_default()
                .to_ascii_lowercase(),
            message: message.to_owned(),
            retryable: error
                .pointer("/availability/retryable")
                .and_then(Value::as_bool),
            hints,
        }
    }

    fn matches(&self, rule: &Rule) -> bool {
        let named = |name: &&str| match *name {
            "" => self.names.is_empty(),
            name => self.names.iter().any(|own| own == name),
        };
        let message = || self.message.to_lowercase();
        (rule.codes.is_empty() || self.code.is_some_and(|code| rule.codes.contains(&code)))
            && (rule.names.is_empty() || rule.names.iter().any(named))
            && (rule.limits.is_empty() || rule.limits.iter().any(|part| self.limit.contains(part)))
            && match rule.needs {
                Needs::Nothing => true,
                Needs::RetryAfter => self.hints.retry_after.is_some(),
                Needs::Reset => self.hints.reset.is_some(),
            }
            && (rule.message.is_empty() || rule.message.iter().any(|part| message().contains(part)))
    }

    /// The class by the first row that matches. A 4xx that no row knows is a request they do not
    /// want; whatever else no row knows is the upstream's fault.
    pub(super) fn class(&self) -> ErrorClass {
        let row = RULES.iter().find(|rule| self.matches(rule));
        row.map_or_else(
            || match self.code {
                Some(400..=499) => ErrorClass::InvalidRequest,
                _ => ErrorClass::ServerError,
            },
            |rule| rule.class,
        )
    }
}

/// Why a call made no reply.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) class: ErrorClass,
    /// For the log; no content, no keys.
    pub(super) detail: String,
    pub(super) retryable: Option<bool>,
    pub(super) hints: Hints,
}

impl CallError {
    /// An error that the upstream did not report itself.
    pub(super) fn of(class: ErrorClass, detail: impl Into<String>) -> Self {
        Self {
            class,
            detail: detail.into(),
            retryable: None,
            hints: Hints::default(),
        }
    }
}

impl From<Signal> for CallError {
    fn from(signal: Signal) -> Self {
        let class = signal.class();
        let mut detail = match signal.code {
            Some(code) => format!("upstream said {code}"),
            None => "upstream reported an error".to_owned(),
        };
        for name in &signal.names {
            detail.push(' ');
            detail.extend(name.chars().take(60));
        }
        // A policy's message may quote what the person wrote, and content is never logged.
        if class != ErrorClass::ContentPolicy && !signal.message.is_empty() {
            detail.push_str(": ");
            detail.extend(
                signal
                    .message
                    .chars()
                    .filter(|character| !character.is_control())
                    .take(200),
            );
        }
        Self {
            class,
            detail,
            retryable: signal.retryable,
            hints: signal.hints,
        }
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
