//! The extractors on small routers, without any server.

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

#[tokio::test]
async fn a_handler_is_reached_by_those_its_extractor_names() {
    let (user, admin) = (token("user"), token("admin"));
    assert_eq!(
        with("/user", &[("authorization", &user)]).await,
        format!("200 {USER}")
    );
    assert_eq!(
        with(
            "/user",
            &[("authorization", &user.replace("Bearer", "bEARER"))]
        )
        .await,
        format!("200 {USER}")
    );
    assert_eq!(
        with("/admin", &[("authorization", &admin)]).await,
        format!("200 {USER}")
    );
    assert_eq!(
        with("/admin", &[("authorization", &user)]).await,
        "403 admin_required"
    );
    assert_eq!(
        with(
            "/internal",
            &[("x-service-key", "a-key-of-another-service")]
        )
        .await,
        "200 in"
    );
    assert_eq!(
        with("/internal", &[("x-service-key", "a-key")]).await,
        "401 service_key_invalid"
    );
    assert_eq!(
        with("/internal", &[("authorization", &admin)]).await,
        "401 service_key_invalid"
    );
    for path in ["/user", "/admin"] {
        assert_eq!(with(path, &[]).await, "401 unauthenticated");
        assert_eq!(
            with(path, &[("authorization", "Basic dTpw")]).await,
            "401 unauthenticated"
        );
        assert_eq!(
            with(path, &[("authorization", "Bearer forged")]).await,
            "401 token_invalid"
        );
        assert_eq!(
            with(path, &[("authorization", &user), ("authorization", &admin)]).await,
            "401 token_invalid"
        );
    }
}

#[tokio::test]
async fn a_refusal_names_the_scheme() {
    let request = Request::get("/user")
        .header("authorization", "Bearer forged")
        .body(Body::empty())
        .unwrap();
    let response = router().oneshot(request).await.unwrap();
    assert_eq!(
        response.headers()[header::WWW_AUTHENTICATE],
        "Bearer error=\"invalid_token\""
    );
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn json_of_the_right_shape_is_read() {
    assert_eq!(
        send("/json", r#"{"content":"h\u0069 \\u0000"}"#).await,
        "200 hi \\u0000"
    );
    let typed =
        Request::post("/json").header(header::CONTENT_TYPE, "application/ld+JSON; charset=utf-8");
    assert_eq!(
        ask(typed.body(Body::from(r#"{"content":"x"}"#)).unwrap()).await,
        "200 x"
    );
}

#[tokio::test]
async fn json_of_any_other_shape_is_refused_by_name() {
    let deep = format!(
        r#"{{"content":"x","metadata":{}{}}}"#,
        "[".repeat(64),
        "]".repeat(64)
    );
    let fits = format!(
        r#"{{"content":"x","metadata":{}"[[[{{"{}}}"#,
        "[".repeat(63),
        "]".repeat(63)
    );
    assert_eq!(send("/json", fits).await, "200 x");
    let brackets = format!(r#"{{"content":"{}"}}"#, "[".repeat(100));
    assert!(send("/json", brackets).await.starts_with("200 "));
    let cases = [
        (r"", "400 malformed_json"),
        (r"{", "400 malformed_json"),
        (r#"{"content":"x"} {}"#, "400 malformed_json"),
        ("{\"content\":\"\u{0}\"}", "400 malformed_json"),
        (r#"{"content":"\ud800"}"#, "400 malformed_json"),
        (r#"{"content":"x","metadata":1e999}"#, "400 malformed_json"),
        (&deep, "400 malformed_json"),
        (
            r"[]",
            "422 validation_failed [body: invalid type: sequence, expected an object]",
        ),
        (
            r#""text""#,
            "422 validation_failed [body: invalid type: string \"text\", expected an object]",
        ),
        (
            r"{}",
            "422 validation_failed [content: missing field `content`]",
        ),
        (
            r#"{"content":5}"#,
            "422 validation_failed [content: invalid type: integer `5`, expected a string]",
        ),
        (
            r#"{"content":"x","count":256}"#,
            "422 validation_failed [count: invalid value: integer `256`, expected u8]",
        ),
        (
            r#"{"content":"x","surprise":1}"#,
            "422 validation_failed [surprise: unknown field `surprise`, expected one of `content`, `count`, `metadata`, `parts`]",
        ),
        (
            r#"{"content":"x","parts":[{"url":"a"},{}]}"#,
            "422 validation_failed [parts[1].url: missing field `url`]",
        ),
        (
            r#"{"content":"a\u0000b"}"#,
            "422 validation_failed [content: must not contain NUL characters]",
        ),
        (
            r#"{"content":"x","metadata":{"a":[{"k\u0000":1}]}}"#,
            "422 validation_failed [metadata.a[0].k\u{fffd}: must not contain NUL characters]",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(send("/json", body.to_owned()).await, expected, "{body}");
    }
}

#[tokio::test]
async fn bodies_too_large_or_of_another_type_are_refused() {
    assert_eq!(
        send("/json", "x".repeat(200_001)).await,
        "413 body_too_large"
    );
    // Without a length that is known in advance, too.
    let chunks = futures::stream::iter(
        (0..30).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 10_000]))),
    );
    assert_eq!(
        send("/json", Body::from_stream(chunks)).await,
        "413 body_too_large"
    );
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
    ] {
        let request = Request::post("/json").header(header::CONTENT_TYPE, kind);
        assert_eq!(
            ask(request.body(Body::from("{}")).unwrap()).await,
            "415 unsupported_media_type",
            "{kind}"
        );
    }
    let untyped = Request::post("/json").body(Body::from("{}")).unwrap();
    assert_eq!(ask(untyped).await, "415 unsupported_media_type");
    let nothing = Request::post("/json").body(Body::empty()).unwrap();
    assert_eq!(
        ask(nothing).await,
        "422 validation_failed [content: missing field `content`]"
    );
}

#[tokio::test]
async fn path_parameters_must_have_their_type() {
    assert_eq!(
        with(&format!("/path/{USER}"), &[]).await,
        format!("200 {USER}")
    );
    for odd in [
        "1",
        "not-a-uuid",
        "%00",
        "018900000000-7000-8000-000000000001",
    ] {
        let answer = with(&format!("/path/{odd}"), &[]).await;
        assert!(
            answer.starts_with("422 validation_failed [id: "),
            "{odd}: {answer}"
        );
    }
    assert_eq!(with("/path/%ff", &[]).await, "400 malformed_request");
}

#[tokio::test]
async fn query_parameters_are_bounded_and_known() {
    assert_eq!(with("/query", &[]).await, "200 20 0 None");
    assert_eq!(
        with("/query?limit=100&offset=7&q=a+b%20c", &[]).await,
        "200 100 7 Some(\"a b c\")"
    );
    let limit = "422 validation_failed [limit: must be a number between 1 and 100]";
    for odd in [
        "0",
        "-1",
        "1000000000",
        "99999999999999999999",
        "1.5",
        "ten",
        "",
    ] {
        assert_eq!(
            with(&format!("/query?limit={odd}"), &[]).await,
            limit,
            "{odd}"
        );
    }
    assert_eq!(
        with("/query?offset=-1", &[]).await,
        "422 validation_failed [offset: must be a number between 0 and 1000000]"
    );
    assert_eq!(
        with("/query?page=2", &[]).await,
        "422 validation_failed [page: unknown field `page`, expected one of `limit`, `offset`, `q`]"
    );
    assert!(
        with("/query?limit=1&limit=2", &[])
            .await
            .starts_with("422 validation_failed")
    );
    assert_eq!(
        with("/query?q=a%00b", &[]).await,
        "422 validation_failed [q: must not contain NUL characters]"
    );
}

#[tokio::test]
async fn prefer_is_read_as_its_rfc_says_but_a_bad_wait_is_told() {
    for (value, expected) in [
        ("wait=10", "200 Some(10s)"),
        ("WAIT = \"10\"", "200 Some(10s)"),
        ("respond-async, wait=0", "200 Some(0ns)"),
        ("respond-async; foo=\"a,b;wait=9\"", "200 None"),
        ("handling=lenient, wait=60, wait=5", "200 Some(60s)"),
    ] {
        assert_eq!(
            with("/prefer", &[("prefer", value)]).await,
            expected,
            "{value}"
        );
    }
    for odd in [
        "wait",
        "wait=",
        "wait=61",
        "wait=-1",
        "wait=1.5",
        "wait=ten",
        "wait=99999999999999999999",
        "",
        "=5",
        ",",
        "a b",
    ] {
        let answer = with("/prefer", &[("prefer", odd)]).await;
        assert!(
            answer.starts_with("422 validation_failed [Prefer: "),
            "{odd:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn entity_tags_compare_strongly() {
    assert_eq!(with("/match", &[]).await, "200 Absent true");
    assert_eq!(with("/match", &[("if-match", "*")]).await, "200 Any true");
    assert_eq!(
        with("/match", &[("if-match", "\"2\", \"3\"")]).await,
        "200 OneOf([\"2\", \"3\"]) true"
    );
    assert_eq!(
        with("/match", &[("if-match", "W/\"3\"")]).await,
        "200 OneOf([\"W/3\"]) false"
    );
    for odd in ["3", "\"3", "", "\"3\" \"4\""] {
        assert!(
            with("/match", &[("if-match", odd)])
                .await
                .starts_with("422 validation_failed [If-Match"),
            "{odd:?}"
        );
    }
}

#[tokio::test]
async fn event_ids_are_checked_before_use() {
    let id = format!("{USER}.0001.0000000017");
    assert_eq!(with("/cursor", &[]).await, "200 Ok(false)");
    assert_eq!(
        with("/cursor", &[("last-event-id", "")]).await,
        "200 Ok(false)"
    );
    assert_eq!(
        with("/cursor", &[("last-event-id", &id)]).await,
        "200 Ok(true)"
    );
    for odd in ["17", "0-1", "a.b.c"] {
        let answer = with("/cursor", &[("last-event-id", odd)]).await;
        assert!(
            answer.starts_with("422 invalid_cursor [Last-Event-ID"),
            "{odd}: {answer}"
        );
    }
}

#[tokio::test]
async fn idempotency_keys_are_bounded_and_the_body_leaves_a_fingerprint() {
    let post = async |key: &str, body: &str| {
        let request = Request::post("/idempotent").header(header::CONTENT_TYPE, "application/json");
        ask(request
            .header("idempotency-key", key)
            .body(Body::from(body.to_owned()))
            .unwrap())
        .await
    };
    let (one, two) = (r#"{"content":"1"}"#, r#"{"content":"2"}"#);
    assert_eq!(post("k", one).await, post("k", one).await);
    assert_ne!(post("k", one).await, post("k", two).await);
    assert!(post(&"k".repeat(255), one).await.starts_with("200 "));
    for odd in [&"k".repeat(256), "", "two words", "käse"] {
        let answer = post(odd, one).await;
        assert!(
            answer.starts_with("422 validation_failed [Idempotency-Key"),
            "{odd:?}: {answer}"
        );
    }
}
