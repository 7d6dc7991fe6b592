//! The operator's view: dead letters, queues, workers.

use insta::assert_snapshot;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{Answer, Client, TestApp, conversation, fresh_id, until};

/// A message whose generation has failed; it would succeed the next time.
async fn fails(user: &Client) -> Answer {
    let id = conversation(user).await;
    let content = format!("[[sim:moderation,times=1]] what of {id}?");
    let answer = user.ask(&id, &content).await;
    assert_eq!(answer.text("/generation/status"), "failed");
    answer
}

/// A notification of somebody's generation, dead at both destinations. Returns its id.
pub(crate) async fn dead_notification(app: &TestApp, user: Uuid, generation: &str) -> String {
    let id = fresh_id();
    let rows = format!(
        "INSERT INTO chat.notifications (id, destination, user_id, conversation_id, generation_id, type, occurred_at,
                                         attempts, first_try_at, last_error, dead_at, dead_reason, request_id)
         SELECT '{id}', d.name, '{user}', g.conversation_id, g.id, 'chat.generation.failed', now(), 40,
                now() - interval '1 day', 'status 500', now(), 'tries_exhausted', 'request-1'
         FROM chat.notification_destinations d, chat.generations g WHERE g.id = '{generation}'"
    );
    assert_eq!(app.env.execute(&rows).await, 2);
    id
}

#[tokio::test]
async fn a_dead_letter_is_listed_replayed_and_answered() {
    let app = TestApp::new().await;
    let (user, service) = (app.user(), app.user().service());
    let failed = fails(&user).await;
    let letter = failed.text("/generation/id");
    let mut listed = service.get("/internal/dead-letters").await;
    let age = listed.body["dead_letters"][0]["age_seconds"].take();
    assert!(age.as_i64().unwrap() >= 0);
    assert_snapshot!(listed.shown(), @r#"
    200
    {
      "counts": [
        {
          "count": 1,
          "error_code": "content_refused"
        }
      ],
      "dead_letters": [
        {
          "age_seconds": null,
          "attempts": 1,
          "conversation_id": "[id 1]",
          "error": {
            "code": "content_refused",
            "message": "The model's provider declined this message because of its content policy.",
            "retryable": false
          },
          "failed_at": "[time]",
          "id": "[id 2]",
          "kind": "reply",
          "last_error": "qwen/qwen3-235b-a22b-07-25:free gave content_policy: upstream said 403 content_policy_violation",
          "models": [
            "qwen/qwen3-235b-a22b-07-25:free",
            "meta-llama/llama-3.2-3b-instruct:free"
          ],
          "queue": "standard",
          "queued_at": "[time]",
          "request_id": "[id 3]",
          "user_id": "[id 4]",
          "worker": "worker/[id 5]"
        }
      ],
      "pagination": {
        "has_more": false,
        "limit": 50,
        "next_cursor": null
      }
    }
    "#);
    assert_eq!(listed.text("/dead_letters/0/id"), letter);
    assert_eq!(
        listed.text("/dead_letters/0/user_id"),
        user.user.to_string()
    );

    let path = format!("/internal/dead-letters/{letter}/replay");
    let replayed = service.post(&path, json!({})).await;
    assert_eq!(replayed.status, 202, "{}", replayed.shown());
    assert_eq!(replayed.text("/dead_letter_id"), letter);
    let again = replayed.text("/generation/id");
    let ended = user.ended(&again).await;
    assert_eq!(ended.text("/status"), "completed");
    assert_eq!(
        ended.text("/assistant_message/parent_message_id"),
        failed.text("/user_message/id")
    );
    // Its client was told that the first one failed, and so it did.
    let first = user.get(&format!("/api/chat/generations/{letter}")).await;
    assert_eq!(first.text("/status"), "failed");
    assert_eq!(
        service.post(&path, json!({})).await.problem(),
        "409 dead_letter_settled"
    );
    let discard = format!("/internal/dead-letters/{letter}/discard");
    let refused = service.post(&discard, json!({})).await;
    assert_eq!(refused.problem(), "409 dead_letter_settled");
    assert!(refused.text("/detail").contains(&again));
    let listed = service.get("/internal/dead-letters").await;
    assert_eq!(listed.body["dead_letters"], json!([]));
    assert_eq!(listed.body["counts"], json!([]));
    let trail =
        "SELECT actor || ' ' || action || ' ' || (request_id IS NOT NULL) FROM chat.audit_log";
    assert_eq!(
        app.env.value(trail).await.as_deref(),
        Some("service dead_letter.replay true")
    );
}

#[tokio::test]
async fn a_replay_may_name_another_model() {
    let app = TestApp::new().await;
    let (user, service) = (app.user(), app.user().service());
    let letter = fails(&user).await.text("/generation/id");
    let path = format!("/internal/dead-letters/{letter}/replay");
    for name in ["", "costs/money", "two words:free", &"x".repeat(300)] {
        let refused = service.post(&path, json!({ "model": name })).await;
        assert_eq!(refused.problem(), "422 model_unknown model", "{name}");
    }
    let replayed = service
        .post(&path, json!({ "model": "another/model:free" }))
        .await;
    assert_eq!(replayed.text("/generation/model"), "another/model:free");
    let ended = user.ended(&replayed.text("/generation/id")).await;
    assert_eq!(ended.text("/usage/model"), "another/model:free");
}

#[tokio::test]
async fn many_dead_letters_are_settled_by_reason_or_by_name() {
    let app = TestApp::new().await;
    let (user, service) = (app.user(), app.user().service());
    let mut letters = Vec::new();
    for _ in 0..4 {
        letters.push(fails(&user).await.text("/generation/id"));
    }
    let page = service.get("/internal/dead-letters?limit=3").await;
    let ids = |page: &Answer| -> Vec<String> {
        let letters = page.body["dead_letters"].as_array().unwrap().clone();
        letters
            .iter()
            .map(|letter| letter["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let newest: Vec<String> = letters.iter().rev().cloned().collect();
    assert_eq!(ids(&page), newest[..3]);
    let cursor = page.text("/pagination/next_cursor");
    let page = service
        .get(&format!(
            "/internal/dead-letters?limit=3&before_id={cursor}"
        ))
        .await;
    assert_eq!(ids(&page), newest[3..]);
    assert_eq!(page.body["pagination"]["has_more"], false);
    let other = service
        .get("/internal/dead-letters?error_code=internal")
        .await;
    assert_eq!(ids(&other), Vec::<String>::new());
    let theirs = format!("/internal/dead-letters?user_id={}&kind=reply", user.user);
    assert_eq!(ids(&service.get(&theirs).await), newest);

    let unknown = fresh_id();
    let body = json!({ "ids": [letters[0], unknown, letters[0]] });
    let discarded = service.post("/internal/dead-letters/discard", body).await;
    assert_eq!(
        discarded.body,
        json!({
            "settled": [{ "dead_letter_id": letters[0] }],
            "refused": [{ "dead_letter_id": unknown, "code": "dead_letter_not_found" }],
            "next_after_id": null,
        })
    );
    let mut body = json!({ "error_code": "content_refused", "kind": "reply", "limit": 2 });
    let first = service
        .post("/internal/dead-letters/replay", body.clone())
        .await;
    assert_eq!(first.text("/next_after_id"), letters[2]);
    body["after_id"] = json!(letters[2]);
    let second = service.post("/internal/dead-letters/replay", body).await;
    assert_eq!(second.body["next_after_id"], Value::Null);
    let mut replayed = Vec::new();
    for answer in [&first, &second] {
        for one in answer.body["settled"].as_array().unwrap() {
            replayed.push(one["dead_letter_id"].as_str().unwrap().to_owned());
            let ended = user.ended(one["generation_id"].as_str().unwrap()).await;
            assert_eq!(ended.text("/status"), "completed");
        }
    }
    assert_eq!(replayed, letters[1..]);
    assert_eq!(
        ids(&service.get("/internal/dead-letters").await),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_wish_for_many_must_say_which() {
    let app = TestApp::without_worker().await;
    let service = app.user().service();
    let id = fresh_id();
    let many: Vec<String> = (0..1_001).map(|_| fresh_id()).collect();
    for (body, wrong) in [
        (json!({}), "ids"),
        (json!({ "ids": [] }), "ids"),
        (json!({ "ids": many }), "ids"),
        (json!({ "ids": [id], "error_code": "internal" }), "ids"),
        (json!({ "ids": [id], "limit": 1 }), "ids"),
        (json!({ "limit": 10 }), "ids"),
        (json!({ "error_code": "internal", "limit": 0 }), "limit"),
        (json!({ "error_code": "internal", "limit": 1001 }), "limit"),
        (json!({ "error_code": "no_such_code" }), "error_code"),
        (
            json!({ "error_code": "internal", "kind": "no_such_kind" }),
            "kind",
        ),
    ] {
        for verb in ["replay", "discard"] {
            let path = format!("/internal/dead-letters/{verb}");
            let answer = service.post(&path, body.clone()).await;
            let expected = format!("422 validation_failed {wrong}");
            assert_eq!(answer.problem(), expected, "{verb} {body:.80}");
        }
    }
}

#[tokio::test]
async fn a_replay_of_a_deleted_conversation_is_refused() {
    let app = TestApp::new().await;
    let (user, service) = (app.user(), app.user().service());
    let failed = fails(&user).await;
    let letter = failed.text("/generation/id");
    let conversation = failed.text("/generation/conversation_id");
    user.delete(&format!("/api/chat/conversations/{conversation}"))
        .await;
    let replay = format!("/internal/dead-letters/{letter}/replay");
    assert_eq!(
        service.post(&replay, json!({})).await.problem(),
        "404 conversation_not_found"
    );
    let discard = format!("/internal/dead-letters/{letter}/discard");
    assert_eq!(service.post(&discard, json!({})).await.status, 204);
    let unknown = format!("/internal/dead-letters/{}/replay", fresh_id());
    assert_eq!(
        service.post(&unknown, json!({})).await.problem(),
        "404 dead_letter_not_found"
    );
}

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
