//! One test case per row of upstream.md's table, in the forms that real servers use.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::hints::Hints;
use super::{ErrorClass, RULES, Signal};

const NONE: Hints = Hints {
    retry_after: None,
    reset: None,
};
const RETRY_AFTER: Hints = Hints {
    retry_after: Some(Duration::from_secs(3)),
    reset: None,
};
const RESET: Hints = Hints {
    retry_after: None,
    reset: Some(Duration::from_secs(60)),
};

fn typed(name: &str) -> Value {
    json!({"message": "no", "metadata": {"error_type": name}})
}

fn limited(name: &str, source: &str) -> Value {
    json!({"message": "no", "metadata": {"error_type": name, "limit_source": source}})
}

fn says(message: &str) -> Value {
    json!({ "message": message })
}

/// Status, error object, hints about the time, what it is.
fn cases() -> Vec<(u16, Value, Hints, ErrorClass)> {
    use ErrorClass::*;
    vec![
        // 400 invalid request, 413, 422, unknown model
        (400, typed("invalid_request"), NONE, InvalidRequest),
        (400, Value::Null, NONE, InvalidRequest),
        (413, typed("payload_too_large"), NONE, InvalidRequest),
        (422, typed("unprocessable"), NONE, InvalidRequest),
        (418, Value::Null, NONE, InvalidRequest),
        (400, typed("not_found"), NONE, UnknownModel),
        (
            400,
            says("foo/bar is not a valid model ID"),
            NONE,
            UnknownModel,
        ),
        (
            404,
            json!({"code": "model_not_found", "type": "invalid_request_error"}),
            NONE,
            UnknownModel,
        ),
        // 400 context_length_exceeded
        (400, typed("context_length_exceeded"), NONE, ContextLength),
        (
            400,
            json!({"code": "context_length_exceeded", "type": "invalid_request_error"}),
            NONE,
            ContextLength,
        ),
        (
            400,
            json!({"code": 400, "type": "BadRequestError", "message": "This model's maximum context length is 8192 tokens"}),
            NONE,
            ContextLength,
        ),
        // 400/403 content policy, moderation
        (400, typed("content_policy_violation"), NONE, ContentPolicy),
        (403, typed("content_policy_violation"), NONE, ContentPolicy),
        (
            403,
            says("Input was flagged by OpenAI's moderation"),
            NONE,
            ContentPolicy,
        ),
        (
            400,
            says("triggering Azure OpenAI's content management policy"),
            NONE,
            ContentPolicy,
        ),
        (403, Value::Null, NONE, ContentPolicy),
        // 401
        (401, typed("authentication"), NONE, KeyRefused),
        (401, Value::Null, NONE, KeyRefused),
        // 402, and limits of a key
        (402, typed("payment_required"), NONE, PaymentRequired),
        (402, Value::Null, NONE, PaymentRequired),
        (
            403,
            limited("permission_denied", "openrouter_key_limit"),
            NONE,
            PaymentRequired,
        ),
        (
            403,
            says("Key limit exceeded (daily limit)"),
            NONE,
            PaymentRequired,
        ),
        (
            429,
            json!({"code": "insufficient_quota"}),
            NONE,
            PaymentRequired,
        ),
        // 402 in-flight budget exhausted
        (
            402,
            limited("payment_required", "openrouter_in_flight_budget"),
            RETRY_AFTER,
            InFlightBudget,
        ),
        (402, typed("payment_required"), RETRY_AFTER, InFlightBudget),
        // 404 no endpoints, deprecated
        (404, typed("not_found"), NONE, NoEndpoint),
        (
            404,
            says("No endpoints found matching your data policy"),
            NONE,
            NoEndpoint,
        ),
        (403, typed("permission_denied"), NONE, NoEndpoint),
        // 408, 500, 502, 504, 524, 529
        (408, Value::Null, NONE, ServerError),
        (500, typed("server"), NONE, ServerError),
        (502, typed("provider_unavailable"), NONE, ServerError),
        (504, typed("timeout"), NONE, ServerError),
        (524, Value::Null, NONE, ServerError),
        (529, typed("provider_overloaded"), NONE, ServerError),
        (520, Value::Null, NONE, ServerError),
        // 429 platform, 429 upstream capacity
        (429, typed("rate_limit_exceeded"), RESET, PlatformLimit),
        (429, typed("unmapped"), RESET, PlatformLimit),
        (429, typed("rate_limit_exceeded"), RETRY_AFTER, Capacity),
        (429, Value::Null, NONE, Capacity),
        (
            429,
            limited("rate_limit_exceeded", "openrouter_shared_capacity"),
            RESET,
            Capacity,
        ),
        // 503
        (503, typed("provider_unavailable"), NONE, Unavailable),
        (503, Value::Null, NONE, Unavailable),
    ]
}

#[test]
fn every_row_of_the_table_is_told_apart() {
    for (status, error, hints, expected) in cases() {
        let signal = Signal::read(Some(status), &error, hints);
        assert_eq!(signal.class(), expected, "{status} {error} {hints:?}");
    }
}

#[test]
fn the_same_error_inside_a_stream_is_the_same_class() {
    for (status, mut error, hints, expected) in cases() {
        if error.is_null() {
            error = json!({});
        }
        // A text in place of the code is what OpenAI sends, and then there is no number at all.
        if error["code"].is_string() {
            continue;
        }
        error["code"] = json!(status);
        assert_eq!(
            Signal::read(None, &error, hints).class(),
            expected,
            "{error} {hints:?}"
        );
        error["code"] = json!(status.to_string());
        assert_eq!(
            Signal::read(None, &error, hints).class(),
            expected,
            "{error} {hints:?}"
        );
    }
}

#[test]
fn every_rule_is_the_first_match_of_some_case() {
    let used: Vec<_> = cases()
        .into_iter()
        .filter_map(|(status, error, hints, _)| {
            let signal = Signal::read(Some(status), &error, hints);
            RULES.iter().position(|rule| signal.matches(rule))
        })
        .collect();
    let unused: Vec<_> = (0..RULES.len())
        .filter(|row| !used.contains(row))
        .map(|row| &RULES[row])
        .collect();
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn an_error_without_any_number_is_the_upstreams_fault() {
    for error in [
        json!("overloaded"),
        json!({}),
        json!({"code": "weird"}),
        json!({"code": 1e9}),
        json!([1]),
    ] {
        assert_eq!(
            Signal::read(None, &error, NONE).class(),
            ErrorClass::ServerError,
            "{error}"
        );
    }
}

#[test]
fn a_detail_never_quotes_refused_content_and_stays_short() {
    let refused = json!({"message": "you wrote: secret", "metadata": {"error_type": "content_policy_violation"}});
    let error = super::CallError::from(Signal::read(Some(403), &refused, NONE));
    assert_eq!(error.detail, "upstream said 403 content_policy_violation");
    let long = super::CallError::from(Signal::read(Some(500), &says(&"x\n".repeat(9_999)), NONE));
    assert!(long.detail.len() < 300);
    assert!(!long.detail.contains('\n'));
}

#[test]
fn every_class_has_one_name_in_json_and_in_logs() {
    for class in ErrorClass::ALL {
        assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
    }
}
