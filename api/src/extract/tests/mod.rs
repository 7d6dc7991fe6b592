//! The extractors on small routers, without any server.

mod bodies;
mod callers;
mod parameters;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::{get, post};
use http::{Request, StatusCode, header};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Vars;
use time::OffsetDateTime;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::*;
use crate::config::ApiConfig;
use crate::error::problems;
use crate::gate::Gate;

const SECRET: &str = "secret-of-the-extractor-tests";

const START: i64 = 1_800_000_000;

const USER: Uuid = Uuid::from_u128(0x0189_0000_0000_7000_8000_0000_0000_0001);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Sample {
    content: String,
    count: Option<u8>,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Part {
    url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    limit: Limit<20, 100>,
    #[serde(default)]
    offset: Offset,
    q: Option<String>,
}

fn router() -> Router {
    let given = [
        ("JWT_SECRET", SECRET),
        ("MAX_BODY_BYTES", "200000"),
        ("INTERNAL_SERVICE_KEY", "a-key-of-another-service"),
    ];
    let mut vars = Vars::from_map(given);
    let config = ApiConfig::from_vars(&mut vars);
    vars.finish().unwrap();
    let clock = Clock::manual(OffsetDateTime::from_unix_timestamp(START).unwrap());
    Router::new()
        .route("/user", get(async |User(user): User| user.id.to_string()))
        .route(
            "/admin",
            get(async |Admin(user): Admin| user.id.to_string()),
        )
        .route("/internal", get(async |_: Internal| "in"))
        .route(
            "/json",
            post(async |Json(sample): Json<Sample>| sample.content),
        )
        .route(
            "/path/{id}",
            get(async |Path(id): Path<Uuid>| id.to_string()),
        )
        .route(
            "/query",
            get(async |Query(page): Query<Page>| {
                format!("{} {} {:?}", page.limit.get(), page.offset.get(), page.q)
            }),
        )
        .route(
            "/prefer",
            get(async |prefer: Prefer| format!("{:?}", prefer.wait)),
        )
        .route(
            "/match",
            get(async |tags: IfMatch| format!("{tags:?} {}", tags.allows("3"))),
        )
        .route(
            "/cursor",
            get(async |last: LastEventId| format!("{:?}", last.or(None).map(|id| id.is_some()))),
        )
        .route(
            "/idempotent",
            post(async |request: Idempotent<Sample>| {
                let key = request
                    .key
                    .as_ref()
                    .map_or("none", IdempotencyKey::as_str)
                    .to_owned();
                format!(
                    "{key} {:02x}{:02x}",
                    request.fingerprint[0], request.fingerprint[1]
                )
            }),
        )
        .layer(axum::middleware::from_fn(problems))
        .with_state(Gate::new(config, clock).unwrap())
}

/// Status and text, or status, code and the wrong fields.
async fn ask(request: Request<Body>) -> String {
    let response = router().oneshot(request).await.unwrap();
    let status = response.status();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t == "application/problem+json");
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    if status == StatusCode::OK {
        return format!("200 {}", String::from_utf8_lossy(&body));
    }
    assert!(is_problem, "{status}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["status"], status.as_u16());
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    let errors = errors.iter().map(|error| {
        format!(
            " [{}: {}]",
            error["field"].as_str().unwrap(),
            error["message"].as_str().unwrap()
        )
    });
    format!(
        "{} {}{}",
        status.as_u16(),
        body["code"].as_str().unwrap(),
        errors.collect::<String>()
    )
}

async fn with(path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(request.body(Body::empty()).unwrap()).await
}

async fn send(path: &str, body: impl Into<Body>) -> String {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    ask(request.body(body.into()).unwrap()).await
}

fn token(role: &str) -> String {
    let claims = json!({ "sub": USER, "exp": START + 60, "role": role });
    let token = encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap();
    format!("Bearer {token}")
}
