//! Signs of life, for people, load balancers and Prometheus.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::app::AppState;
use crate::error::{AsIs, Code, Problem, Result};
use crate::extract::Query;
use crate::probes::{self, Dependency, Status};

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

/// How deep to look.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HealthQuery {
    /// Also ask the upstream; once a minute at most, and what was found then is told meanwhile.
    #[serde(default)]
    #[param(required = false)]
    full: bool,
}

/// How the service and what it depends on are: `database`, `redis`, `queue` (degraded when work has waited for
/// longer than `HEALTH_QUEUE_WAIT`), `rabbitmq` where one is configured, `upstream` when asked for.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "operations", params(HealthQuery),
    responses((status = 200, body = Health), (status = 503, body = Health))
)]
pub(super) async fn health(
    State(app): State<AppState>,
    Query(query): Query<HealthQuery>,
) -> Response {
    let upstream = async {
        match query.full {
            true => probes::upstream(&app).await,
            false => None,
        }
    };
    let (database, redis, queue, rabbitmq, upstream) = tokio::join!(
        probes::database(&app),
        probes::redis(&app),
        probes::queue(&app),
        probes::rabbitmq(&app),
        upstream
    );
    let mut dependencies =
        BTreeMap::from([("database", database), ("redis", redis), ("queue", queue)]);
    dependencies.extend(rabbitmq.map(|rabbitmq| ("rabbitmq", rabbitmq)));
    dependencies.extend(upstream.map(|upstream| ("upstream", upstream)));
    report(&app, dependencies)
}

/// Whether the process runs.
#[utoipa::path(get, path = "/health/live", operation_id = "liveness", tag = "operations", responses((status = 200, body = Health)))]
pub(super) async fn live(State(app): State<AppState>) -> Response {
    report(&app, BTreeMap::new())
}

/// Whether the process should get requests: the database answers, its schema is as new as this version needs, and no
/// stop was asked for. Redis may be away: everything but the live push works without it.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "readiness", tag = "operations",
    responses((status = 200, body = Health), (status = 503, body = Health))
)]
pub(super) async fn ready(State(app): State<AppState>) -> Response {
    let (database, schema) = tokio::join!(probes::database(&app), probes::schema(&app));
    let process = probes::process(&app);
    report(
        &app,
        BTreeMap::from([
            ("database", database),
            ("process", process),
            ("schema", schema),
        ]),
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
    let body = Health {
        status,
        service: "balas-api",
        version: env!("CARGO_PKG_VERSION"),
        timestamp: app.gate.clock.now(),
        dependencies,
    };
    // The body says more than a problem would.
    (code, axum::Extension(AsIs), axum::Json(body)).into_response()
}
