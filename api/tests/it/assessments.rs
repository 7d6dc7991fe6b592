//! From a finished assessment to a conversation about it, by HTTP.

use http::Method;
use loadtest::services::{Mode, Services};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{Answer, Client, EventStream, Socket, TestApp, conversation, fresh_id, until};

fn results() -> Value {
    json!({
        "riasec": { "R": 85, "I": 92, "A": 78, "S": 60, "E": 41, "C": 55 },
        "ocean": { "O": 88, "C": 75, "E": 82, "A": 70, "N": 30 },
        "viaIs": { "curiosity": 95, "prudence": 21 },
        "personaProfile": { "summary": "The person is a curious builder who likes to learn." },
        "assessmentDate": "2026-11-01T08:00:00Z",
    })
}

async fn auto_initialize(client: &Client, assessment: &str) -> Answer {
    let body = json!({
        "user_id": client.user, "assessment_id": assessment, "trigger_source": "assessment_complete",
    });
    let path = "/api/chat/conversations/auto-initialize";
    client.service().post(path, body).await
}

async fn readiness(client: &Client) -> Value {
    let path = format!("/api/chat/conversations/assessment-ready/{}", client.user);
    let answer = client.get(&path).await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    answer.body
}

async fn until_ready(client: &Client) -> Value {
    until(async || {
        let readiness = readiness(client).await;
        (readiness["ready_for_chatbot"] == true).then_some(readiness)
    })
    .await
}

/// An assessment of this person whose conversation is ready.
pub(crate) async fn prepared(client: &Client) -> String {
    let assessment = Uuid::new_v4().to_string();
    let answer = auto_initialize(client, &assessment).await;
    assert_eq!(answer.status, 202, "{}", answer.shown());
    until_ready(client).await;
    assessment
}

/// An app whose archive and auth service are doubles.
async fn with_services() -> (TestApp, Services) {
    let services = Services::start().await.unwrap();
    let url = services.url();
    let mut app = TestApp::with(&[
        ("ARCHIVE_SERVICE_URL", &url),
        ("AUTH_SERVICE_URL", &url),
        ("PLATFORM_TIMEOUT", "0.3"),
    ])
    .await;
    app.start_worker();
    (app, services)
}

fn suggestions(value: &Value) -> Vec<String> {
    let all = value.as_array().unwrap();
    assert!((6..=8).contains(&all.len()), "{all:?}");
    all.iter()
        .map(|one| one.as_str().unwrap().to_owned())
        .collect()
}

fn welcome(messages: &Value) -> Value {
    let all = messages.as_array().unwrap();
    let mut welcomes = all
        .iter()
        .filter(|message| message["metadata"]["type"] == "assessment_welcome");
    let first = welcomes.next().expect("a welcome").clone();
    assert!(welcomes.next().is_none(), "there is one welcome: {all:?}");
    first
}

#[tokio::test]
async fn another_service_prepares_a_conversation_once() {
    let (app, services) = with_services().await;
    let user = app.user();
    let assessment = Uuid::new_v4().to_string();
    services.keep_results(&assessment, Some(&user.user.to_string()), results());
    let profile = json!({ "name": "Ayu", "language": "en" });
    services.keep_user(&user.user.to_string(), profile);
    assert_eq!(
        readiness(&user).await,
        json!({
            "has_assessment": false, "assessment_date": null, "assessment_id": null,
            "conversation_exists": false, "conversation_id": null, "ready_for_chatbot": false,
        })
    );
    let mut socket = Socket::open(&user).await;
    socket.settle().await;

    let first = auto_initialize(&user, &assessment).await;
    assert_eq!(first.status, 202, "{}", first.shown());
    let id = first.text("/conversation_id");
    suggestions(&first.body["initial_suggestions"]);

    // The page is told of the conversation, of each stage, and of the welcome.
    let mut told = Vec::new();
    while !told.contains(&"assessment.stage chatbot_ready".to_owned()) {
        let event = socket.next().await;
        assert_eq!(event["conversation_id"], id.as_str());
        let kind = event["type"].as_str().unwrap();
        if kind == "assessment.stage" {
            assert_eq!(event["data"]["assessmentId"], assessment.as_str());
            let url = format!("/assessment/{assessment}/results");
            let action = json!({ "type": "redirect", "url": url });
            assert_eq!(event["data"]["action"], action);
            told.push(format!(
                "{kind} {}",
                event["data"]["stage"].as_str().unwrap()
            ));
        } else if kind != "generation.delta" {
            told.push(kind.to_owned());
        }
    }
    let stages: Vec<_> = told.iter().filter(|kind| kind.contains(' ')).collect();
    assert_eq!(
        stages,
        [
            "assessment.stage analysis_complete",
            "assessment.stage chatbot_ready"
        ]
    );
    assert!(
        told.contains(&"conversation.updated".to_owned()),
        "{told:?}"
    );
    assert!(
        told.contains(&"generation.completed".to_owned()),
        "{told:?}"
    );

    let again = auto_initialize(&user, &assessment).await;
    assert_eq!(again.text("/conversation_id"), id);
    assert_eq!(again.body["ready"], true);
    let ready = until_ready(&user).await;
    assert_eq!(ready["assessment_date"], "2026-11-01T08:00:00.000Z");
    assert_eq!(ready["conversation_id"], id.as_str());

    let path = format!("/api/chat/assessment/{assessment}/conversation");
    let found = user.get(&path).await;
    assert_eq!(found.body["exists"], true);
    assert_eq!(found.body["conversation"]["id"], id.as_str());
    assert_eq!(
        found.body["conversation"]["assessment_id"],
        assessment.as_str()
    );
    assert_eq!(found.body["conversation"]["context_type"], "assessment");
    let welcome = welcome(&found.body["messages"]);
    let text = welcome["content"].as_str().unwrap();
    // The simulator knows nothing of careers, so what it leaves out is added.
    assert!(
        text.contains("Investigative (92)") && text.matches('?').count() >= 3,
        "{text}"
    );
    assert_eq!(welcome["metadata"].get("fallback"), None);
    assert_eq!(app.count("conversations").await, "1");
    assert_eq!(app.count("usage_tracking").await, "1");

    // What is spoken of makes room for other questions.
    let path = format!("/api/chat/conversations/{id}/suggestions");
    let before = suggestions(&user.get(&path).await.body["suggestions"]);
    assert_eq!(
        before[0],
        "Which careers would let me research and analyse?"
    );
    user.ask(&id, &before[0]).await;
    let after = suggestions(&user.get(&path).await.body["suggestions"]);
    assert!(!after.contains(&before[0]), "{after:?}");
}

#[tokio::test]
async fn a_person_starts_the_conversation_and_gets_the_same_one_again() {
    let (app, services) = with_services().await;
    let user = app.user();
    let none = user
        .post("/api/chat/conversations/from-assessment", json!({}))
        .await;
    assert_eq!(none.problem(), "404 assessment_not_found");
    let assessment = Uuid::new_v4().to_string();
    services.keep_results(&assessment, Some(&user.user.to_string()), results());
    let body = json!({ "assessment_id": assessment, "title": "My results" });
    let headers = [("prefer", "wait=30"), ("idempotency-key", "one")];
    let path = "/api/chat/conversations/from-assessment";
    let first = user.post_with(path, &headers, body.clone()).await;
    assert_eq!(first.status, 201, "{}", first.shown());
    assert_eq!(first.header("preference-applied"), "wait=30");
    let id = first.text("/conversation/id");
    assert_eq!(
        first.header("location"),
        format!("/api/chat/conversations/{id}")
    );
    assert_eq!(first.text("/conversation/title"), "My results");
    assert_eq!(
        first.text("/initial_message/metadata/type"),
        "assessment_welcome"
    );
    assert_eq!(first.text("/generation/kind"), "welcome");
    assert_eq!(first.text("/generation/status"), "completed");
    suggestions(&first.body["suggestions"]);

    let replayed = user.post_with(path, &headers, body).await;
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    assert_eq!(replayed.raw, first.raw);
    // The newest assessment is that one.
    let newest = user.post(path, json!({})).await;
    assert_eq!(newest.text("/conversation/id"), id);
    assert_eq!(
        newest.body["initial_message"],
        first.body["initial_message"]
    );
    assert_eq!(newest.body.get("generation"), None);
    assert_eq!(app.count("conversations").await, "1");
    assert_eq!(app.count("messages").await, "1");
}

#[tokio::test]
async fn a_conversation_may_begin_without_a_welcome_and_get_it_later() {
    let (app, services) = with_services().await;
    let user = app.user();
    let assessment = Uuid::new_v4().to_string();
    services.keep_results(&assessment, Some(&user.user.to_string()), results());
    let body = json!({ "assessment_id": assessment, "auto_start_message": false });
    let path = "/api/chat/conversations/from-assessment";
    let started = user.post(path, body).await;
    assert_eq!(started.status, 201, "{}", started.shown());
    assert_eq!(started.body.get("generation"), None);
    assert_eq!(app.count("generations").await, "0");
    let initialize = format!("/api/chat/assessment/{assessment}/initialize");
    let answer = user
        .post(&initialize, json!({ "trigger_source": "page" }))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.shown());
    assert_eq!(answer.body["success"], true);
    assert_eq!(
        answer.text("/conversation_id"),
        started.text("/conversation/id")
    );
    until(async || (app.count("messages").await == "1").then_some(())).await;
}

#[tokio::test]
async fn who_asks_for_a_conversation_may_wait_for_its_welcome() {
    let (app, services) = with_services().await;
    let user = app.user();
    let assessment = Uuid::new_v4().to_string();
    services.keep_results(&assessment, Some(&user.user.to_string()), results());
    let path = format!("/api/chat/assessment/{assessment}/initialize");
    let wait = [("prefer", "wait=30"), ("idempotency-key", "one")];
    let ready = user.post_with(&path, &wait, json!({})).await;
    assert_eq!(ready.status, 200, "{}", ready.shown());
    assert_eq!(ready.header("preference-applied"), "wait=30");
    assert_eq!(ready.text("/generation/status"), "completed");
    let id = ready.text("/conversation_id");
    let made = user.get(&format!("/api/chat/conversations/{id}")).await;
    assert_eq!(
        ready.body["initial_message"],
        welcome(&made.body["messages"])
    );
    // Repeated it is the same; asked for anew, the welcome is there already.
    let again = user.post_with(&path, &wait, json!({})).await;
    assert_eq!((again.status, &again.raw), (200, &ready.raw));
    let anew = user.post_with(&path, &wait[..1], json!({})).await;
    assert_eq!(anew.status, 200, "{}", anew.shown());
    assert_eq!(anew.body["initial_message"], ready.body["initial_message"]);
    // Who does not wait, or not for long enough, gets what there is.
    let plain = user.post(&path, json!({})).await;
    assert_eq!(
        (plain.status, plain.header("preference-applied")),
        (202, "")
    );
    let other = app.user();
    let assessment = Uuid::new_v4().to_string();
    app.simulator.script("ttft=30000");
    services.keep_results(&assessment, Some(&other.user.to_string()), results());
    let path = format!("/api/chat/assessment/{assessment}/initialize");
    let early = other
        .post_with(&path, &[("prefer", "wait=1")], json!({}))
        .await;
    assert_eq!(early.status, 202, "{}", early.shown());
    assert_eq!(early.header("preference-applied"), "wait=1");
    assert_eq!(early.body.get("initial_message"), None);
    let unfinished =
        "SELECT id FROM chat.generations WHERE status IN ('queued', 'in_progress') LIMIT 1";
    let generation = app.env.value(unfinished).await.unwrap();
    let cancel = format!("/api/chat/generations/{generation}/cancel");
    assert_eq!(other.post(&cancel, json!({})).await.status, 200);
}

#[tokio::test]
async fn results_are_given_to_any_conversation_of_the_person() {
    let (app, services) = with_services().await;
    let user = app.user();
    let assessment = Uuid::new_v4().to_string();
    services.keep_results(&assessment, None, results());
    let id = conversation(&user).await;
    let path = format!("/api/chat/conversations/{id}/context/assessment");
    let added = user
        .post(&path, json!({ "assessment_id": assessment }))
        .await;
    assert_eq!(added.status, 200, "{}", added.shown());
    assert_eq!(added.body["context_added"], true);
    assert_eq!(added.body["assessment_data"]["riasec"]["I"], 92.0);
    let other = conversation(&user).await;
    let mut read = Vec::new();
    for id in [&id, &other] {
        let answer = user.ask(id, "What do my results say?").await;
        read.push(answer.body["usage"]["prompt_tokens"].as_i64().unwrap());
    }
    assert!(
        read[0] > read[1] + 60,
        "the model is given the results: {read:?}"
    );
    for (assessment, code) in [
        (Uuid::new_v4().to_string(), "404 assessment_not_found"),
        ("x".to_owned(), "422 validation_failed assessment_id"),
    ] {
        let refused = user
            .post(&path, json!({ "assessment_id": assessment }))
            .await;
        assert_eq!(refused.problem(), code);
    }
    services.set(Mode::Status(500));
    let unknown = json!({ "assessment_id": Uuid::new_v4() });
    assert_eq!(
        user.post(&path, unknown).await.problem(),
        "409 results_unavailable"
    );
}

#[tokio::test]
async fn an_archive_that_fails_degrades_the_text_only() {
    for mode in [
        Mode::Down,
        Mode::Slow(2_000),
        Mode::Status(500),
        Mode::Garbage,
        Mode::Nonsense,
    ] {
        let (app, services) = with_services().await;
        services.set(mode);
        let user = app.user();
        let assessment = Uuid::new_v4().to_string();
        let path = format!("/api/chat/assessment/{assessment}/initialize");
        let answer = user.post(&path, json!({})).await;
        assert_eq!(answer.status, 202, "{mode:?}: {}", answer.shown());
        until_ready(&user).await;
        let path = format!("/api/chat/assessment/{assessment}/conversation");
        let found = user.get(&path).await;
        let text = welcome(&found.body["messages"])["content"].clone();
        assert!(
            text.as_str().unwrap().matches('?').count() >= 3,
            "{mode:?}: {text}"
        );
    }
}

#[tokio::test]
async fn nobody_starts_with_what_is_somebody_elses() {
    let (app, services) = with_services().await;
    let (user, stranger) = (app.user(), app.user());
    let (known, archived) = (prepared(&user).await, Uuid::new_v4().to_string());
    services.keep_results(&archived, Some(&user.user.to_string()), results());
    for assessment in [&known, &archived] {
        let body = json!({ "assessment_id": assessment });
        let from = "/api/chat/conversations/from-assessment";
        let refused = stranger.post(from, body.clone()).await;
        assert_eq!(refused.problem(), "404 assessment_not_found");
        let path = format!("/api/chat/assessment/{assessment}/initialize");
        let refused = stranger.post(&path, json!({})).await;
        assert_eq!(refused.problem(), "404 assessment_not_found");
        let id = conversation(&stranger).await;
        let path = format!("/api/chat/conversations/{id}/context/assessment");
        let refused = stranger.post(&path, body).await;
        assert_eq!(refused.problem(), "404 assessment_not_found");
    }
    // Another service is believed, but not against what is known.
    assert_eq!(
        auto_initialize(&stranger, &known).await.problem(),
        "404 assessment_not_found"
    );
    let path = format!("/api/chat/conversations/assessment-ready/{}", user.user);
    assert_eq!(stranger.get(&path).await.problem(), "404 user_not_found");
    let request = stranger.service().request(Method::GET, &path);
    assert_eq!(stranger.send(request).await.status, 200);
    let theirs = format!(
        "SELECT count(*) FROM chat.assessments WHERE user_id = '{}'",
        stranger.user
    );
    assert_eq!(app.env.value(&theirs).await.as_deref(), Some("0"));
    let unknown = format!("/api/chat/assessment/{}/conversation", fresh_id());
    assert_eq!(
        stranger.get(&unknown).await.body,
        json!({ "exists": false })
    );
    assert_eq!(app.env.value(&theirs).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_deleted_conversation_is_made_anew_when_it_is_asked_for() {
    let app = TestApp::new().await;
    let user = app.user();
    let assessment = prepared(&user).await;
    let first = readiness(&user).await;
    let id = first["conversation_id"].as_str().unwrap();
    let deleted = user.delete(&format!("/api/chat/conversations/{id}")).await;
    assert_eq!(deleted.status, 204);
    let path = format!("/api/chat/assessment/{assessment}/conversation");
    assert_eq!(user.get(&path).await.body, json!({ "exists": false }));
    let body = json!({ "assessment_id": assessment });
    let path = "/api/chat/conversations/from-assessment";
    let headers = [("prefer", "wait=30")];
    let again = user.post_with(path, &headers, body).await;
    assert_ne!(again.text("/conversation/id"), id);
    assert_eq!(
        again.text("/initial_message/metadata/type"),
        "assessment_welcome"
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_nothing_is_stored() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let auto = "/api/chat/conversations/auto-initialize";
    let from = "/api/chat/conversations/from-assessment";
    let service = user.service();
    let id = fresh_id();
    for (client, path, body, expected) in [
        (&service, auto, json!({}), "422 validation_failed user_id"),
        (
            &service,
            auto,
            json!({ "user_id": id, "assessment_id": "5", "trigger_source": "assessment_complete" }),
            "422 validation_failed assessment_id",
        ),
        (
            &service,
            auto,
            json!({ "user_id": id, "assessment_id": id, "trigger_source": "boredom" }),
            "422 validation_failed trigger_source",
        ),
        (
            &user,
            from,
            json!({ "title": " " }),
            "422 validation_failed title",
        ),
        (
            &user,
            from,
            json!({ "auto_start_message": "yes" }),
            "422 validation_failed auto_start_message",
        ),
        (
            &user,
            &format!("/api/chat/assessment/{id}/initialize"),
            json!({ "trigger_source": "x".repeat(101) }),
            "422 validation_failed trigger_source",
        ),
    ] {
        assert_eq!(client.post(path, body).await.problem(), expected);
    }
    for table in ["assessments", "conversations", "generations"] {
        assert_eq!(app.count(table).await, "0", "{table}");
    }
}

#[tokio::test]
async fn a_stream_of_the_conversation_hears_of_the_stages() {
    let (app, services) = with_services().await;
    let user = app.user();
    let assessment = Uuid::new_v4().to_string();
    services.keep_results(&assessment, Some(&user.user.to_string()), results());
    let body = json!({ "assessment_id": assessment, "auto_start_message": false });
    let from = "/api/chat/conversations/from-assessment";
    let id = user.post(from, body).await.text("/conversation/id");
    let path = format!("/api/chat/conversations/{id}/events");
    let mut stream = EventStream::open(&user, &path, None).await;
    let initialize = format!("/api/chat/assessment/{assessment}/initialize");
    user.post(&initialize, json!({})).await;
    let mut stages = Vec::new();
    while stages.len() < 2 {
        let event = stream.next().await.expect("the stream goes on");
        if event["type"] == "assessment.stage" {
            stages.push(event["data"]["stage"].clone());
        }
    }
    assert_eq!(stages, ["analysis_complete", "chatbot_ready"]);
}

#[tokio::test]
async fn who_has_no_profile_is_spoken_to_as_their_browser_asks() {
    let app = TestApp::with(&[("DEFAULT_LANGUAGE", "en")]).await;
    for (accepted, title, question) in [
        ("id-ID, en;q=0.5", "Asesmen karier Anda", "Jalur karier"),
        ("en-GB", "Your career assessment", "career paths"),
        ("fr", "Your career assessment", "career paths"),
    ] {
        let user = app.user();
        let headers = [("accept-language", accepted)];
        // Neither a profile nor results are to be had.
        let assessment = Uuid::new_v4().to_string();
        let path = format!("/api/chat/assessment/{assessment}/initialize");
        let answer = user.post_with(&path, &headers, json!({})).await;
        assert_eq!(answer.status, 202, "{}", answer.shown());
        let id = answer.text("/conversation_id");
        let made = user.get(&format!("/api/chat/conversations/{id}")).await;
        assert_eq!(made.text("/conversation/title"), title, "{accepted}");
        let path = format!("/api/chat/conversations/{id}/suggestions");
        let all = suggestions(&user.get(&path).await.body["suggestions"]);
        assert!(all.iter().any(|one| one.contains(question)), "{all:?}");
    }
}
