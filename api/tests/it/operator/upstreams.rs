//! How the models' provider is, as operators see it.

use serde_json::{Value, json};

use crate::common::{TestApp, conversation, until};

#[tokio::test]
async fn the_upstream_is_shown_as_the_workers_see_it() {
    let mut app = TestApp::without_worker().await;
    let service = app.user().service();
    let none = service.get("/internal/upstreams").await;
    assert_eq!(
        none.body,
        json!({ "workers": 0, "breakers": [], "buckets": [], "keys": [], "credits": null })
    );
    app.start_worker_with(&[
        ("FREE_MODEL_RATE_LIMIT_PER_MINUTE", "600"),
        ("OPENROUTER_API_KEYS", "one,two"),
    ]);
    let user = app.user();
    let id = conversation(&user).await;
    // The first key is refused, and the second one answers.
    app.simulator.script("401, times=1");
    let answer = user.ask(&id, "hello").await;
    assert_eq!(answer.text("/generation/status"), "completed");
    app.simulator.script("503");
    for _ in 0..4 {
        let id = conversation(&user).await;
        user.say(&id, "and now?").await;
    }
    let shown = until(async || {
        let shown = service.get("/internal/upstreams").await.body;
        let is_told = !shown["breakers"].as_array()?.is_empty();
        is_told.then_some(shown)
    })
    .await;
    assert_eq!(shown["workers"], 1);
    let breaker = &shown["breakers"][0];
    assert!(["open", "half_open"].contains(&breaker["state"].as_str().unwrap()));
    assert!(breaker["model"].is_string() && breaker["error"].is_string());
    let rests: Vec<bool> = shown["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["rests_seconds"].as_f64().unwrap() > 0.0)
        .collect();
    assert_eq!(rests.iter().filter(|rests| **rests).count(), 1, "{shown}");
    assert!(rests.len() >= 2, "{shown}");
    let free = |bucket: &&Value| bucket["models"] == "free";
    let buckets = shown["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 2);
    let free = buckets.iter().find(free).unwrap();
    assert_eq!(free["calls_per_minute"], 600);
    assert_eq!(free["closed_seconds"], 0.0);
    // What a key is, nobody is told.
    assert!(!shown.to_string().contains("\"one\""), "{shown}");
}
