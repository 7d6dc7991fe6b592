//! Conversations: create, list, search, read, change, delete.

use insta::assert_snapshot;
use serde_json::json;

use crate::common::{TestApp, conversation};

const ALL: &str = "/api/chat/conversations";

#[tokio::test]
async fn a_conversation_is_created_with_what_was_given() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let answer = user
        .post(
            ALL,
            json!({
                "title": "Career plan", "context_type": "career_guidance",
                "context_data": { "interests": ["maths"] }, "metadata": { "source": "app" },
            }),
        )
        .await;
    assert_snapshot!(answer.shown(), @r#"
    201
    {
      "context_type": "career_guidance",
      "created_at": "[time]",
      "id": "[id 1]",
      "last_message_at": null,
      "message_count": 0,
      "metadata": {
        "source": "app"
      },
      "status": "active",
      "title": "Career plan",
      "updated_at": "[time]",
      "user_id": "[id 2]"
    }
    "#);
    assert_eq!(answer.text("/user_id"), user.user.to_string());
    assert_eq!(
        answer.header("location"),
        format!("{ALL}/{}", answer.text("/id"))
    );
    let read = user.get(answer.header("location")).await;
    assert_eq!(read.body["conversation"], answer.body);
    assert_eq!(read.header("etag"), "\"1\"");
}

#[tokio::test]
async fn nothing_at_all_gives_a_default_conversation() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let empty = user.send(user.request(http::Method::POST, ALL)).await;
    assert_eq!(empty.status, 201);
    assert_snapshot!(empty.shown(), @r#"
    201
    {
      "context_type": "general",
      "created_at": "[time]",
      "id": "[id 1]",
      "last_message_at": null,
      "message_count": 0,
      "metadata": {},
      "status": "active",
      "title": "New conversation",
      "updated_at": "[time]",
      "user_id": "[id 2]"
    }
    "#);
}

#[tokio::test]
async fn a_list_is_filtered_searched_and_paged() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    for (title, context) in [
        ("Alpha", "general"),
        ("Beta", "support"),
        ("Gamma", "general"),
    ] {
        let answer = user
            .post(ALL, json!({ "title": title, "context_type": context }))
            .await;
        assert_eq!(answer.status, 201);
    }
    let titles = async |query: &str| {
        let answer = user.get(&format!("{ALL}{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.shown());
        let list = answer.body["conversations"].as_array().unwrap().clone();
        let titles: Vec<_> = list
            .iter()
            .map(|one| one["title"].as_str().unwrap().to_owned())
            .collect();
        format!("{} of {}", titles.join(" "), answer.body["total"])
    };
    assert_eq!(titles("").await, "Gamma Beta Alpha of 3");
    assert_eq!(titles("?context_type=general").await, "Gamma Alpha of 2");
    assert_eq!(titles("?status=archived").await, " of 0");
    assert_eq!(titles("?q=bET").await, "Beta of 1");
    // Wildcards of SQL are ordinary characters.
    assert_eq!(titles("?q=%25").await, " of 0");
    assert_eq!(titles("?limit=2").await, "Gamma Beta of 3");
    assert_eq!(titles("?limit=2&offset=2").await, "Alpha of 3");
    let page = user.get(&format!("{ALL}?limit=2")).await;
    assert_eq!(
        page.body["pagination"],
        json!({ "limit": 2, "offset": 0, "has_more": true })
    );
    let last = user.get(&format!("{ALL}?limit=2&offset=2")).await;
    assert_eq!(
        last.body["pagination"],
        json!({ "limit": 2, "offset": 2, "has_more": false })
    );
}

#[tokio::test]
async fn activity_moves_a_conversation_to_the_top_and_its_text_is_found() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let first = conversation(&user).await;
    conversation(&user).await;
    user.say(&first, "Where is the Ünïque word?").await;
    let list = user.get(ALL).await;
    assert_eq!(list.text("/conversations/0/id"), first);
    assert_eq!(list.body["conversations"][0]["message_count"], 1);
    let found = user.get(&format!("{ALL}?q=%C3%BCn%C3%AFque")).await;
    assert_eq!(found.body["total"], 1);
    assert_eq!(found.text("/conversations/0/id"), first);
}

#[tokio::test]
async fn a_change_keeps_what_it_does_not_name() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let path = format!("{ALL}/{id}");
    let renamed = user
        .patch(&path, json!({ "title": "Mine", "metadata": { "a": 1 } }))
        .await;
    assert_eq!((renamed.status, renamed.header("etag")), (200, "\"2\""));
    let archived = user
        .send(
            user.request(http::Method::PUT, &path)
                .json(&json!({ "status": "archived" })),
        )
        .await;
    assert_snapshot!(archived.shown(), @r#"
    200
    {
      "context_type": "general",
      "created_at": "[time]",
      "id": "[id 1]",
      "last_message_at": null,
      "message_count": 0,
      "metadata": {
        "a": 1
      },
      "status": "archived",
      "title": "Mine",
      "updated_at": "[time]",
      "user_id": "[id 2]"
    }
    "#);
    assert_eq!(user.get(ALL).await.body["total"], 0);
    assert_eq!(
        user.get(&format!("{ALL}?status=archived")).await.body["total"],
        1
    );
    let back = user.patch(&path, json!({ "status": "active" })).await;
    assert_eq!(back.text("/status"), "active");
}

#[tokio::test]
async fn a_change_of_an_outdated_version_is_refused() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let path = format!("{ALL}/{}", conversation(&user).await);
    let change = async |tag: &str, title: &str| {
        let request = user
            .request(http::Method::PATCH, &path)
            .header("if-match", tag);
        user.send(request.json(&json!({ "title": title }))).await
    };
    assert_eq!(change("\"1\"", "one").await.status, 200);
    assert_eq!(
        change("\"1\"", "two").await.problem(),
        "412 precondition_failed"
    );
    assert_eq!(
        change("W/\"2\"", "two").await.problem(),
        "412 precondition_failed"
    );
    assert_eq!(change("*", "two").await.status, 200);
    assert_eq!(change("\"1\", \"3\"", "three").await.status, 200);
    // Two that both read version 4: one wins.
    let (left, right) = tokio::join!(change("\"4\"", "left"), change("\"4\"", "right"));
    let mut statuses = [left.status, right.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
}

#[tokio::test]
async fn a_deleted_conversation_is_gone_from_every_read_and_its_work_stops() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let id = conversation(&user).await;
    let sent = user.say(&id, "hello").await;
    let generation = sent.text("/generation/id");
    let path = format!("{ALL}/{id}");
    assert_eq!(user.delete(&path).await.status, 204);
    assert_eq!(
        user.delete(&path).await.problem(),
        "404 conversation_not_found"
    );
    assert_eq!(
        user.get(&path).await.problem(),
        "404 conversation_not_found"
    );
    assert_eq!(
        user.get(&format!("{path}/messages")).await.problem(),
        "404 conversation_not_found"
    );
    assert_eq!(
        user.get(&format!("{path}/events")).await.problem(),
        "404 conversation_not_found"
    );
    assert_eq!(
        user.patch(&path, json!({ "title": "x" })).await.problem(),
        "404 conversation_not_found"
    );
    let message = user
        .post(&format!("{path}/messages"), json!({ "content": "x" }))
        .await;
    assert_eq!(message.problem(), "404 conversation_not_found");
    let gone = user
        .get(&format!("/api/chat/generations/{generation}"))
        .await;
    assert_eq!(gone.problem(), "404 generation_not_found");
    assert_eq!(user.get(ALL).await.body["total"], 0);
    assert_eq!(
        user.get("/api/chat/generations").await.body["generations"],
        json!([])
    );
    let status = app.env.value("SELECT status FROM chat.generations").await;
    assert_eq!(status.as_deref(), Some("cancelled"));
}
