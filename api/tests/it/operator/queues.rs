//! Queues that are paused, and the workers that take from them.

use insta::assert_snapshot;
use serde_json::json;

use crate::common::{TestApp, conversation, until};

#[tokio::test]
async fn queues_tell_how_they_are_and_can_be_paused() {
    let app = TestApp::without_worker().await;
    let (user, service) = (app.user(), app.user().service());
    let id = conversation(&user).await;
    let waits = user.say(&id, "wait").await;
    let mut listed = service.get("/internal/queues").await;
    let oldest = listed.body["queues"][1]["oldest_wait_seconds"].take();
    assert!(oldest.as_f64().unwrap() >= 0.0);
    assert_snapshot!(listed.shown(), @r#"
    200
    {
      "queues": [
        {
          "depth": 0,
          "eta_seconds": null,
          "in_flight": 0,
          "name": "premium",
          "oldest_wait_seconds": null,
          "parked": 0,
          "paused": false,
          "paused_at": null,
          "paused_by": null,
          "rate_per_second": 0.0,
          "reason": null
        },
        {
          "depth": 1,
          "eta_seconds": null,
          "in_flight": 0,
          "name": "standard",
          "oldest_wait_seconds": null,
          "parked": 0,
          "paused": false,
          "paused_at": null,
          "paused_by": null,
          "rate_per_second": 0.0,
          "reason": null
        },
        {
          "depth": 0,
          "eta_seconds": null,
          "in_flight": 0,
          "name": "background",
          "oldest_wait_seconds": null,
          "parked": 0,
          "paused": false,
          "paused_at": null,
          "paused_by": null,
          "rate_per_second": 0.0,
          "reason": null
        }
      ]
    }
    "#);
    let paused = service
        .post(
            "/internal/queues/standard/pause",
            json!({ "reason": "maintenance" }),
        )
        .await;
    assert_eq!(paused.status, 200, "{}", paused.shown());
    assert_eq!(paused.body["paused"], true);
    assert_eq!(paused.text("/reason"), "maintenance");
    // A request without a body, and twice.
    let twice = service
        .send(service.request(http::Method::POST, "/internal/queues/standard/pause"))
        .await;
    assert_eq!(twice.text("/reason"), "maintenance");
    let long = json!({ "reason": "x".repeat(501) });
    let refused = service.post("/internal/queues/standard/pause", long).await;
    assert_eq!(refused.problem(), "422 validation_failed reason");
    // What waits in a paused queue can be cancelled as ever.
    let cancelled = user.post(&waits.text("/links/cancel"), json!({})).await;
    assert_eq!(cancelled.text("/status"), "cancelled");
    let resumed = service
        .post("/internal/queues/standard/resume", json!({}))
        .await;
    assert_eq!(resumed.body["paused"], false);
    assert_eq!(resumed.body["depth"], 0);
}

/// The worker takes nothing from a paused queue, and everything else as before.
#[tokio::test]
async fn a_pause_reaches_a_worker_that_works() {
    let app = TestApp::new().await;
    let (free, paying) = (app.user(), app.user().premium());
    let service = app.user().service();
    // It works before the pause.
    let (theirs, ours) = (conversation(&free).await, conversation(&paying).await);
    assert_eq!(free.ask(&theirs, "hello").await.status, 200);
    let paused = service
        .post("/internal/queues/standard/pause", json!({}))
        .await;
    assert_eq!(paused.body["paused"], true);
    // Once the worker knows, a message stays where it is while a later one of another queue is
    // answered.
    let held = until(async || {
        let id = conversation(&free).await;
        let sent = free.say(&id, "hold").await.text("/generation/id");
        assert_eq!(paying.ask(&ours, "pass").await.status, 200);
        let read = free.get(&format!("/api/chat/generations/{sent}")).await;
        (read.text("/status") == "queued").then_some(sent)
    })
    .await;
    for _ in 0..3 {
        assert_eq!(paying.ask(&ours, "pass").await.status, 200);
        let read = free.get(&format!("/api/chat/generations/{held}")).await;
        assert_eq!(
            (read.text("/status"), read.body["attempts"].as_i64()),
            ("queued".to_owned(), Some(0))
        );
    }
    service
        .post("/internal/queues/standard/resume", json!({}))
        .await;
    assert_eq!(free.ended(&held).await.text("/status"), "completed");
}

#[tokio::test]
async fn the_register_names_the_worker_that_runs() {
    let mut app = TestApp::without_worker().await;
    let service = app.user().service();
    let none = service.get("/internal/workers").await;
    assert_eq!(none.body, json!({ "workers": [] }));
    app.start_worker();
    let listed = until(async || {
        let listed = service.get("/internal/workers").await;
        (listed.body["workers"][0]["status"] == "running").then_some(listed)
    })
    .await;
    let worker = &listed.body["workers"][0];
    assert_eq!(worker["name"], "worker");
    assert_eq!(worker["concurrency"], 16);
    assert_eq!(worker["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(worker["leases"], 0);
    // A running generation is a lease that lives.
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "[[sim:hold=2]] go on").await;
    let held = until(async || {
        let listed = service.get("/internal/workers").await;
        let worker = listed.body["workers"][0].clone();
        (worker["leases"] == 1 && worker["in_flight"] == 1).then_some(worker)
    })
    .await;
    assert_eq!(held["leases_overdue"], 0);
    user.post(&sent.text("/links/cancel"), json!({})).await;
}
