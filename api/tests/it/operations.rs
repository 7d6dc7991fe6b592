//! Health, measurements, pages, headers.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::common::{TestApp, conversation, until};

#[tokio::test]
async fn health_tells_of_each_dependency() {
    let app = TestApp::without_worker().await;
    let anyone = app.user().anonymous();
    assert_snapshot!(anyone.get("/health").await.shown(), @r#"
    200
    {
      "dependencies": {
        "database": {
          "latency_ms": "[ms]",
          "status": "healthy"
        },
        "queue": {
          "depth": 0,
          "latency_ms": "[ms]",
          "oldest_wait_seconds": 0.0,
          "status": "healthy"
        },
        "redis": {
          "latency_ms": "[ms]",
          "status": "healthy"
        }
      },
      "service": "balas-api",
      "status": "healthy",
      "timestamp": "[time]",
      "version": "0.1.0"
    }
    "#);
    let full = anyone.get("/health?full=true").await;
    assert_eq!(
        (full.status, full.text("/dependencies/upstream/status")),
        (200, "healthy".to_owned())
    );
    assert_eq!(anyone.get("/health/live").await.status, 200);
    assert_eq!(anyone.get("/health/ready").await.status, 200);
    assert_eq!(anyone.get("/health").await.status, 200);
}

#[tokio::test]
async fn the_upstream_is_asked_once_a_minute_at_most() {
    let app = TestApp::without_worker().await;
    let anyone = app.user().anonymous();
    let full = anyone.get("/health?full=true").await;
    app.simulator.go_dark().await;
    let again = anyone.get("/health?full=true").await;
    let asked = "/dependencies/upstream/checked_at";
    assert_eq!((again.status, again.text(asked)), (200, full.text(asked)));
    // A replica that has not asked yet does.
    let another = app.another_replica().await;
    let elsewhere = another.client(anyone.user).anonymous();
    let dark = elsewhere.get("/health?full=true").await;
    assert_eq!((dark.status, &*dark.text("/status")), (503, "degraded"));
    assert_eq!(dark.text("/dependencies/upstream/status"), "degraded");
    assert_eq!(dark.header("content-type"), "application/json");
    assert_eq!(elsewhere.get("/health").await.status, 200);
}

#[tokio::test]
async fn work_that_waits_for_too_long_and_a_broker_that_is_away_are_told_of() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = format!("amqp://user:secret@{}/", listener.local_addr().unwrap());
    drop(listener);
    let app = TestApp::with(&[("HEALTH_QUEUE_WAIT", "0.1"), ("RABBITMQ_URL", &broker)]).await;
    let anyone = app.user().anonymous();
    let health = anyone.get("/health").await;
    assert_eq!(health.status, 503);
    assert_eq!(health.text("/dependencies/rabbitmq/status"), "degraded");
    assert_eq!(health.text("/dependencies/queue/status"), "healthy");
    assert!(!health.raw.contains("secret"), "{}", health.raw);
    let user = app.user();
    user.say(&conversation(&user).await, "nobody hears me")
        .await;
    let slow = until(async || {
        let health = anyone.get("/health").await;
        (health.text("/dependencies/queue/status") == "degraded").then_some(health)
    })
    .await;
    assert_eq!(
        slow.text("/dependencies/queue/error"),
        "work has waited for too long; 0 workers live"
    );
    // Neither keeps the replica from taking requests.
    assert_eq!(anyone.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn a_broker_that_answers_is_healthy() {
    let mut vars = shared::config::Vars::from_process();
    let Some(broker) = vars.optional::<String>("TEST_RABBITMQ_URL", "set by cargo xtask test")
    else {
        return;
    };
    let app = TestApp::with(&[("RABBITMQ_URL", &broker)]).await;
    let health = app.user().anonymous().get("/health").await;
    assert_eq!(health.text("/dependencies/rabbitmq/status"), "healthy");
}

#[tokio::test]
async fn a_replica_is_not_ready_before_the_schema_is_as_new_as_it() {
    let app = TestApp::without_worker().await;
    let newest = "(SELECT max(version) FROM chat._sqlx_migrations)";
    // As a migration that is still running.
    let hide = format!("UPDATE chat._sqlx_migrations SET success = false WHERE version = {newest}");
    app.env.execute(&hide).await;
    let anyone = app.user().anonymous();
    let ready = anyone.get("/health/ready").await;
    assert_eq!(
        (ready.status, &*ready.text("/dependencies/schema/status")),
        (503, "degraded")
    );
    assert_eq!(ready.text("/dependencies/process/status"), "healthy");
    assert_eq!(anyone.get("/health/live").await.status, 200);
    app.env
        .execute("UPDATE chat._sqlx_migrations SET success = true")
        .await;
    assert_eq!(anyone.get("/health/ready").await.status, 200);
    // The previous version's processes go on beside a newer schema, and one that has none is not ready.
    let older = app.another_replica().await;
    app.env
        .execute("DROP FUNCTION chat.schema_versions()")
        .await;
    assert_eq!(
        anyone.get("/health/ready").await.status,
        200,
        "it is known by now"
    );
    let ready = older
        .client(anyone.user)
        .anonymous()
        .get("/health/ready")
        .await;
    assert_eq!(ready.status, 503, "{}", ready.raw);
}

#[tokio::test]
async fn without_redis_a_replica_is_degraded_and_ready() {
    let app = TestApp::with(&[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    let anyone = app.user().anonymous();
    let health = anyone.get("/health").await;
    assert_eq!(
        (health.status, &*health.text("/dependencies/redis/status")),
        (503, "degraded")
    );
    assert_eq!(anyone.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn a_replica_without_its_database_is_not_ready_and_recovers() {
    let app = TestApp::without_worker().await;
    let anyone = app.user().anonymous();
    app.env.close_database().await;
    let ready = anyone.get("/health/ready").await;
    assert_eq!(
        (ready.status, ready.text("/dependencies/database/status")),
        (503, "degraded".to_owned())
    );
    assert!(!ready.raw.contains("postgres"), "{}", ready.raw);
    assert_eq!(anyone.get("/health/live").await.status, 200);
    app.env.open_database().await;
    until(async || (anyone.get("/health/ready").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn requests_are_measured_by_route_not_by_path() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    user.get(&format!("/api/chat/conversations/{id}")).await;
    user.get("/no/such/path").await;
    let metrics = user.anonymous().get("/metrics").await;
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    for line in [
        r#"http_request_duration_seconds_count{method="GET",route="/api/chat/conversations/{conversation_id}",status_code="200"} "#,
        r#"http_request_duration_seconds_count{method="GET",route="unmatched",status_code="404"} "#,
    ] {
        assert!(
            metrics.raw.lines().any(|found| found.starts_with(line)),
            "{line} is missing in\n{}",
            metrics.raw
        );
    }
    assert!(!metrics.raw.contains(&id));
    let off = TestApp::with(&[("ENABLE_METRICS", "false")]).await;
    assert_eq!(
        off.user().get("/metrics").await.problem(),
        "404 route_not_found"
    );
}

#[tokio::test]
async fn the_request_id_is_taken_or_made_and_carried_to_the_upstream() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = [
        ("x-request-id", "my-request-17"),
        ("traceparent", &*format!("00-{trace}-00f067aa0ba902b7-01")),
        ("prefer", "wait=30"),
    ];
    let path = format!("/api/chat/conversations/{id}/messages");
    let answer = user
        .post_with(&path, &headers, json!({ "content": "trace me" }))
        .await;
    assert_eq!(
        (answer.status, answer.header("x-request-id")),
        (200, "my-request-17")
    );
    let calls = app.simulator.calls_containing("trace me");
    let call = calls.first().unwrap();
    assert_eq!(call.request_id.as_deref(), Some("my-request-17"));
    assert!(
        call.traceparent.as_deref().unwrap().contains(trace),
        "{:?}",
        call.traceparent
    );
    let odd = user
        .send(
            user.request(http::Method::GET, "/nowhere")
                .header("x-request-id", "two words"),
        )
        .await;
    assert_eq!(odd.problem(), "404 route_not_found");
    assert!(odd.header("x-request-id").parse::<uuid::Uuid>().is_ok());
}

#[tokio::test]
async fn the_console_and_the_documents_are_served() {
    let app = TestApp::without_worker().await;
    let anyone = app.user().anonymous();
    let page = anyone.get("/").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let script = page
        .raw
        .split('"')
        .find(|part| part.starts_with("/assets/") && part.ends_with(".js"))
        .unwrap();
    let asset = anyone.get(script).await;
    assert_eq!(
        (asset.status, asset.header("content-type")),
        (200, "text/javascript; charset=utf-8")
    );
    let again = anyone
        .request(http::Method::GET, script)
        .header("if-none-match", asset.header("etag"));
    assert_eq!(anyone.send(again).await.status, 304);
    assert_eq!(
        anyone.get("/assets/../Cargo.toml").await.problem(),
        "404 route_not_found"
    );
    assert_eq!(
        anyone.get("/assets/..%2fCargo.toml").await.problem(),
        "404 route_not_found"
    );
    let document = anyone.get("/openapi.json").await;
    assert_eq!(document.raw, api::openapi::text());
    let docs = anyone.get("/docs/").await;
    assert_eq!(docs.status, 200);
    assert!(
        docs.header("content-security-policy")
            .contains("style-src 'self' 'unsafe-inline'")
    );
}

#[tokio::test]
async fn browsers_are_told_to_be_careful() {
    let app = TestApp::with(&[("CORS_ALLOWED_ORIGINS", "https://app.example.org")]).await;
    let user = app.user();
    for path in ["/", "/api/chat/conversations", "/nowhere"] {
        let answer = user.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(
            answer
                .header("content-security-policy")
                .starts_with("default-src 'self'"),
            "{path}"
        );
        assert!(
            !answer.header("content-security-policy").contains("unsafe"),
            "{path}"
        );
    }
    assert_eq!(
        user.get("/api/chat/conversations")
            .await
            .header("cache-control"),
        "no-store"
    );
    let preflight = async |origin: &str| {
        let request = user
            .anonymous()
            .request(http::Method::OPTIONS, "/api/chat/conversations");
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        user.send(request.header(
            "access-control-request-headers",
            "authorization,idempotency-key",
        ))
        .await
    };
    let allowed = preflight("https://app.example.org").await;
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://app.example.org"
    );
    assert!(
        allowed
            .header("access-control-allow-headers")
            .contains("idempotency-key")
    );
    assert_eq!(
        preflight("https://evil.example.org")
            .await
            .header("access-control-allow-origin"),
        ""
    );
    let none = TestApp::without_worker().await;
    let request = none
        .user()
        .request(http::Method::GET, "/health")
        .header("origin", "https://app.example.org");
    assert_eq!(
        none.user()
            .send(request)
            .await
            .header("access-control-allow-origin"),
        ""
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    assert_snapshot!(user.get("/api/chat/nowhere").await.problem(), @"404 route_not_found");
    let wrong = user.delete("/api/chat/conversations").await;
    assert_eq!(wrong.problem(), "405 method_not_allowed");
    assert_eq!(wrong.header("allow"), "POST,GET,HEAD");
    assert_eq!(wrong.body["errors"], Value::Null);
}
