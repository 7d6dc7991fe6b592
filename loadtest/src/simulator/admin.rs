//! `/sim/*`: scripts, the call log, the totals, and the settings, for whoever is not in-process.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Duration;

use super::Shared;
use super::records::{CallRecord, Outcome, Stats};
use super::script::Rule;
use super::settings::Settings;

/// The admin routes.
pub(crate) fn router() -> axum::Router<Arc<Shared>> {
    axum::Router::new()
        .route(
            "/script",
            post(add_rule).get(list_rules).delete(clear_rules),
        )
        .route("/script/{id}", delete(remove_rule))
        .route("/calls", get(calls).delete(clear_calls))
        .route("/stats", get(stats))
        .route("/settings", get(settings).patch(change_settings))
        .route("/release", post(release))
        .route("/dark", post(dark))
}

/// The longest time the simulator goes dark on one request, in milliseconds.
const LONGEST_DARK_MS: u64 = 3_600_000;

async fn add_rule(State(shared): State<Arc<Shared>>, Json(rule): Json<Rule>) -> Response {
    match shared.rules().add(rule) {
        Ok(id) => (StatusCode::CREATED, Json(json!({"id": id}))).into_response(),
        Err(error) => (
            StatusCode::BAD_REQUEST,
            Json(json!({"error": error.to_string()})),
        )
            .into_response(),
    }
}

async fn list_rules(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let rules = shared.rules().list();
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|(id, rule, used)| json!({"id": id, "rule": rule, "used": used}))
        .collect();
    Json(json!({"rules": rules}))
}

async fn clear_rules(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.rules().clear();
    StatusCode::NO_CONTENT
}

async fn remove_rule(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> StatusCode {
    if shared.rules().remove(id) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

/// Which calls to show. Everything given must hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallsQuery {
    /// Part of the last user message.
    contains: Option<String>,
    model: Option<String>,
    session_id: Option<String>,
    user: Option<String>,
    key: Option<String>,
    outcome: Option<Outcome>,
    /// Only calls after this running number.
    after: Option<u64>,
    /// The newest so many of them (default 1,000).
    limit: Option<usize>,
}

impl CallsQuery {
    fn wants(&self, call: &CallRecord) -> bool {
        let same = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        self.contains
            .as_deref()
            .is_none_or(|part| call.last_user_message.contains(part))
            && same(&self.model, Some(&call.model))
            && same(&self.session_id, call.session_id.as_deref())
            && same(&self.user, call.user.as_deref())
            && same(&self.key, Some(&call.key))
            && self.outcome.is_none_or(|outcome| outcome == call.outcome)
            && self.after.is_none_or(|after| call.seq > after)
    }
}

async fn calls(State(shared): State<Arc<Shared>>, Query(query): Query<CallsQuery>) -> Json<Value> {
    let mut calls = shared.books.records(|call| query.wants(call));
    let total = calls.len();
    let surplus = total.saturating_sub(query.limit.unwrap_or(1_000));
    calls.drain(..surplus);
    Json(json!({"total": total, "calls": calls}))
}

async fn clear_calls(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.books.clear();
    StatusCode::NO_CONTENT
}

async fn stats(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(shared.books.stats())
}

async fn settings(State(shared): State<Arc<Shared>>) -> Json<Settings> {
    Json(shared.settings())
}

/// Changes the settings that the body names and keeps the others.
async fn change_settings(State(shared): State<Arc<Shared>>, Json(change): Json<Value>) -> Response {
    let mut all = json!(shared.settings());
    let (Some(all_fields), Value::Object(fields)) = (all.as_object_mut(), change) else {
        return (
            StatusCode::BAD_REQUEST,
            Json(json!({"error": "an object of settings is needed"})),
        )
            .into_response();
    };
    all_fields.extend(fields);
    match serde_json::from_value::<Settings>(all) {
        Ok(settings) => {
            shared.set_settings(settings.clone());
            Json(settings).into_response()
        }
        Err(error) => (
            StatusCode::BAD_REQUEST,
            Json(json!({"error": error.to_string()})),
        )
            .into_response(),
    }
}

async fn release(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.release();
    StatusCode::NO_CONTENT
}

/// For how long to be gone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dark {
    ms: u64,
}

/// Cuts all connections and refuses new ones for a while. The answer to this very request is
/// lost with the others when it is slow.
async fn dark(State(shared): State<Arc<Shared>>, Json(Dark { ms }): Json<Dark>) -> StatusCode {
    crate::task::spawn(async move {
        // The answer leaves first.
        tokio::time::sleep(Duration::from_millis(20)).await;
        shared.set_dark(true);
        tokio::time::sleep(Duration::from_millis(ms.min(LONGEST_DARK_MS))).await;
        shared.set_dark(false);
    });
    StatusCode::ACCEPTED
}
