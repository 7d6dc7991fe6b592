//! Notifications that nobody took.

use insta::assert_snapshot;
use serde_json::json;
use uuid::Uuid;

use super::{dead_notification, fails};
use crate::common::TestApp;

#[tokio::test]
async fn a_dead_notification_is_listed_replayed_and_discarded() {
    let app = TestApp::new().await;
    let (user, service) = (app.user(), app.user().service());
    let generation = fails(&user).await.text("/generation/id");
    let id = dead_notification(&app, user.user, &generation).await;
    let mut listed = service.get("/internal/dead-notifications").await;
    for place in 0..2 {
        let age = listed.body["dead_notifications"][0]["deliveries"][place]["age_seconds"].take();
        assert!(age.as_i64().unwrap() >= 0);
    }
    assert_snapshot!(listed.shown(), @r#"
    200
    {
      "counts": [
        {
          "count": 1,
          "destination": "amqp",
          "reason": "tries_exhausted"
        },
        {
          "count": 1,
          "destination": "http",
          "reason": "tries_exhausted"
        }
      ],
      "dead_notifications": [
        {
          "conversation_id": "[id 1]",
          "deliveries": [
            {
              "age_seconds": null,
              "attempts": 40,
              "dead_at": "[time]",
              "destination": "amqp",
              "first_try_at": "[time]",
              "last_error": "status 500",
              "reason": "tries_exhausted"
            },
            {
              "age_seconds": null,
              "attempts": 40,
              "dead_at": "[time]",
              "destination": "http",
              "first_try_at": "[time]",
              "last_error": "status 500",
              "reason": "tries_exhausted"
            }
          ],
          "generation_id": "[id 2]",
          "id": "[id 3]",
          "occurred_at": "[time]",
          "request_id": "request-1",
          "type": "chat.generation.failed",
          "user_id": "[id 4]"
        }
      ],
      "pagination": {
        "has_more": false,
        "limit": 50,
        "next_cursor": null
      }
    }
    "#);
    assert_eq!(listed.text("/dead_notifications/0/id"), id);
    let path = |verb: &str| format!("/internal/dead-notifications/{id}/{verb}");
    let only = json!({ "destination": "http" });
    let replayed = service.post(&path("replay"), only.clone()).await;
    assert_eq!(replayed.status, 202, "{}", replayed.shown());
    assert_eq!(
        replayed.body,
        json!({ "dead_notification_id": id, "destinations": ["http"] })
    );
    let again = service.post(&path("replay"), only).await;
    assert_eq!(again.problem(), "404 dead_notification_not_found");
    let discarded = service.post(&path("discard"), json!({})).await;
    assert_eq!(discarded.status, 200);
    assert_eq!(discarded.body["destinations"], json!(["amqp"]));
    let gone = service.post(&path("discard"), json!({})).await;
    assert_eq!(gone.problem(), "404 dead_notification_not_found");
    let listed = service.get("/internal/dead-notifications").await;
    assert_eq!(listed.body["dead_notifications"], json!([]));
    assert_eq!(listed.body["counts"], json!([]));
    let trail = "SELECT string_agg(actor || ' ' || action || ' ' || (request_id IS NOT NULL), ', ' ORDER BY at)
                 FROM chat.audit_log";
    assert_eq!(
        app.env.value(trail).await.as_deref(),
        Some("service dead_notification.replay true, service dead_notification.discard true")
    );
}

/// Whatever the size of a page, both destinations of a notification are on it.
#[tokio::test]
async fn pages_of_dead_notifications_lose_no_delivery() {
    let app = TestApp::new().await;
    let (user, service) = (app.user(), app.user().service());
    let generation = fails(&user).await.text("/generation/id");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(dead_notification(&app, user.user, &generation).await);
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    for limit in 1..=3 {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/internal/dead-notifications?limit={limit}{cursor}");
            let page = service.get(&path).await;
            for dead in page.body["dead_notifications"].as_array().unwrap() {
                assert_eq!(dead["deliveries"].as_array().unwrap().len(), 2);
                seen.push(dead["id"].as_str().unwrap().to_owned());
            }
            if page.body["pagination"]["has_more"] == false {
                break;
            }
            cursor = format!("&before_id={}", page.text("/pagination/next_cursor"));
        }
        assert_eq!(seen, ids, "pages of {limit}");
    }
    let count = async |query: &str| -> usize {
        let path = format!("/internal/dead-notifications?{query}");
        let page = service.get(&path).await;
        page.body["dead_notifications"].as_array().unwrap().len()
    };
    assert_eq!(count("destination=amqp").await, 3);
    assert_eq!(count("reason=gone").await, 0);
    assert_eq!(count(&format!("user_id={}", user.user)).await, 3);
    assert_eq!(count(&format!("user_id={}", Uuid::new_v4())).await, 0);
    for (query, wrong) in [
        ("destination=pigeon", "destination"),
        ("reason=tired", "reason"),
        ("limit=0", "limit"),
    ] {
        let path = format!("/internal/dead-notifications?{query}");
        let expected = format!("422 validation_failed {wrong}");
        assert_eq!(service.get(&path).await.problem(), expected);
    }
}
