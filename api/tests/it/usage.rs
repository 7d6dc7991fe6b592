//! What calls took: the service's own books against those of the upstream, to the last digit.

use std::collections::BTreeMap;

use loadtest::simulator::{CallRecord, Outcome};
use serde_json::{Value, json};
use shared::crypto::user_alias;

use crate::common::{Answer, Client, TestApp, conversation, until};

const MINI: &str = "openai/gpt-4o-mini";
const BIG: &str = "openai/gpt-4o";
const FREE: &str = "meta-llama/llama-3.2-3b-instruct:free";

const PAID_MODELS: [(&str, &str); 5] = [
    ("USE_FREE_MODELS_ONLY", "false"),
    ("DEFAULT_MODEL", MINI),
    ("FALLBACK_MODEL", FREE),
    ("EMERGENCY_FALLBACK_MODEL", "anthropic/claude-3.5-haiku"),
    ("ALLOWED_MODELS", BIG),
];

/// A conversation that gets no title of its own.
pub(crate) async fn titled(user: &Client) -> String {
    let answer = user
        .post("/api/chat/conversations", json!({ "title": "titled" }))
        .await;
    answer.text("/id")
}

/// The digits of a number in JSON text, found by the names on the way to it and read without a float.
pub(crate) fn digits(raw: &str, names: &[&str]) -> String {
    let mut rest = raw;
    for name in names {
        let name = format!("\"{name}\":");
        let at = rest
            .find(&name)
            .unwrap_or_else(|| panic!("no {name} in {raw}"));
        rest = &rest[at + name.len()..];
    }
    let end = rest.find([',', '}']).unwrap();
    rest[..end].to_owned()
}

/// Credits that calls of the upstream's books cost together.
pub(crate) fn cost<'a>(calls: impl IntoIterator<Item = &'a CallRecord>) -> String {
    let costs = calls
        .into_iter()
        .filter_map(|call| call.cost.as_deref())
        .map(|cost| cost.parse::<rust_decimal::Decimal>().unwrap());
    costs.sum::<rust_decimal::Decimal>().normalize().to_string()
}

/// The report, once it knows every cost.
pub(crate) async fn settled_report(app: &TestApp) -> Answer {
    let service = app.user().service();
    until(async || {
        let report = service.get("/internal/usage/report?days=2").await;
        assert_eq!(report.status, 200, "{}", report.shown());
        (report.body["total"]["unknown_cost_calls"] == 0).then_some(report)
    })
    .await
}

#[tokio::test]
async fn the_books_are_those_of_the_upstream_to_the_last_digit() {
    let mut app = TestApp::with(&PAID_MODELS).await;
    app.start_worker_with(&[("COST_REFRESH", "0.2"), ("COST_ASK_AFTER", "1")]);
    let (first, second, third) = (app.user().premium(), app.user().premium(), app.user());

    let titleless = conversation(&first).await;
    assert_eq!(first.ask(&titleless, "What is a budget?").await.status, 200);
    let id = titled(&first).await;
    for marker in [
        "",
        "cached=10",
        "reasoning=7",
        "cost=0.123456789012345678",
        "no_cost",
        "no_usage",
        "status=503,times=1",
        "cut=5,times=1",
        "drop=3,times=1",
        "status=500,in=chunk,at=5,times=1",
        "empty,times=1",
        "hang=4,times=1",
    ] {
        let answer = first.ask(&id, &format!("Why? [[sim:{marker}]]")).await;
        assert_eq!(
            answer.text("/generation/status"),
            "completed",
            "{marker}: {}",
            answer.shown()
        );
    }
    let other = titled(&second).await;
    let path = format!("/api/chat/conversations/{other}/messages");
    let asked = json!({ "content": "A large one", "model": BIG });
    let answer = second
        .post_with(&path, &[("prefer", "wait=30")], asked)
        .await;
    assert_eq!(answer.text("/usage/model"), BIG);
    // Stopped in the midst of it: what was sent until then is paid for.
    let stopped = second.say(&other, "Stop [[sim:tokens=200,hold=9]]").await;
    let stopped = stopped.text("/generation/id");
    app.simulator
        .wait_for_call(|call| call.tokens_sent == 9)
        .await;
    let cancelled = format!("/api/chat/generations/{stopped}/cancel");
    assert_eq!(second.post(&cancelled, json!({})).await.status, 200);
    let free = titled(&third).await;
    assert_eq!(third.ask(&free, "For nothing").await.status, 200);
    app.simulator
        .wait_for_stats(|stats| stats.in_flight == 0 && stats.calls >= 20)
        .await;

    let report = settled_report(&app).await;
    let books = app.simulator.stats();
    let calls = app.simulator.calls();
    assert_eq!(
        digits(&report.raw, &["total", "cost"]),
        books.total.cost.to_string()
    );
    assert_eq!(
        report.body["total"]["prompt_tokens"],
        books.total.prompt_tokens
    );
    assert_eq!(
        report.body["total"]["completion_tokens"],
        books.total.completion_tokens
    );
    let ledger = app.count("attempts").await;
    assert_eq!(ledger, books.total.calls.to_string(), "every call is a row");
    for (model, sums) in &books.by_model {
        assert_eq!(
            digits(&report.raw, &["by_model", model, "cost"]),
            sums.cost.to_string(),
            "{model}"
        );
        let tokens = &report.body["by_model"][model];
        assert_eq!(tokens["prompt_tokens"], sums.prompt_tokens, "{model}");
        assert_eq!(
            tokens["completion_tokens"], sums.completion_tokens,
            "{model}"
        );
    }
    for user in [&first, &second, &third] {
        let sums = &books.by_user[&user_alias(user.user)];
        let summary = user.get("/api/chat/usage/summary?period=day").await;
        assert_eq!(summary.status, 200, "{}", summary.shown());
        assert_eq!(
            digits(&summary.raw, &["total_cost"]),
            sums.cost.to_string(),
            "{}",
            summary.shown()
        );
        assert_eq!(
            summary.body["total_tokens"],
            sums.prompt_tokens + sums.completion_tokens
        );
    }
    // What came to nothing, and what it cost all the same.
    let wasted: Vec<&CallRecord> = calls
        .iter()
        .filter(|call| call.status == 200)
        .filter(|call| call.outcome != Outcome::Completed || call.tokens_sent == 0)
        .collect();
    assert_eq!(report.body["total"]["wasted_calls"], wasted.len());
    assert_eq!(
        digits(&report.raw, &["total", "wasted_cost"]),
        cost(wasted.iter().copied())
    );
    assert!(wasted.len() >= 6, "{wasted:?}");
    // By conversation: each of its calls carried its id.
    for (user, id) in [(&first, &id), (&first, &titleless), (&second, &other)] {
        let usage = user
            .get(&format!("/api/chat/conversations/{id}/usage"))
            .await;
        assert_eq!(usage.status, 200, "{}", usage.shown());
        let of_it = calls
            .iter()
            .filter(|call| call.session_id.as_deref() == Some(id.as_str()));
        assert_eq!(digits(&usage.raw, &["total_cost"]), cost(of_it), "{id}");
    }
    let usage = first
        .get(&format!("/api/chat/conversations/{titleless}/usage"))
        .await;
    let operations: Vec<&str> = usage.body["cost_breakdown"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["operation"].as_str().unwrap())
        .collect();
    assert_eq!(operations, ["completion", "title"]);
    // What was told of a generation does not change when its cost becomes known.
    let listed = first
        .get(&format!("/api/chat/generations?conversation_id={id}"))
        .await;
    let costs: Vec<&Value> = listed.body["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|generation| &generation["usage"]["cost_credits"])
        .collect();
    assert_eq!(costs.iter().filter(|cost| cost.is_null()).count(), 2);
    every_part_adds_up(&report.body);
}

/// The sums by operation, model, person, day and month are each those of all.
fn every_part_adds_up(report: &Value) {
    let list = |name: &str| -> Vec<Value> {
        match &report[name] {
            Value::Object(map) => map.values().cloned().collect(),
            other => other.as_array().unwrap().clone(),
        }
    };
    for name in [
        "by_operation",
        "by_model",
        "by_user",
        "daily",
        "last_7_days",
        "monthly",
    ] {
        for field in [
            "calls",
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "wasted_calls",
        ] {
            let sum: i64 = list(name)
                .iter()
                .map(|part| part[field].as_i64().unwrap())
                .sum();
            assert_eq!(report["total"][field], sum, "{field} {name}");
        }
    }
    assert_eq!(list("daily").len(), 2);
    assert_eq!(list("last_7_days").len(), 7);
}

#[tokio::test]
async fn a_cost_that_nobody_told_is_null_and_counted_apart() {
    let mut app = TestApp::with(&PAID_MODELS).await;
    app.start_worker_with(&[]);
    let user = app.user().premium();
    let empty = user.get("/api/chat/usage/summary").await;
    assert_eq!(empty.body["total_cost"], 0, "no call cost nothing");
    let id = titled(&user).await;
    assert_eq!(user.ask(&id, "a [[sim:no_cost]]").await.status, 200);
    let summary = user.get("/api/chat/usage/summary").await;
    assert_eq!(summary.body["total_cost"], Value::Null);
    assert_eq!(summary.body["unknown_cost_calls"], 1);
    assert_eq!(
        (
            &summary.body["conversations_count"],
            &summary.body["messages_count"]
        ),
        (&json!(1), &json!(2))
    );
    assert_eq!(user.ask(&id, "b").await.status, 200);
    let usage = user
        .get(&format!("/api/chat/conversations/{id}/usage"))
        .await;
    assert_eq!(usage.body["unknown_cost_calls"], 1);
    let known = &app.simulator.calls()[1];
    assert_eq!(digits(&usage.raw, &["total_cost"]), cost([known]));
    let last_year = user
        .get("/api/chat/usage/summary?period=year&year=2020")
        .await;
    assert_eq!(last_year.body["calls"], 0);
    for bad in ["period=day&year=2020", "period=month&month=13", "period=x"] {
        let refused = user.get(&format!("/api/chat/usage/summary?{bad}")).await;
        assert!(
            refused.problem().starts_with("422 validation_failed"),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn the_report_is_a_table_too_and_no_formula_gets_into_it() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let row = |model: &str, cost: &str, wasted: bool| {
        format!(
            "INSERT INTO chat.usage_tracking (id, user_id, operation, model, prompt_tokens, completion_tokens,
                                              cost_credits, is_free_model, wasted, processing_time_ms)
             VALUES ('{}', '{}', 'completion', '{model}', 10, 5, {cost}, false, {wasted}, 1)",
            crate::common::fresh_id(),
            user.user
        )
    };
    for (model, cost, wasted) in [
        ("=HYPERLINK(\"http://x\")", "0.1234567890123456789", false),
        ("b", "NULL", false),
        ("b", "0.0000000000000000001", true),
    ] {
        app.env.execute(&row(model, cost, wasted)).await;
    }
    let table = user
        .service()
        .get("/internal/usage/report?format=csv")
        .await;
    assert_eq!(table.status, 200);
    assert_eq!(table.header("content-type"), "text/csv; charset=utf-8");
    let lines: BTreeMap<String, String> = table
        .raw
        .lines()
        .filter_map(|line| {
            let (about, rest) = line.split_once(',')?;
            Some((about.to_owned(), rest.to_owned()))
        })
        .collect();
    assert_eq!(
        lines["total"],
        ",3,30,15,45,0.123456789012345679,1,1,0.0000000000000000001"
    );
    assert!(
        table.raw.contains(
            "model,\"'=HYPERLINK(\"\"http://x\"\")\",1,10,5,15,0.1234567890123456789,0,0,0\r\n"
        ),
        "{}",
        table.raw
    );
    assert_eq!(table.raw.matches("\nlast_7_days,").count(), 7);
    for bad in ["days=0", "days=367", "months=0", "format=xml"] {
        let refused = user
            .service()
            .get(&format!("/internal/usage/report?{bad}"))
            .await;
        assert!(
            refused.problem().starts_with("422 validation_failed"),
            "{bad}"
        );
    }
}

/// A day's usage of somebody.
async fn used(
    app: &TestApp,
    user: uuid::Uuid,
    model: &str,
    days_ago: i32,
    tokens: i64,
    credits: &str,
) {
    let row = format!(
        "INSERT INTO chat.usage_tracking (id, user_id, operation, model, prompt_tokens, completion_tokens, cost_credits,
                                          is_free_model, processing_time_ms, created_at)
         SELECT (substr(chat.uuid7_floor(t.at)::text, 1, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid,
                '{user}', 'completion', '{model}', {tokens}, 0, {credits}, false, 1, t.at
         FROM (SELECT now() - interval '{days_ago} days' - interval '1 hour' AS at) t"
    );
    app.env.execute(&row).await;
}

#[tokio::test]
async fn who_takes_far_more_than_before_is_reported_and_told_once() {
    let mut app = TestApp::without_worker().await;
    let (wild, steady, new) = (app.user(), app.user(), app.user());
    for day in 1..=5 {
        used(&app, wild.user, "m/wild", day, 100_000, "0.5").await;
        used(&app, steady.user, "m/steady", day, 900_000, "4").await;
    }
    used(&app, wild.user, "m/wild", 0, 600_000, "7.25").await;
    used(&app, steady.user, "m/steady", 0, 1_000_000, "5").await;
    // Without a history there is nothing to be far above of.
    used(&app, new.user, "m/new", 0, 5_000_000, "50").await;
    let report = app.user().service().get("/internal/usage/report").await;
    let mut found: Vec<String> = report.body["anomalies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|anomaly| {
            let text = |name: &str| anomaly[name].as_str().unwrap().to_owned();
            let of = text("of").replace(&wild.user.to_string(), "the wild one");
            let (amount, usual) = (&anomaly["amount"], &anomaly["usual"]);
            format!(
                "{} {of}: {amount} {}, usually {usual}",
                text("about"),
                text("unit")
            )
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "model m/wild: 600000 tokens, usually 100000",
            "model m/wild: 7.25 credits, usually 0.5",
            "user the wild one: 600000 tokens, usually 100000",
            "user the wild one: 7.25 credits, usually 0.5",
        ]
    );
    app.start_worker();
    let anonymous = app.user().anonymous();
    let line = "usage_anomalies_total{about=\"user\",unit=\"credits\"} 1";
    until(async || {
        let metrics = anonymous.get("/metrics").await;
        metrics.raw.contains(line).then_some(())
    })
    .await;
}
