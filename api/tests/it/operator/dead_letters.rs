//! Dead letters: listed, replayed, discarded.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::fails;
use crate::common::{Answer, TestApp, fresh_id};

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
