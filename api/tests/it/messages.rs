//! Messages: send, wait, read, make again, rate.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::common::{Client, TestApp, conversation};

fn messages(conversation: &str) -> String {
    format!("/api/chat/conversations/{conversation}/messages")
}

#[tokio::test]
async fn a_message_is_accepted_at_once() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let answer = user.say(&id, "What is 2 + 2?").await;
    assert_snapshot!(answer.shown(), @r#"
    202
    {
      "generation": {
        "attempts": 0,
        "conversation_id": "[id 1]",
        "id": "[id 2]",
        "is_free_model": true,
        "kind": "reply",
        "model": "qwen/qwen3-235b-a22b-07-25:free",
        "queue_position": 0,
        "status": "queued",
        "timings": {
          "finished_at": null,
          "first_token_at": null,
          "queued_at": "[time]",
          "started_at": null
        },
        "user_message_id": "[id 3]"
      },
      "links": {
        "cancel": "/api/chat/generations/[id 2]/cancel",
        "events": "/api/chat/generations/[id 2]/events",
        "self": "/api/chat/generations/[id 2]"
      },
      "user_message": {
        "attachments": [],
        "content": "What is 2 + 2?",
        "content_type": "text",
        "conversation_id": "[id 1]",
        "created_at": "[time]",
        "id": "[id 3]",
        "metadata": {},
        "parent_message_id": null,
        "sender_type": "user",
        "superseded_by": null
      }
    }
    "#);
    assert_eq!(
        answer.header("location"),
        format!("/api/chat/generations/{}", answer.text("/generation/id"))
    );
    assert_eq!(answer.header("ratelimit-limit"), "10000");
    assert_eq!(answer.header("ratelimit-remaining"), "9999");
    assert_eq!(answer.header("ratelimit-policy"), "10000;w=3600");
    assert_eq!(
        user.get(&messages(&id)).await.body["messages"],
        json!([answer.body["user_message"]])
    );
}

#[tokio::test]
async fn a_client_that_waits_gets_the_reply() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let answer = user.ask(&id, "Say something").await;
    assert_eq!(answer.header("preference-applied"), "wait=30");
    assert_eq!(answer.header("location"), "");
    assert_eq!(
        answer.text("/assistant_message/content"),
        app.simulator.expected_reply("Say something")
    );
    let mut shown: Value = answer.body.clone();
    shown["assistant_message"]["content"] = json!("[reply]");
    let shown = crate::common::Answer {
        body: shown,
        ..answer
    };
    assert_snapshot!(shown.shown(), @r#"
    200
    {
      "assistant_message": {
        "attachments": [],
        "content": "[reply]",
        "content_type": "text",
        "conversation_id": "[id 1]",
        "created_at": "[time]",
        "id": "[id 2]",
        "metadata": {
          "finish_reason": "stop",
          "model": "qwen/qwen3-235b-a22b-07-25:free"
        },
        "parent_message_id": "[id 3]",
        "sender_type": "assistant",
        "superseded_by": null
      },
      "generation": {
        "assistant_message_id": "[id 2]",
        "attempts": 1,
        "context": {
          "budget": 6000,
          "dropped": 0,
          "summarised": 0,
          "used": 5
        },
        "conversation_id": "[id 1]",
        "id": "[id 4]",
        "is_free_model": true,
        "kind": "reply",
        "model": "qwen/qwen3-235b-a22b-07-25:free",
        "status": "completed",
        "timings": {
          "finished_at": "[time]",
          "first_token_at": "[time]",
          "queued_at": "[time]",
          "started_at": "[time]"
        },
        "usage": {
          "cached_tokens": 0,
          "completion_tokens": 24,
          "cost_credits": 0,
          "is_free_model": true,
          "model": "qwen/qwen3-235b-a22b-07-25:free",
          "processing_time_ms": "[ms]",
          "prompt_tokens": 135,
          "reasoning_tokens": 0,
          "total_tokens": 159
        },
        "user_message_id": "[id 3]"
      },
      "usage": {
        "cached_tokens": 0,
        "completion_tokens": 24,
        "cost_credits": 0,
        "is_free_model": true,
        "model": "qwen/qwen3-235b-a22b-07-25:free",
        "processing_time_ms": "[ms]",
        "prompt_tokens": 135,
        "reasoning_tokens": 0,
        "total_tokens": 159
      },
      "user_message": {
        "attachments": [],
        "content": "Say something",
        "content_type": "text",
        "conversation_id": "[id 1]",
        "created_at": "[time]",
        "id": "[id 3]",
        "metadata": {},
        "parent_message_id": null,
        "sender_type": "user",
        "superseded_by": null
      }
    }
    "#);
    let stored = user.get(&messages(&id)).await;
    assert_eq!(stored.body["messages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_wait_that_is_too_short_gets_what_no_wait_gets() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let answer = user
        .post_with(
            &messages(&id),
            &[("prefer", "wait=1")],
            json!({ "content": "x" }),
        )
        .await;
    assert_eq!(
        (answer.status, answer.header("preference-applied")),
        (202, "wait=1")
    );
    assert_eq!(answer.text("/generation/status"), "queued");
    let answer = user
        .post_with(
            &messages(&id),
            &[("prefer", "wait=0")],
            json!({ "content": "x" }),
        )
        .await;
    assert_eq!(
        (answer.status, answer.header("preference-applied")),
        (202, "wait=0")
    );
}

#[tokio::test]
async fn a_generation_that_fails_ends_the_wait_and_says_why() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let answer = user.ask(&id, "[[sim:moderation]] no").await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    assert_eq!(answer.body["assistant_message"], Value::Null);
    assert_eq!(answer.text("/generation/status"), "failed");
    assert_eq!(answer.text("/generation/error/code"), "content_refused");
}

#[tokio::test]
async fn messages_are_read_in_pages_both_ways() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    for number in 0..5 {
        user.say(&id, &format!("m{number}")).await;
    }
    let page = async |query: &str| {
        let answer = user.get(&format!("{}{query}", messages(&id))).await;
        assert_eq!(answer.status, 200, "{}", answer.shown());
        let texts: Vec<_> = answer.body["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["content"].as_str().unwrap().to_owned())
            .collect();
        let pagination = &answer.body["pagination"];
        let cursor = pagination["next_cursor"].as_str().map(str::to_owned);
        assert_eq!(pagination["has_more"], cursor.is_some());
        (texts.join(" "), cursor)
    };
    assert_eq!(page("").await, ("m0 m1 m2 m3 m4".to_owned(), None));
    let (newest, cursor) = page("?limit=2").await;
    assert_eq!(newest, "m3 m4");
    let (before, cursor) = page(&format!("?limit=2&before_id={}", cursor.unwrap())).await;
    assert_eq!(before, "m1 m2");
    let (oldest, none) = page(&format!("?limit=2&before_id={}", cursor.unwrap())).await;
    assert_eq!((oldest.as_str(), none), ("m0", None));
    let first = user.get(&messages(&id)).await.text("/messages/0/id");
    let (after, cursor) = page(&format!("?limit=3&after_id={first}")).await;
    assert_eq!(after, "m1 m2 m3");
    assert_eq!(
        page(&format!("?limit=3&after_id={}", cursor.unwrap())).await,
        ("m4".to_owned(), None)
    );
    let both = user
        .get(&format!(
            "{}?before_id={first}&after_id={first}",
            messages(&id)
        ))
        .await;
    assert_eq!(both.problem(), "422 validation_failed after_id");
    let shown = user
        .get(&format!("/api/chat/conversations/{id}?messages=1"))
        .await;
    assert_eq!(shown.body["messages"].as_array().unwrap().len(), 1);
    assert_eq!(shown.text("/messages/0/content"), "m4");
}

#[tokio::test]
async fn what_a_message_carries_is_kept() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let parent = user.say(&id, "first").await.text("/user_message/id");
    let body = json!({
        "content": "look", "content_type": "image", "parent_message_id": parent, "stream": false,
        "attachments": [{ "url": "https://example.org/a.png", "media_type": "image/png" }],
        "model": "meta-llama/llama-3.2-3b-instruct:free",
    });
    let answer = user.post(&messages(&id), body).await;
    assert_eq!(answer.status, 202, "{}", answer.shown());
    assert_eq!(answer.text("/user_message/content_type"), "image");
    assert_eq!(answer.text("/user_message/parent_message_id"), parent);
    assert_eq!(
        answer.text("/user_message/attachments/0/url"),
        "https://example.org/a.png"
    );
    assert_eq!(
        answer.text("/generation/model"),
        "meta-llama/llama-3.2-3b-instruct:free"
    );
}

#[tokio::test]
async fn length_is_counted_in_characters() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    // Four bytes each.
    user.say(&id, &"\u{1f600}".repeat(4000)).await;
    let answer = user
        .post(
            &messages(&id),
            json!({ "content": "\u{1f600}".repeat(4001) }),
        )
        .await;
    assert_eq!(answer.problem(), "422 message_too_long content");
    assert_eq!(app.count("messages").await, "1");
}

#[tokio::test]
async fn a_second_message_waits_is_refused_or_interrupts() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let send = async |concurrency: &str| {
        user.post(
            &messages(&id),
            json!({ "content": "x", "concurrency": concurrency }),
        )
        .await
    };
    let first = send("reject").await;
    assert_eq!(first.status, 202);
    assert_eq!(send("enqueue").await.status, 202);
    assert_eq!(send("reject").await.problem(), "409 conversation_busy");
    assert_eq!(app.count("messages").await, "2");
    assert_eq!(send("interrupt").await.status, 202);
    let list = user.get("/api/chat/generations").await;
    let statuses: Vec<_> = list.body["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["queued", "cancelled", "cancelled"]);
    let missing = crate::common::fresh_id();
    let answer = user
        .post(
            &messages(&missing),
            json!({ "content": "x", "concurrency": "interrupt" }),
        )
        .await;
    assert_eq!(answer.problem(), "404 conversation_not_found");
}

#[tokio::test]
async fn an_interrupted_reply_keeps_the_text_so_far() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let first = user
        .say(&id, "[[sim:hold=5]] go on")
        .await
        .text("/generation/id");
    let mut stream = crate::common::EventStream::open(
        &user,
        &format!("/api/chat/generations/{first}/events"),
        None,
    )
    .await;
    stream.through("generation.delta").await;
    let path = messages(&id);
    let next = user
        .post(
            &path,
            json!({ "content": "stop that", "concurrency": "interrupt" }),
        )
        .await;
    let events = stream.rest().await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "generation.cancelled");
    assert_ne!(last["data"]["partial_content"].as_str().unwrap_or(""), "");
    user.ended(&next.text("/generation/id")).await;
    let old = user.ended(&first).await;
    assert_eq!(old.text("/status"), "cancelled");
    assert_ne!(old.text("/partial_content"), "");
}

async fn replied(app: &TestApp, user: &Client) -> (String, String, String) {
    let id = conversation(user).await;
    let answer = user.ask(&id, "first question").await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    app.simulator.clear_script();
    (
        id,
        answer.text("/user_message/id"),
        answer.text("/assistant_message/id"),
    )
}

#[tokio::test]
async fn a_reply_made_again_leaves_the_old_one() {
    let app = TestApp::new().await;
    let user = app.user();
    let (id, question, reply) = replied(&app, &user).await;
    let path = format!("{}/{reply}/regenerate", messages(&id));
    let again = user
        .post_with(&path, &[("prefer", "wait=30")], json!({}))
        .await;
    assert_eq!(again.status, 200, "{}", again.shown());
    assert_eq!(again.text("/generation/kind"), "regenerate");
    let list = user.get(&messages(&id)).await;
    let new = again.text("/new_message/id");
    let chain: Vec<_> = list.body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            (
                m["id"].as_str().unwrap().to_owned(),
                m["superseded_by"].as_str().map(str::to_owned),
            )
        })
        .collect();
    assert_eq!(
        chain,
        [(question, None), (reply, Some(new.clone())), (new, None)]
    );
    let empty = user.send(user.request(http::Method::POST, &path)).await;
    assert_eq!(empty.status, 202, "{}", empty.shown());
    assert_eq!(empty.body.get("user_message"), None);
}

#[tokio::test]
async fn only_replies_can_be_made_again() {
    let app = TestApp::new().await;
    let user = app.user();
    let (id, question, reply) = replied(&app, &user).await;
    let again = async |message: &str| {
        user.post(
            &format!("{}/{message}/regenerate", messages(&id)),
            json!({}),
        )
        .await
    };
    assert_eq!(again(&question).await.problem(), "422 not_regenerable");
    assert_eq!(
        again(&crate::common::fresh_id()).await.problem(),
        "404 message_not_found"
    );
    user.patch(
        &format!("/api/chat/conversations/{id}"),
        json!({ "status": "archived" }),
    )
    .await;
    assert_eq!(again(&reply).await.problem(), "409 conversation_archived");
    assert_eq!(app.count("messages").await, "2");
}

#[tokio::test]
async fn the_last_rating_counts() {
    let app = TestApp::new().await;
    let user = app.user();
    let (id, question, reply) = replied(&app, &user).await;
    let rate = async |message: &str, body: Value| {
        user.post(&format!("{}/{message}/feedback", messages(&id)), body)
            .await
    };
    let first = rate(&reply, json!({ "rating": "down", "comment": "no" })).await;
    assert_snapshot!(first.shown(), @r#"
    200
    {
      "comment": "no",
      "rating": "down"
    }
    "#);
    assert_eq!(rate(&reply, json!({ "rating": "up" })).await.status, 200);
    let stored = app
        .env
        .value("SELECT rating || ' ' || coalesce(comment, '-') FROM chat.feedback")
        .await;
    assert_eq!(stored.as_deref(), Some("up -"));
    assert_eq!(
        rate(&question, json!({ "rating": "up" })).await.problem(),
        "422 validation_failed message_id"
    );
    assert_eq!(
        rate(&crate::common::fresh_id(), json!({ "rating": "up" }))
            .await
            .problem(),
        "404 message_not_found"
    );
}
