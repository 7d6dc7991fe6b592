//! Another embedding model, while everybody goes on asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use serde_json::{Value, json};

use crate::common::{Client, TestApp, until};
use crate::knowledge::{editor, ended, index};

const PATH: &str = "/api/chat/knowledge/reindex";

/// A file of so many entries, each with a word of its own.
fn file(entries: std::ops::Range<u32>) -> String {
    let rows = entries.map(|number| {
        format!(
            "Menu {},kode galat{number}x muncul,Obat {number}\n",
            number % 7
        )
    });
    format!("MENU,ISSUE,EXPECTED\n{}", rows.collect::<String>())
}

async fn profiles(editor: &Client) -> Vec<Value> {
    let read = editor.get(PATH).await;
    assert_eq!(read.status, 200, "{}", read.shown());
    read.body["profiles"].as_array().unwrap().clone()
}

fn active(profiles: &[Value]) -> &Value {
    let mut active = profiles
        .iter()
        .filter(|profile| profile["state"] == "active");
    let only = active.next().expect("a profile serves");
    assert!(active.next().is_none(), "one profile serves: {profiles:?}");
    only
}

async fn wish(editor: &Client, model: &str, dimension: i32) -> String {
    let wished = editor
        .post(
            PATH,
            json!({ "embedding_model": model, "dimension": dimension }),
        )
        .await;
    assert_eq!(wished.status, 202, "{}", wished.shown());
    assert_eq!(wished.text("/ingestion/kind"), "reindex");
    wished.text("/ingestion/id")
}

/// Asks until told to stop; every answer must have the entry, found by both legs. Returns how many there were.
async fn ask_on(editor: Client, first: u32, stop: Arc<AtomicBool>) -> u32 {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        // Written as nobody has written it yet, so that its vector has to be made.
        let number = (first + asked * 7) % 120;
        let written = "%21".repeat(usize::try_from(asked).unwrap());
        let path = format!(
            "/api/chat/knowledge/search?q=menu%20{}%20kode%20galat{number}x%20muncul{written}&top_k=5",
            number % 7
        );
        let found = editor.get(&path).await;
        assert_eq!(found.status, 200, "{}", found.shown());
        assert_eq!(found.body["degraded"], false, "{}", found.shown());
        let solution = format!("Obat {number}");
        let results = found.body["results"].as_array().unwrap();
        let right = results
            .iter()
            .find(|one| one["document"]["solution"] == solution.as_str());
        let right = right.unwrap_or_else(|| panic!("{number}: {}", found.shown()));
        assert_eq!(right["words"]["rank"], 1, "{}", found.shown());
        assert_ne!(right["vector"], Value::Null, "{}", found.shown());
        asked += 1;
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_takes_over_while_everybody_asks_and_goes_back_for_nothing() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    index(&editor, file(0..120).as_bytes()).await;
    let before = active(&profiles(&editor).await).clone();
    assert_eq!(
        (&before["dimension"], &before["vectors"]),
        (&json!(256), &json!(120)),
        "{before}"
    );
    let stop = Arc::new(AtomicBool::new(false));
    let mut askers = tokio::task::JoinSet::new();
    for first in 0..4 {
        askers.spawn(ask_on(editor.clone(), first * 31, Arc::clone(&stop)));
    }
    // Slow enough that entries come while the new vectors are made.
    let mut settings = app.simulator.settings();
    settings.ttfb_ms = 30;
    app.simulator.set_settings(settings);
    let id = wish(&editor, "other/model", 96).await;
    let busy = json!({ "embedding_model": "third/model", "dimension": 64 });
    assert_eq!(
        editor.post(PATH, busy).await.problem(),
        "409 reindex_running"
    );
    let more = index(&editor, file(120..150).as_bytes()).await;
    assert_eq!(more["documents_new"], 30, "{more}");
    let done = ended(&editor, &id).await;
    assert_eq!(done["status"], "completed", "{done}");
    // They go on for a while with the new one.
    let asked_then = app.simulator.calls().len();
    until(async || (app.simulator.calls().len() > asked_then + 8).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    let asked: u32 = askers.join_all().await.into_iter().sum();
    assert!(asked > 20, "{asked} questions are no load");

    let after = profiles(&editor).await;
    let now = active(&after);
    assert_eq!(
        (&now["model"], &now["dimension"], &now["vectors"]),
        (&json!("other/model"), &json!(96), &json!(150)),
        "{after:?}"
    );
    assert_eq!(
        editor
            .post(
                PATH,
                json!({ "embedding_model": "other/model", "dimension": 96 })
            )
            .await
            .problem(),
        "409 model_serves"
    );

    // Going back asks for what the old one has not seen, and for nothing else.
    app.simulator.clear_calls();
    let id = wish(&editor, before["model"].as_str().unwrap(), 256).await;
    let back = ended(&editor, &id).await;
    assert_eq!(back["status"], "completed", "{back}");
    let seen: u64 = before["vectors"].as_u64().unwrap();
    assert!(
        back["chunks_embedded"].as_u64().unwrap() <= 150 - seen,
        "{back}"
    );
    let after = profiles(&editor).await;
    assert_eq!(active(&after)["id"], before["id"], "{after:?}");
    assert_eq!(after.len(), 2, "no profile is made twice: {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_fit_changes_nothing_and_a_cancelled_one_is_taken_up_again() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    index(&editor, file(0..120).as_bytes()).await;
    let before = active(&profiles(&editor).await).clone();
    // The provider has another length of vectors than was asked for.
    app.simulator.script("model=odd/model,dimension=31");
    let id = wish(&editor, "odd/model", 32).await;
    let failed = ended(&editor, &id).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let problem = failed["problem"].as_str().unwrap();
    assert!(
        problem.contains("embedding_dimension_mismatch"),
        "{problem}"
    );
    app.simulator.clear_script();

    let mut settings = app.simulator.settings();
    settings.ttfb_ms = 300;
    app.simulator.set_settings(settings.clone());
    let id = wish(&editor, "slow/model", 48).await;
    let path = format!("/api/chat/knowledge/ingestions/{id}");
    until(async || {
        let read = editor.get(&path).await;
        (read.body["ingestion"]["chunks_embedded"].as_u64() > Some(0)).then_some(())
    })
    .await;
    let read = editor.get(PATH).await;
    assert_eq!(read.text("/reindex/id"), id, "{}", read.shown());
    let cancelled = editor.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.shown());
    let after = profiles(&editor).await;
    assert_eq!(active(&after)["id"], before["id"], "{after:?}");
    assert!(
        after.iter().all(|profile| profile["state"] != "building"),
        "{after:?}"
    );
    assert_eq!(editor.get(PATH).await.body["reindex"], Value::Null);
    // What was made by then is not made again.
    settings.ttfb_ms = 0;
    app.simulator.set_settings(settings);
    let id = wish(&editor, "slow/model", 48).await;
    let done = ended(&editor, &id).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert!(done["chunks_embedded"].as_u64() < Some(120), "{done}");
    let after = profiles(&editor).await;
    assert_eq!(active(&after)["model"], "slow/model", "{after:?}");
    assert_eq!(active(&after)["vectors"], 120, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_model_is_refused_and_a_repeated_wish_is_one() {
    let app = TestApp::without_worker().await;
    let editor = editor(&app);
    for (body, field) in [
        (
            json!({ "embedding_model": " ", "dimension": 8 }),
            "embedding_model",
        ),
        (
            json!({ "embedding_model": "x".repeat(201), "dimension": 8 }),
            "embedding_model",
        ),
        (
            json!({ "embedding_model": "x", "dimension": 0 }),
            "dimension",
        ),
        (
            json!({ "embedding_model": "x", "dimension": 3901 }),
            "dimension",
        ),
        (
            json!({ "embedding_model": "x", "dimension": 8, "query_prefix": "p".repeat(501) }),
            "query_prefix",
        ),
    ] {
        let answer = editor.post(PATH, body).await;
        assert_eq!(
            answer.problem(),
            format!("422 validation_failed {field}"),
            "{field}"
        );
    }
    let wish = json!({ "embedding_model": "x", "dimension": 8 });
    let key = [("idempotency-key", "once")];
    let first = editor.post_with(PATH, &key, wish.clone()).await;
    assert_eq!(first.status, 202, "{}", first.shown());
    let again = editor.post_with(PATH, &key, wish).await;
    assert_eq!(
        (again.status, again.text("/ingestion/id")),
        (202, first.text("/ingestion/id"))
    );
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other = json!({ "embedding_model": "y", "dimension": 8 });
    assert_eq!(
        editor.post_with(PATH, &key, other).await.problem(),
        "422 idempotency_conflict"
    );
    assert_eq!(app.count("knowledge_ingestions").await, "1");
    let person = app.user();
    for (method, path) in [
        (Method::GET, PATH),
        (Method::GET, "/api/chat/knowledge/synonyms"),
    ] {
        let answer = person.send(person.request(method, path)).await;
        assert_eq!(answer.problem(), "403 admin_required", "{path}");
    }
}
