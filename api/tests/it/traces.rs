//! One trace from the request to the notification.

use serde_json::json;

use crate::common::{Collector, Span, TestApp, conversation, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const SIGNING: &str = "whsec_bm90IGEgc2VjcmV0IGF0IGFsbCwganVzdCBhIHRlc3Q=";

/// An app that sends its spans to the collector, and its notifications.
async fn traced(collector: &Collector) -> TestApp {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    let mut app = TestApp::with(&[endpoint]).await;
    app.start_worker_with(&[
        endpoint,
        ("NOTIFICATION_SERVICE_URL", &collector.url),
        ("NOTIFICATION_SIGNING_SECRET", SIGNING),
        ("NOTIFICATION_ALLOW_PRIVATE", "true"),
    ]);
    app
}

/// The spans of the trace, once there are all of these.
async fn collected(collector: &Collector, names: &[&str]) -> Vec<Span> {
    until(async || {
        let spans: Vec<Span> = collector.spans();
        let spans: Vec<Span> = spans
            .into_iter()
            .filter(|span| span.trace == TRACE)
            .collect();
        let has = |name: &&str| spans.iter().any(|span| span.name.starts_with(*name));
        names.iter().all(has).then_some(spans)
    })
    .await
}

fn only<'a>(spans: &'a [Span], name: &str, kind: &str) -> &'a Span {
    let is_it = |span: &&Span| {
        let of = span.attributes.get("balas.generation.kind");
        span.name.starts_with(name) && of.is_none_or(|of| of == kind)
    };
    let mut found = spans.iter().filter(is_it);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(found.next().is_none(), "more than one {name}");
    span
}

#[tokio::test]
async fn one_trace_spans_everything_a_message_sets_off() {
    let collector = Collector::start().await;
    let app = traced(&collector).await;
    let user = app.user();
    // Without a title of its own it would get one, whose generation belongs to the trace as well.
    let named = user
        .post("/api/chat/conversations", json!({ "title": "named" }))
        .await;
    let id = named.text("/id");
    let path = format!("/api/chat/conversations/{id}/messages");
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", caller.as_str()), ("prefer", "wait=30")];
    let answer = user
        .post_with(&path, &headers, json!({ "content": "trace me" }))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    let generation = answer.text("/generation/id");

    let names = [
        "POST",
        "queue wait",
        "claim",
        "attempt",
        "chat ",
        "finish",
        "notification",
    ];
    let spans = collected(&collector, &names).await;
    let find = |name| only(&spans, name, "reply");
    let [request, wait, claim, attempt, chat, finish, notification] = names.map(find);
    assert_eq!(
        request.name,
        "POST /api/chat/conversations/{conversation_id}/messages"
    );
    assert_eq!(request.parent, CALLER);
    assert_eq!(request.attributes["http.response.status_code"], "200");
    for below in [wait, claim, attempt, notification] {
        assert_eq!(below.parent, request.id, "{}", below.name);
        assert_eq!(
            below.attributes["balas.generation.id"], generation,
            "{}",
            below.name
        );
    }
    for below in [chat, finish] {
        assert_eq!(below.parent, attempt.id, "{}", below.name);
        assert!(below.started >= attempt.started && below.ended <= attempt.ended);
    }
    assert!(wait.ended <= claim.started && claim.started <= claim.ended);
    assert!(chat.ended <= finish.started);
    assert_eq!(attempt.attributes["balas.outcome"], "completed");
    assert!(spans.iter().all(|span| !span.is_error), "{spans:#?}");
    let services = |span: &Span| span.service.clone();
    assert_eq!(
        [request, attempt, notification].map(services),
        ["balas-api", "balas-worker", "balas-worker"]
    );

    // As the conventions for generative AI have it; 3 is a client.
    let call = app.simulator.calls_containing("trace me").remove(0);
    assert_eq!(
        (chat.kind, chat.name.as_str()),
        (3, &*format!("chat {}", call.model))
    );
    let wanted = [
        ("gen_ai.operation.name", "chat".to_owned()),
        ("gen_ai.provider.name", "openrouter".to_owned()),
        ("gen_ai.request.model", call.model),
        ("gen_ai.conversation.id", id),
        ("gen_ai.response.id", call.id),
        ("gen_ai.response.finish_reasons", "stop".to_owned()),
        ("gen_ai.usage.input_tokens", call.prompt_tokens.to_string()),
        (
            "gen_ai.usage.output_tokens",
            call.completion_tokens.to_string(),
        ),
        ("server.address", "127.0.0.1".to_owned()),
    ];
    for (key, value) in wanted {
        assert_eq!(chat.attributes.get(key), Some(&value), "{key}");
    }
    // Whoever is asked finds our span above its own.
    assert_eq!(call.traceparent, Some(format!("00-{TRACE}-{}-01", chat.id)));
    let told = until(async || collector.told().pop()).await;
    assert_eq!(told, format!("00-{TRACE}-{}-01", notification.id));
}

#[tokio::test]
async fn what_fails_is_an_error_and_holds_no_content() {
    let collector = Collector::start().await;
    let app = traced(&collector).await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", caller.as_str()), ("prefer", "wait=30")];
    let body = json!({ "content": "[[sim:moderation]] the planted words" });
    let answer = user.post_with(&path, &headers, body).await;
    assert_eq!(answer.text("/generation/status"), "failed");
    let spans = collected(&collector, &["attempt", "chat ", "finish"]).await;
    for name in ["attempt", "chat "] {
        let span = spans
            .iter()
            .find(|span| span.name.starts_with(name))
            .unwrap();
        assert!(span.is_error, "{span:?}");
    }
    let chat = spans
        .iter()
        .find(|span| span.name.starts_with("chat "))
        .unwrap();
    assert_eq!(chat.attributes["error.type"], "content_policy");
    let sent = collector.bytes();
    for secret in [
        "the planted words",
        "test-key",
        user.bearer().unwrap(),
        SIGNING,
    ] {
        let planted = sent
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!planted, "{secret} was sent to the collector");
    }
}

#[tokio::test]
async fn a_trace_that_its_caller_does_not_record_is_not_recorded() {
    let collector = Collector::start().await;
    let app = traced(&collector).await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/messages");
    let unsampled = format!("00-{TRACE}-{CALLER}-00");
    let headers = [("traceparent", unsampled.as_str()), ("prefer", "wait=30")];
    let answer = user
        .post_with(&path, &headers, json!({ "content": "not me" }))
        .await;
    assert_eq!(answer.status, 200);
    // What came later has been sent, so this would have been.
    assert_eq!(user.ask(&id, "but me").await.status, 200);
    until(async || {
        let spans = collector.spans();
        let has = |name: &str| spans.iter().any(|span| span.name.starts_with(name));
        ["attempt", "POST"].into_iter().all(has).then_some(())
    })
    .await;
    assert!(collector.spans().iter().all(|span| span.trace != TRACE));
    let call = app.simulator.calls_containing("not me").remove(0);
    assert!(
        call.traceparent.unwrap().contains(TRACE),
        "it is passed on all the same"
    );
}

#[tokio::test]
async fn a_collector_that_is_away_keeps_nobody() {
    let nowhere = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let mut app = TestApp::with(&[nowhere]).await;
    app.start_worker_with(&[nowhere]);
    let user = app.user();
    let id = conversation(&user).await;
    assert_eq!(user.ask(&id, "hello").await.status, 200);
    until(async || {
        let scrape = crate::common::Scrape::of(&user).await;
        (scrape.sum("trace_export_failures_total", &[]) > 0.0).then_some(())
    })
    .await;
}
