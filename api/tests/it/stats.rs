//! The figures of the fleet.

use serde_json::{Value, json};

use crate::common::{Answer, Client, TestApp, until};
use crate::knowledge::{editor, index};

const STATS: &str = "/internal/stats";

const FILE: &[u8] = b"MENU,ISSUE,EXPECTED\n\
    Akun,Lupa kata sandi dan akun terkunci,Atur ulang password lewat menu Lupa Sandi\n";

async fn ask(client: &Client, message: &str) -> Answer {
    let body = json!({ "message": message });
    let answer = client.post("/api/chat/support/chat", body).await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_the_fleets_and_the_cost_is_the_ledgers() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    index(&editor, FILE).await;
    let person = app.user();
    let conversation = crate::common::conversation(&person).await;
    person.ask(&conversation, "What is a ledger?").await;
    let failed = person.ask(&conversation, "[[sim:moderation]] x").await;
    assert_eq!(failed.text("/generation/status"), "failed");
    for _ in 0..2 {
        ask(&person, "akun saya kekunci, lupa kata sandi").await;
    }
    // Asked of the other replica, so that both have counted something.
    let other = app.another_replica().await;
    let elsewhere = editor.at(&other.client(editor.user).url);
    let found = elsewhere
        .get("/api/chat/knowledge/search?q=kata%20sandi")
        .await;
    assert_eq!(found.status, 200, "{}", found.shown());
    let service = person.service();
    let stats = until(async || {
        let stats = service.get(STATS).await;
        assert_eq!(stats.status, 200, "{}", stats.shown());
        let whole = stats.body["requests"]["count"] == 4
            && stats.body["search"]["count"] == 3
            && stats.body["embedding_cache"]["entries"] == 2;
        whole.then_some(stats)
    })
    .await;
    let body = &stats.body;
    assert_eq!(
        (&body["requests"]["failed"], &body["requests"]["error_rate"]),
        (&json!(1), &json!(0.25)),
        "{}",
        stats.raw
    );
    assert_eq!(
        (&body["support"]["count"], &body["support"]["failed"]),
        (&json!(2), &json!(0))
    );
    for part in ["requests", "support", "embedding", "search"] {
        let times = (&body[part]["average_ms"], &body[part]["p95_ms"]);
        assert!(
            times.0.as_f64().unwrap() > 0.0 && times.1.as_f64().unwrap() > 0.0,
            "{part}: {}",
            stats.raw
        );
    }
    // The same question twice is a miss and a hit; the search is another miss.
    let cache = &body["embedding_cache"];
    assert_eq!(
        (&cache["hits"], &cache["misses"]),
        (&json!(1), &json!(2)),
        "{}",
        stats.raw
    );
    assert_eq!(
        cache["bytes"].as_i64().unwrap() % (2 * 4),
        0,
        "{}",
        stats.raw
    );
    assert_eq!(body["search"]["degraded"], 0);

    // Cost: the same sums as in the usage report, to the last digit.
    let report = service.get("/internal/usage/report?days=7").await;
    assert_eq!(body["cost"]["total"], report.body["total"]);
    assert_eq!(body["cost"]["by_operation"], report.body["by_operation"]);
    assert_eq!(body["cost"]["by_model"], report.body["by_model"]);
    let pairs = body["cost"]["by_operation_and_model"].as_array().unwrap();
    assert!(
        pairs.iter().any(|pair| pair["operation"] == "embedding"),
        "{}",
        stats.raw
    );

    for days in ["0", "91", "x"] {
        let refused = service.get(&format!("{STATS}?days={days}")).await;
        assert_eq!(refused.problem(), "422 validation_failed days");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deflected_is_what_ended_well_without_a_person() {
    let app = TestApp::new().await;
    index(&editor(&app), FILE).await;
    let person = app.user();
    let session = |answer: &Answer| answer.text("/session_id");
    let well = session(&ask(&person, "lupa kata sandi, akun terkunci").await);
    let unanswered = session(&ask(&person, "resep rendang daging sapi").await);
    let handed = session(&ask(&person, "tolong hubungkan saya dengan petugas").await);
    let reopened = session(&ask(&person, "akun terkunci karena lupa kata sandi").await);
    let disliked = ask(&person, "lupa sandi dan akun terkunci").await;
    let young = session(&ask(&person, "akun terkunci").await);
    let rating = format!(
        "/api/chat/conversations/{}/messages/{}/feedback",
        session(&disliked),
        disliked.text("/generation/assistant_message_id")
    );
    person.post(&rating, json!({ "rating": "down" })).await;
    let body = json!({ "message": "akun terkunci lagi, lupa kata sandi", "session_id": reopened });
    person.post("/api/chat/support/chat", body).await;
    // All but one began two days ago; to one somebody came back, yesterday.
    app.env
        .execute(&format!(
            "UPDATE chat.support_questions SET asked_at = now() - interval '60 hours' WHERE conversation_id <> '{young}'"
        ))
        .await;
    app.env
        .execute(&format!(
            "UPDATE chat.support_questions SET asked_at = now() - interval '30 hours'
             WHERE message_id = (SELECT message_id FROM chat.support_questions WHERE conversation_id = '{reopened}'
                                 ORDER BY message_id DESC LIMIT 1)"
        ))
        .await;
    let stats = person.service().get(STATS).await;
    let outcomes = &stats.body["outcomes"];
    assert_eq!(
        outcomes,
        &json!({
            "questions": 7, "answered": 5, "rated_up": 0, "rated_down": 1, "sessions": 6, "open": 1,
            "handed_over": 1, "reopened": 1, "deflected": 1, "deflection_rate": 0.2, "truncated": false,
        }),
        "{well} {unanswered} {handed}: {}",
        stats.raw
    );
    let nothing = TestApp::without_worker().await;
    let stats = nothing.user().service().get(STATS).await;
    assert_eq!(
        (
            &stats.body["outcomes"]["deflection_rate"],
            &stats.body["requests"]["p95_ms"]
        ),
        (&Value::Null, &Value::Null)
    );
}
