//! Signs of life, for people, load balancers and Prometheus.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::app::AppState;
use crate::error::{AsIs, Code, Problem, Result};
use crate::extract::Query;

/// How long a dependency may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: Status,
    #[schema(example = "balas-api")]
    service: &'static str,
    version: &'static str,
    #[serde(with = "shared::domain::timestamp")]
    timestamp: OffsetDateTime,
    dependencies: BTreeMap<&'static str, Dependency>,
}

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It is.
    Healthy,
    /// A dependency does not answer.
    Degraded,
}

/// How one dependency is.
#[derive(Debug, Serialize, ToSchema)]
struct Dependency {
    status: Status,
    latency_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How deep to look.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HealthQuery {
    /// Also ask the upstream.
    #[serde(default)]
    #[param(required = false)]
    full: bool,
}

/// How the service and what it depends on are.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "operations", params(HealthQuery),
    responses((status = 200, body = Health), (status = 503, body = Health))
)]
pub(super) async fn health(
    State(app): State<AppState>,
    Query(query): Query<HealthQuery>,
) -> Response {
    let upstream = async {
        match (&app.gate.config.upstream_base_url, query.full) {
            (Some(url), true) => Some(probe(ask_upstream(&app, url)).await),
            _ => None,
        }
    };
    let (database, redis, upstream) =
        tokio::join!(probe(app.db.ping()), probe(app.redis.ping()), upstream);
    let mut dependencies = BTreeMap::from([("database", database), ("redis", redis)]);
    dependencies.extend(upstream.map(|upstream| ("upstream", upstream)));
    report(&app, dependencies)
}

/// Whether the process runs.
#[utoipa::path(get, path = "/health/live", operation_id = "liveness", tag = "operations", responses((status = 200, body = Health)))]
pub(super) async fn live(State(app): State<AppState>) -> Response {
    report(&app, BTreeMap::new())
}

/// Whether the process should get requests: the database answers and no stop was asked for. Redis
/// may be away: everything but the live push works without it.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "readiness", tag = "operations",
    responses((status = 200, body = Health), (status = 503, body = Health))
)]
pub(super) async fn ready(State(app): State<AppState>) -> Response {
    let running = async {
        if app.lifecycle.stopping().is_cancelled() {
            Err("stopping")
        } else {
            Ok(())
        }
    };
    let (database, process) = tokio::join!(probe(app.db.ping()), probe(running));
    report(
        &app,
        BTreeMap::from([("database", database), ("process", process)]),
    )
}

/// All measurements, in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain"), (status = 404, description = "route_not_found"))
)]
pub(super) async fn metrics(State(app): State<AppState>) -> Result<Response> {
    if !app.gate.config.enable_metrics {
        return Err(Problem::of(Code::RouteNotFound));
    }
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, shared::metrics::render()).into_response())
}

fn report(app: &AppState, dependencies: BTreeMap<&'static str, Dependency>) -> Response {
    let all_well = dependencies
        .values()
        .all(|dependency| dependency.status == Status::Healthy);
    let (code, status) = match all_well {
        true => (StatusCode::OK, Status::Healthy),
        false => (StatusCode::SERVICE_UNAVAILABLE, Status::Degraded),
    };
    let timestamp = app.gate.clock.now();
    let version = env!("CARGO_PKG_VERSION");
    let body = Health {
        status,
        service: "balas-api",
        version,
        timestamp,
        dependencies,
    };
    // The body says more than a problem would.
    (code, axum::Extension(AsIs), axum::Json(body)).into_response()
}

async fn ask_upstream(app: &AppState, url: &str) -> Result<(), reqwest::Error> {
    app.upstream
        .get(format!("{url}/models"))
        .send()
        .await?
        .error_for_status()
        .map(drop)
}

async fn probe<E: Display>(asking: impl Future<Output = Result<(), E>>) -> Dependency {
    let started = Instant::now();
    let error = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer in time".to_owned()),
    };
    let latency_ms = (started.elapsed().as_secs_f64() * 1_000_000.0).round() / 1000.0;
    let status = if error.is_none() {
        Status::Healthy
    } else {
        Status::Degraded
    };
    Dependency {
        status,
        latency_ms,
        error,
    }
}
