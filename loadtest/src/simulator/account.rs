//! What the gateway tells about models, keys, credits and past calls.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{self, Caller};
use super::behaviour::Failure;
use super::catalogue;
use super::connection::{Break, Handle};
use super::records::{Outcome, generation_json};
use super::rules::Subject;
use super::script::BeforeHeaders;
use crate::clock;

/// Lets the rules that are not about one model act on these endpoints too: a dead key is dead
/// everywhere, and an outage takes all of it.
pub(crate) async fn scripted(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Handle>,
    request: Request,
    next: Next,
) -> Response {
    let caller = Caller::of(request.headers());
    if caller.key.is_empty() && shared.settings().require_key {
        return answer::failure(&answer::no_key());
    }
    let subject = Subject {
        endpoint: None,
        model: "",
        key: &caller.key,
        key_label: &caller.label,
        messages: &[],
    };
    let directives = match shared.decide(subject) {
        Ok(decision) => decision.directives,
        Err(error) => return answer::failure(&answer::invalid(format!("simulator: {error}"))),
    };
    match directives.before_headers {
        Some(BeforeHeaders::Hang) => std::future::pending().await,
        Some(BeforeHeaders::Reset) => connection.break_now(Break::Reset),
        Some(BeforeHeaders::Close) => connection.break_now(Break::Close),
        None => {}
    }
    answer::pause(directives.ttfb_ms.unwrap_or(0)).await;
    match directives.resolved_failure() {
        Some(failure) => answer::failure(&failure),
        None => next.run(request).await,
    }
}

/// `GET /models`.
pub(crate) async fn models() -> Json<Value> {
    Json(catalogue::listing())
}

/// `GET /key`.
pub(crate) async fn key(
    State(shared): State<Arc<Shared>>,
    headers: http::HeaderMap,
) -> Json<Value> {
    let caller = Caller::of(&headers);
    let settings = shared.settings();
    let stats = shared.books.stats();
    let usage = stats
        .by_key
        .get(&caller.label)
        .map_or(Decimal::ZERO, |sums| sums.cost);
    let used = shared.free_calls();
    let limit = if settings.free_per_day > 0 {
        json!(settings.free_per_day)
    } else {
        Value::Null
    };
    let remaining = if settings.free_per_day > 0 {
        json!(settings.free_per_day.saturating_sub(used))
    } else {
        Value::Null
    };
    Json(json!({"data": {
        "label": caller.label,
        "usage": number(usage),
        "limit": null,
        "limit_remaining": null,
        "is_free_tier": settings.credits.is_zero(),
        "is_provisioning_key": false,
        "rate_limit": {"requests": -1, "interval": "10s", "note": "deprecated"},
        "free_model_daily_requests": {"used": used, "limit": limit, "remaining": remaining},
    }}))
}

/// `GET /credits`.
pub(crate) async fn credits(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let total = shared.settings().credits;
    let used = shared.books.stats().total.cost;
    Json(json!({"data": {"total_credits": number(total), "total_usage": number(used)}}))
}

/// The query of `GET /generation`.
#[derive(Debug, Deserialize)]
pub(crate) struct GenerationQuery {
    id: String,
}

/// `GET /generation?id=`: what a call that has ended really cost.
pub(crate) async fn generation(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<GenerationQuery>,
) -> Response {
    let lag = shared.settings().generation_lag_ms.saturating_mul(1_000);
    let record = shared.books.find(&query.id).filter(|record| {
        record.outcome != Outcome::InProgress
            && record
                .ended_us
                .is_some_and(|ended| ended.saturating_add(lag) <= clock::unix_micros())
    });
    match record {
        Some(record) => Json(generation_json(&record)).into_response(),
        None => {
            let mut failure = Failure {
                status: 404,
                ..answer::invalid(format!("Generation {} not found", query.id))
            };
            "not_found".clone_into(&mut failure.error_type);
            answer::failure(&failure)
        }
    }
}

/// A decimal as a JSON number.
fn number(value: Decimal) -> Value {
    serde_json::from_str(&value.normalize().to_string()).unwrap_or(Value::Null)
}
