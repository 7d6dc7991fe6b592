//! Budgets: reserved with the message, settled after the reply, and never exceeded on the way.

use serde_json::json;
use shared::domain::timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::common::{Answer, Client, TestApp, until};

pub(crate) const FREE: &str = "meta-llama/llama-3.2-3b-instruct:free";

/// A reply is reckoned with 9,500 tokens, each at a millionth of a credit.
const PAID_MODELS: [(&str, &str); 5] = [
    ("USE_FREE_MODELS_ONLY", "false"),
    ("DEFAULT_MODEL", "openai/gpt-4o-mini"),
    ("FALLBACK_MODEL", FREE),
    ("EMERGENCY_FALLBACK_MODEL", "anthropic/claude-3.5-haiku"),
    (
        "MODEL_CATALOGUE",
        r#"[{"name": "openai/gpt-4o-mini", "prompt_price": 1, "completion_price": 1},
            {"name": "anthropic/claude-3.5-haiku", "prompt_price": 1, "completion_price": 1}]"#,
    ),
];

pub(crate) async fn app(settings: &[(&'static str, &str)]) -> TestApp {
    let all: Vec<_> = PAID_MODELS
        .into_iter()
        .chain(settings.iter().copied())
        .collect();
    TestApp::with(&all).await
}

pub(crate) async fn titled(user: &Client) -> String {
    let answer = user
        .post("/api/chat/conversations", json!({ "title": "titled" }))
        .await;
    answer.text("/id")
}

pub(crate) async fn say(user: &Client, conversation: &str, content: &str) -> Answer {
    let path = format!("/api/chat/conversations/{conversation}/messages");
    user.post(&path, json!({ "content": content })).await
}

/// Everybody posts at once, in conversations of their own; the answers.
async fn rush(users: &[Client], each: usize) -> Vec<Answer> {
    let mut conversations = Vec::new();
    for user in users {
        for _ in 0..each {
            conversations.push((user.clone(), titled(user).await));
        }
    }
    let posts = conversations
        .iter()
        .map(|(user, conversation)| say(user, conversation, "How much?"));
    futures::future::join_all(posts).await
}

fn refused(answers: &[Answer]) -> Vec<&Answer> {
    let refused: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status != 202)
        .collect();
    for answer in &refused {
        assert_eq!(answer.problem(), "429 budget_exhausted");
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_never_reserve_more_than_the_budget_of_their_person() {
    let app = app(&[("BUDGET_USER_DAY", "0.1")]).await;
    let user = app.user().premium();
    let answers = rush(std::slice::from_ref(&user), 50).await;
    let refused = refused(&answers);
    // The eleventh would be the first beyond it: 0.1045.
    assert_eq!(refused.len(), 40);
    let reserved = "SELECT trim_scale(max(reserved)) FROM chat.budget_users WHERE period = 'day'";
    assert_eq!(app.env.value(reserved).await.unwrap(), "0.095");
    assert_eq!(
        app.count("messages").await,
        "10",
        "a refusal stores nothing"
    );
    assert_eq!(app.count("budget_reservations").await, "10");
    let warned = "SELECT count(warned_at) FROM chat.budget_users WHERE period = 'day'";
    assert_eq!(app.env.value(warned).await.unwrap(), "1");
    let metrics = user.anonymous().get("/metrics").await;
    let line = "budget_warnings_total{scope=\"user\",period=\"day\"} 1";
    assert!(metrics.raw.contains(line), "{}", metrics.raw);

    let until = refused[0].text("/resets_at");
    let until = OffsetDateTime::parse(&until, &Rfc3339).unwrap();
    let now = app.clock.now();
    assert_eq!(until.time(), time::Time::MIDNIGHT, "the day ends by UTC");
    assert!(until > now && until - now <= time::Duration::DAY);
    assert!(
        refused[0]
            .text("/detail")
            .contains(&timestamp::format(until))
    );
    let wait: i64 = refused[0].header("retry-after").parse().unwrap();
    assert!((1..=86_402).contains(&wait), "{wait}");

    // Others have budgets of their own, and what costs nothing needs none.
    let other = app.user().premium();
    let id = titled(&other).await;
    assert_eq!(say(&other, &id, "hello").await.status, 202);
    let poor = app.user();
    let id = titled(&poor).await;
    assert_eq!(say(&poor, &id, "hello").await.status, 202);
    assert_eq!(app.count("budget_reservations").await, "11");
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_they_together_reserve_more_than_that_of_all() {
    let app = app(&[("BUDGET_TOTAL_MONTH", "0.1"), ("BUDGET_USER_MONTH", "0.05")]).await;
    let users: Vec<Client> = (0..5).map(|_| app.user().premium()).collect();
    let answers = rush(&users, 10).await;
    assert_eq!(refused(&answers).len(), 40);
    for (table, most) in [("totals", "0.1"), ("users", "0.05")] {
        let over = format!("SELECT count(*) FROM chat.budget_{table} WHERE reserved > {most}");
        assert_eq!(app.env.value(&over).await.unwrap(), "0", "{table}");
    }
    let report = users[0].service().get("/internal/usage/report").await;
    let budgets = report.body["budgets"].as_array().unwrap();
    let of_all = budgets
        .iter()
        .find(|budget| budget["period"] == "month")
        .unwrap();
    assert!(
        report
            .raw
            .contains("\"limit\":0.1,\"reserved\":0.095,\"spent\":0"),
        "{of_all}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_gives_back_what_was_reserved_and_counts_what_was_spent() {
    let settings = [("BUDGET_USER_DAY", "1")];
    let mut app = app(&settings).await;
    app.start_worker_with(&[
        ("BUDGET_USER_DAY", "1"),
        ("COST_REFRESH", "0.2"),
        ("COST_ASK_AFTER", "1"),
    ]);
    let switched =
        "SELECT count(*) FROM pg_trigger WHERE tgname = 'spend_budget' AND tgenabled = 'O'
                    AND tgrelid = 'chat.usage_tracking'::regclass";
    until(async || (app.env.value(switched).await.unwrap() == "1").then_some(())).await;
    let user = app.user().premium();
    let id = titled(&user).await;
    for content in [
        "plain",
        "late [[sim:no_cost]]",
        "again [[sim:cut=5,times=1]]",
        "never [[sim:moderation]]",
    ] {
        assert_eq!(user.ask(&id, content).await.status, 200);
    }
    let stopped = say(&user, &id, "stop [[sim:hold=9]]")
        .await
        .text("/generation/id");
    app.simulator
        .wait_for_call(|call| call.tokens_sent == 9)
        .await;
    let cancel = format!("/api/chat/generations/{stopped}/cancel");
    assert_eq!(user.post(&cancel, json!({})).await.status, 200);
    app.simulator
        .wait_for_stats(|stats| stats.in_flight == 0)
        .await;
    let spent = app.simulator.stats().total.cost;
    let settled = until(async || {
        let row =
            "SELECT string_agg(DISTINCT trim_scale(reserved) || ' ' || trim_scale(spent), ',')
                   FROM (SELECT reserved, spent FROM chat.budget_users
                         UNION ALL SELECT reserved, spent FROM chat.budget_totals) x";
        let row = app.env.value(row).await.unwrap();
        (row == format!("0 {spent}")).then_some(row)
    });
    settled.await;
    assert_eq!(app.count("budget_reservations").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_model_may_answer_once_the_budget_is_used_up() {
    let app = app(&[("BUDGET_USER_DAY", "0"), ("BUDGET_EXHAUSTED", "free_model")]).await;
    let user = app.user().premium();
    let id = titled(&user).await;
    let answer = say(&user, &id, "hello").await;
    assert_eq!(answer.status, 202, "{}", answer.shown());
    assert_eq!(answer.text("/generation/model"), FREE);
    assert_eq!(answer.body["generation"]["is_free_model"], true);
    let chain = "SELECT jsonb_path_query_array(model_chain, '$[*].name') FROM chat.generations";
    assert_eq!(app.env.value(chain).await.unwrap(), format!("[\"{FREE}\"]"));
    assert_eq!(app.count("budget_reservations").await, "0");
    let reserved = "SELECT trim_scale(sum(reserved)) FROM chat.budget_users";
    assert_eq!(app.env.value(reserved).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_reply_needs_a_budget_as_well() {
    let mut app = app(&[("BUDGET_USER_DAY", "0.01")]).await;
    app.start_worker_with(&[("BUDGET_USER_DAY", "0.01"), ("COST_REFRESH", "0")]);
    let user = app.user().premium();
    let id = titled(&user).await;
    let answer = user.ask(&id, "hello [[sim:cost=0.005]]").await;
    assert_eq!(answer.text("/generation/status"), "completed");
    let message = answer.text("/assistant_message/id");
    // What it cost is known with the reply, and too much is left of it for another estimate.
    let path = format!("/api/chat/conversations/{id}/messages/{message}/regenerate");
    let refused = user.post(&path, json!({})).await;
    assert_eq!(refused.problem(), "429 budget_exhausted");
    let key = [("idempotency-key", "the-same")];
    let refused = user.post_with(&path, &key, json!({})).await;
    assert_eq!(refused.problem(), "429 budget_exhausted");
    let free = user.post(&path, json!({ "model": FREE })).await;
    assert_eq!(
        free.problem(),
        "429 budget_exhausted",
        "others follow in its chain"
    );
    assert_eq!(app.count("generations").await, "1");
}

#[tokio::test]
async fn without_budgets_nothing_is_counted() {
    let mut app = app(&[]).await;
    app.start_worker();
    let user = app.user().premium();
    let id = titled(&user).await;
    assert_eq!(user.ask(&id, "hello").await.status, 200);
    for table in ["budget_users", "budget_totals", "budget_reservations"] {
        assert_eq!(app.count(table).await, "0", "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_desk_spends_of_the_same_budget() {
    let app = app(&[("BUDGET_USER_DAY", "0.01")]).await;
    let user = app.user().premium();
    let ask = async || {
        let headers = [("prefer", "wait=0")];
        let question = json!({ "message": "SP2D tidak bisa dicetak" });
        let path = "/api/chat/support/chat";
        user.post_with(path, &headers, question).await
    };
    let first = ask().await;
    assert_eq!(first.status, 202, "{}", first.shown());
    assert_eq!(app.count("budget_reservations").await, "1");
    assert_eq!(ask().await.problem(), "429 budget_exhausted");
    assert_eq!(app.count("messages").await, "1", "a refusal stores nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_is_reserved_for_and_made_by_a_free_model_where_nothing_is_left() {
    let mut app = app(&[("BUDGET_USER_DAY", "0.01")]).await;
    app.start_worker_with(&[("BUDGET_USER_DAY", "0.01"), ("COST_REFRESH", "0")]);
    let user = app.user().premium();
    let id = crate::common::conversation(&user).await;
    let answer = user.ask(&id, "hello [[sim:cost=0.009]]").await;
    assert_eq!(answer.text("/generation/status"), "completed");
    let asked = "SELECT string_agg(model_asked, ' ') FROM chat.attempts WHERE operation = 'title'";
    let asked = until(async || app.env.value(asked).await).await;
    assert_eq!(asked, FREE);

    // What was reserved is given back.
    until(async || (app.count("budget_reservations").await == "0").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_costs_more_than_was_reserved_is_warned_of_when_it_is_settled() {
    let mut app = app(&[("BUDGET_USER_DAY", "0.02"), ("BUDGET_TOTAL_DAY", "0.1")]).await;
    app.start_worker_with(&[
        ("BUDGET_USER_DAY", "0.02"),
        ("BUDGET_TOTAL_DAY", "0.1"),
        ("COST_REFRESH", "0"),
    ]);
    let user = app.user().premium();
    let id = titled(&user).await;
    let answer = user.ask(&id, "hello [[sim:cost=0.018]]").await;
    assert_eq!(answer.text("/generation/status"), "completed");
    let warned = "SELECT count(warned_at) FROM chat.budget_users WHERE period = 'day'";
    until(async || (app.env.value(warned).await.unwrap() == "1").then_some(())).await;
    // Everybody's has room, and a month has no limit here.
    for others in [
        "SELECT count(warned_at) FROM chat.budget_totals",
        "SELECT count(warned_at) FROM chat.budget_users WHERE period = 'month'",
    ] {
        assert_eq!(app.env.value(others).await.unwrap(), "0", "{others}");
    }
}
