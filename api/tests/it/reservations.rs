//! How long credits stay reserved, for what, and who counts what is spent.

use serde_json::json;

use crate::budgets::{FREE, app, say, titled};
use crate::common::{Client, TestApp, until};
use crate::usage::digits;

const USER_DAY: (&str, &str) = ("BUDGET_USER_DAY", "1");

impl TestApp {
    async fn is(&self, sql: &str) {
        until(async || (self.env.value(sql).await.as_deref() == Some("true")).then_some(())).await;
    }

    async fn is_counting(&self) -> bool {
        let sql = "SELECT bool_and(tgenabled = 'O') FROM pg_trigger
                   WHERE tgname LIKE 'spend_budget%' AND tgrelid = 'chat.usage_tracking'::regclass";
        self.env.value(sql).await.as_deref() == Some("true")
    }

    async fn counts(&self) {
        until(async || self.is_counting().await.then_some(())).await;
    }
}

/// A reply whose cost the upstream does not tell, and will not for a while.
async fn unknown(app: &mut TestApp) -> Client {
    let mut slow = app.simulator.settings();
    slow.generation_lag_ms = 600_000;
    app.simulator.set_settings(slow);
    app.start_worker_with(&[USER_DAY, ("COST_REFRESH", "0.2"), ("COST_ASK_AFTER", "0")]);
    app.counts().await;
    let user = app.user().premium();
    let id = titled(&user).await;
    let answer = user.ask(&id, "How much? [[sim:no_cost]]").await;
    assert_eq!(answer.text("/generation/status"), "completed");
    // It was asked for, in vain.
    app.is("SELECT tries > 0 FROM chat.cost_questions").await;
    // A round of giving back goes by, in which that of another reply, whose cost is known, is given back.
    assert_eq!(user.ask(&id, "And this?").await.status, 200);
    let first = answer.text("/generation/id");
    app.is(&format!(
        "SELECT count(*) = 1 AND bool_and(generation_id = '{first}') FROM chat.budget_reservations"
    ))
    .await;
    let held = "SELECT trim_scale(reserved) FROM chat.budget_users WHERE period = 'day'";
    assert_eq!(app.env.value(held).await.unwrap(), "0.0095");
    user
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_stays_so_until_the_cost_is_known() {
    let mut app = app(&[USER_DAY]).await;
    unknown(&mut app).await;
    let mut known = app.simulator.settings();
    known.generation_lag_ms = 0;
    app.simulator.set_settings(known);
    app.env
        .execute("UPDATE chat.cost_questions SET ask_at = now()")
        .await;
    app.is("SELECT count(*) = 0 FROM chat.budget_reservations")
        .await;
    let spent = "SELECT string_agg(DISTINCT trim_scale(reserved) || ' ' || trim_scale(spent), ',') FROM chat.budget_users";
    let cost = app.simulator.stats().total.cost;
    assert_eq!(app.env.value(spent).await.unwrap(), format!("0 {cost}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn or_nobody_asks_for_it_any_more() {
    let mut app = app(&[USER_DAY]).await;
    unknown(&mut app).await;
    app.env
        .execute("UPDATE chat.cost_questions SET given_up_at = now()")
        .await;
    app.is("SELECT count(*) = 0 FROM chat.budget_reservations")
        .await;
    let reserved = "SELECT trim_scale(max(reserved)) FROM chat.budget_users";
    assert_eq!(app.env.value(reserved).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_budgets_stops_nobody_from_counting() {
    let app = app(&[]).await;
    let switch = async |wanted: bool| {
        let sql = format!("SELECT chat.switch_budgets({wanted})");
        app.env.value(&sql).await.unwrap()
    };
    assert_eq!(switch(false).await, "false", "it is off to begin with");
    assert_eq!(switch(true).await, "true");
    assert!(app.is_counting().await);
    // As any worker does when it starts that knows of no budget.
    assert_eq!(switch(false).await, "false");
    assert!(app.is_counting().await);
    // Nobody has wanted it for a day: the budgets were taken away.
    app.env
        .execute("UPDATE chat.budget_keeping SET wanted_at = now() - interval '25 hours'")
        .await;
    assert_eq!(switch(false).await, "true");
    assert!(!app.is_counting().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_that_is_not_set_is_not_written() {
    let mut app = app(&[USER_DAY]).await;
    app.start_worker_with(&[USER_DAY]);
    app.counts().await;
    let user = app.user().premium();
    let id = titled(&user).await;
    assert_eq!(user.ask(&id, "hello [[sim:cost=0.25]]").await.status, 200);
    let spent = "SELECT trim_scale(spent) FROM chat.budget_users WHERE period = 'month'";
    assert_eq!(app.env.value(spent).await.unwrap(), "0.25");
    app.is("SELECT count(*) = 0 FROM chat.budget_reservations")
        .await;
    assert_eq!(app.count("budget_totals").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_that_is_set_counts_what_is_spent_by_anybody() {
    let limits = [("BUDGET_TOTAL_DAY", "10"), ("BUDGET_USER_DAY", "5")];
    let mut app = app(&limits).await;
    app.start_worker_with(&limits);
    app.counts().await;
    // Also of somebody for whom nothing had to be reserved.
    let row = format!(
        "INSERT INTO chat.usage_tracking (id, user_id, operation, model, prompt_tokens, completion_tokens,
                                          cost_credits, is_free_model, processing_time_ms)
         VALUES ('{}', '{}', 'embedding', 'm', 1, 0, 0.125, false, 1)",
        crate::common::fresh_id(),
        app.user().user,
    );
    app.is("SELECT count(*) = 2 FROM chat.budget_totals").await;
    app.env.execute(&row).await;
    let user = app.user().premium();
    let id = titled(&user).await;
    assert_eq!(user.ask(&id, "hello [[sim:cost=0.25]]").await.status, 200);
    let today = "SELECT trim_scale(spent) = 0.375 AND reserved = 0 FROM chat.budget_totals
                 WHERE period = 'day' AND starts_on = (now() AT TIME ZONE 'UTC')::date";
    app.is(today).await;
    let others = "SELECT count(*) FROM chat.budget_totals WHERE period = 'month' OR spent < 0";
    assert_eq!(app.env.value(others).await.unwrap(), "0");
}

/// Long turns, in a conversation whose prompts are full at once.
async fn fill(user: &Client, id: &str, turns: usize) {
    for turn in 0..turns {
        let content = format!("Turn {turn}. {} [[sim:cost=0]]", "And so on. ".repeat(20));
        assert_eq!(
            user.ask(id, &content).await.text("/generation/status"),
            "completed"
        );
    }
}

const SUMMARIES: [(&str, &str); 3] = [
    ("MAX_CONVERSATION_HISTORY_TOKENS", "300"),
    ("SUMMARY_MODEL", "openai/gpt-4o"),
    ("COST_REFRESH", "0"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_reserved_for_while_it_is_made() {
    let mut app = app(&[USER_DAY]).await;
    app.start_worker_with(&[&SUMMARIES[..], &[USER_DAY]].concat());
    let user = app.user().premium();
    let id = titled(&user).await;
    app.simulator
        .script_containing("Write the notes now", "hold=2");
    fill(&user, &id, 4).await;
    app.simulator
        .wait_for_call(|call| call.model == "openai/gpt-4o" && call.tokens_sent == 2)
        .await;
    app.is("SELECT count(*) = 1 FROM chat.budget_reservations r WHERE r.calls_of IS NOT NULL")
        .await;
    let held = "SELECT r.credits > 0 AND r.held_until > now() FROM chat.budget_reservations r
                JOIN chat.generations g ON g.id = r.calls_of AND g.status = 'completed'";
    assert_eq!(app.env.value(held).await.unwrap(), "true");
    app.simulator.clear_script();
    until(async || {
        app.simulator.release();
        (app.count("budget_reservations").await == "0").then_some(())
    })
    .await;
    assert_ne!(app.count("conversation_summaries").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_is_made_by_a_free_model_where_nothing_is_left() {
    let mut app = app(&[USER_DAY]).await;
    // The replies of this person may cost something, their summaries may not.
    app.start_worker_with(&[&SUMMARIES[..], &[("BUDGET_USER_DAY", "0")]].concat());
    let user = app.user().premium();
    let id = titled(&user).await;
    fill(&user, &id, 4).await;
    let made = "SELECT string_agg(DISTINCT a.model_asked, ',') FROM chat.attempts a WHERE a.operation = 'summary'";
    let made = until(async || app.env.value(made).await).await;
    assert_eq!(made, FREE);
    assert_eq!(
        app.env
            .value("SELECT count(*) FROM chat.budget_reservations WHERE calls_of IS NOT NULL")
            .await
            .unwrap(),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_needs_a_budget_as_well() {
    let mut app = app(&[("BUDGET_USER_DAY", "0.01")]).await;
    app.start_worker_with(&[("BUDGET_USER_DAY", "0.01")]);
    let user = app.user().premium();
    let id = titled(&user).await;
    app.simulator.script("400");
    let refused = user.ask(&id, "no").await;
    let letter = refused.text("/generation/id");
    assert_eq!(refused.text("/generation/status"), "failed");
    app.simulator.clear_script();
    app.is("SELECT count(*) = 0 FROM chat.budget_reservations")
        .await;
    let replay = format!("/internal/dead-letters/{letter}/replay");
    let replay = async || user.service().post(&replay, json!({})).await;
    // Somebody else's message of the same person holds what there is.
    let other = titled(&user).await;
    app.simulator.script_containing("hold on", "hold=1");
    let holding = say(&user, &other, "hold on").await;
    assert_eq!(holding.status, 202);
    let answer = replay().await;
    assert_eq!(
        answer.problem(),
        "429 budget_exhausted",
        "{}",
        answer.shown()
    );
    assert!(!answer.text("/resets_at").is_empty());
    let many = user
        .service()
        .post("/internal/dead-letters/replay", json!({ "ids": [letter] }))
        .await;
    assert_eq!(
        many.text("/refused/0/code"),
        "budget_exhausted",
        "{}",
        many.shown()
    );
    assert_eq!(
        app.count("generations").await,
        "2",
        "a refusal queues nothing"
    );
    app.simulator.clear_script();
    until(async || {
        app.simulator.release();
        (app.count("budget_reservations").await == "0").then_some(())
    })
    .await;
    app.simulator.script("hold=1");
    let answer = replay().await;
    assert_eq!(answer.status, 202, "{}", answer.shown());
    let reserved = "SELECT trim_scale(r.credits) FROM chat.budget_reservations r
                    JOIN chat.generations g ON g.replayed_as = r.generation_id";
    assert_eq!(app.env.value(reserved).await.unwrap(), "0.0095");
    app.simulator.clear_script();
    until(async || {
        app.simulator.release();
        (app.count("budget_reservations").await == "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_that_the_upstream_lists_are_reckoned_with() {
    let settings = [
        ("USE_FREE_MODELS_ONLY", "false"),
        ("DEFAULT_MODEL", "openai/gpt-4o-mini"),
        ("FALLBACK_MODEL", FREE),
        ("EMERGENCY_FALLBACK_MODEL", FREE),
        USER_DAY,
    ];
    let mut app = TestApp::with(&settings).await;
    app.start_worker_with(&[USER_DAY]);
    let user = app.user().premium();
    // The worker has asked for them and written them down, and the API reads them.
    let reserved = until(async || {
        let id = titled(&user).await;
        let sent = say(&user, &id, "How much?").await;
        assert_eq!(sent.status, 202, "{}", sent.shown());
        let generation = sent.text("/generation/id");
        let most = "SELECT trim_scale(max(reserved)) FROM chat.budget_users";
        let most = app.env.value(most).await.unwrap();
        user.ended(&generation).await;
        app.is("SELECT count(*) = 0 FROM chat.budget_reservations")
            .await;
        // Until then it is fifteen credits for a million tokens: 0.1425.
        (most != "0.1425" && most != "0").then_some(most)
    })
    .await;
    // 8,500 tokens to read and 1,000 to write, as the simulator lists them.
    assert_eq!(reserved, "0.001875");
}

#[tokio::test]
async fn an_answer_of_no_model_is_in_no_report() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let row = |model: &str, cost: &str| {
        format!(
            "INSERT INTO chat.usage_tracking (id, user_id, operation, model, prompt_tokens, completion_tokens,
                                              cost_credits, is_free_model, processing_time_ms)
             VALUES ('{}', '{}', 'completion', '{model}', 0, 0, {cost}, true, 1)",
            crate::common::fresh_id(),
            user.user
        )
    };
    app.env.execute(&row(shared::domain::TEMPLATE, "0")).await;
    app.env.execute(&row("m/a", "0.5")).await;
    let report = user.service().get("/internal/usage/report").await;
    let summary = user.get("/api/chat/usage/summary").await;
    assert_eq!(digits(&report.raw, &["total", "calls"]), "1");
    for answer in [report, summary] {
        assert!(!answer.raw.contains("template"), "{}", answer.raw);
        let models = answer.body["by_model"].as_object().unwrap();
        assert_eq!(models.keys().collect::<Vec<_>>(), ["m/a"]);
        assert_eq!(answer.body["by_operation"]["completion"]["calls"], 1);
    }
}

/// Usage once had ids of its own. A cost that comes late for such a call changes that row and adds none.
#[tokio::test(flavor = "multi_thread")]
async fn usage_that_was_booked_under_another_id_is_settled_once() {
    let mut app = TestApp::without_worker().await;
    app.start_worker_with(&[("COST_REFRESH", "0"), ("COST_ASK_AFTER", "0")]);
    let user = app.user();
    let id = titled(&user).await;
    assert_eq!(user.ask(&id, "What? [[sim:no_cost]]").await.status, 200);
    app.env
        .execute(&format!(
            "UPDATE chat.usage_tracking SET id = '{}'",
            crate::common::fresh_id()
        ))
        .await;
    app.start_worker_with(&[("COST_REFRESH", "0.1"), ("COST_ASK_AFTER", "0")]);
    app.is("SELECT bool_and(cost_credits IS NOT NULL) FROM chat.attempts")
        .await;
    assert_eq!(app.count("usage_tracking").await, "1");
    app.is("SELECT bool_and(cost_credits IS NOT NULL) FROM chat.usage_tracking")
        .await;
}
