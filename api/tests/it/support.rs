//! The help desk's chat.

use serde_json::{Value, json};

use crate::common::{Answer, Client, EventStream, TestApp};
use crate::knowledge::{editor, index};

const CHAT: &str = "/api/chat/support/chat";

const FILE: &[u8] = b"MENU,ISSUE,EXPECTED\n\
    Akun,Lupa kata sandi dan akun terkunci,Atur ulang password lewat menu Lupa Sandi\n\
    Penatausahaan SPP,SPP tidak bisa disimpan karena pagu terlampaui,Periksa sisa pagu pada DPA\n\
    Pelaporan,Neraca tidak seimbang setelah posting,Periksa jurnal penyesuaian\n";

async fn ask(client: &Client, message: &str, session: Option<&str>) -> Answer {
    let mut body = json!({ "message": message });
    if let Some(session) = session {
        body["session_id"] = json!(session);
    }
    client.post(CHAT, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_gets_an_answer_with_its_sources() {
    let app = TestApp::new().await;
    index(&editor(&app), FILE).await;
    let person = app.user();
    let answer = ask(&person, "min akun saya kekunci, lupa kata sandi", None).await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    let body = &answer.body;
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    for key in [
        "response",
        "intent",
        "sentiment",
        "suggestions",
        "context_used",
        "should_escalate",
        "session_id",
        "sources",
        "generation",
    ] {
        assert!(
            keys.iter().any(|known| *known == key),
            "{key} is missing in {keys:?}"
        );
    }
    assert_eq!(
        (
            &body["intent"],
            &body["context_used"],
            &body["should_escalate"]
        ),
        (&json!("login_issue"), &json!(true), &json!(false)),
        "{}",
        answer.shown()
    );
    assert_eq!(answer.text("/sources/0/menu"), "Akun");
    assert_eq!(
        (
            answer.text("/generation/kind").as_str(),
            answer.text("/state").as_str()
        ),
        ("support", "bot")
    );
    assert!(!answer.text("/response").is_empty());
    assert_eq!(body["suggestions"].as_array().unwrap().len(), 3);

    // The session is a conversation like any other, and goes on.
    let session = answer.text("/session_id");
    let next = ask(&person, "terima kasih, sangat membantu", Some(&session)).await;
    assert_eq!(next.status, 200, "{}", next.shown());
    assert!(
        next.body["sentiment"].as_f64().unwrap() > 0.3,
        "{}",
        next.shown()
    );
    let listed = person
        .get("/api/chat/conversations?context_type=support")
        .await;
    assert_eq!(
        (&listed.body["total"], listed.text("/conversations/0/id")),
        (&json!(1), session.clone()),
        "{}",
        listed.shown()
    );
    assert_eq!(listed.body["conversations"][0]["message_count"], 4);
    assert!(
        listed
            .text("/conversations/0/title")
            .starts_with("min akun saya")
    );
    let generation = answer.text("/generation/id");
    let events = EventStream::open(
        &person,
        &format!("/api/chat/generations/{generation}/events"),
        None,
    )
    .await
    .rest()
    .await;
    assert_eq!(events.last().unwrap()["type"], "generation.completed");
    // Also what came as an ordinary message is looked up.
    let plain = person
        .ask(&session, "Neraca tidak seimbang, bagaimana?")
        .await;
    assert_eq!(
        plain.text("/assistant_message/metadata/support/sources/0/menu"),
        "Pelaporan",
        "{}",
        plain.shown()
    );

    let stranger = ask(&app.user(), "halo", Some(&session)).await;
    assert_eq!(stranger.problem(), "404 conversation_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_knowledge_base_does_not_have_is_not_made_up_and_handed_over_at_last() {
    let app = TestApp::new().await;
    index(&editor(&app), FILE).await;
    let person = app.user();
    let mut session: Option<String> = None;
    let mut last = Value::Null;
    for (question, escalates) in [
        ("resep rendang daging sapi", false),
        ("jadwal kereta ke Surabaya", false),
        ("harga emas hari ini", true),
    ] {
        let answer = ask(&person, question, session.as_deref()).await;
        assert_eq!(answer.status, 200, "{}", answer.shown());
        assert_eq!(
            (&answer.body["context_used"], &answer.body["sources"]),
            (&json!(false), &json!([])),
            "{}",
            answer.shown()
        );
        assert_eq!(
            answer.body["should_escalate"],
            escalates,
            "{question}: {}",
            answer.shown()
        );
        session = Some(answer.text("/session_id"));
        last = answer.body;
    }
    assert_eq!(last["state"], "waiting_for_human", "{last}");
    let reason = app
        .env
        .value("SELECT support ->> 'reason' FROM chat.conversations WHERE context_type = 'support'")
        .await;
    assert_eq!(reason.as_deref(), Some("missing_knowledge"));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_asks_for_a_person_is_handed_over_and_the_service_is_told() {
    let app = TestApp::new().await;
    let person = app.user();
    // A worker that starts says that nobody is to be told; one that answers has done so.
    ask(&person, "halo", None).await;
    app.env
        .execute("SELECT chat.switch_notifications('{http}')")
        .await;
    let answer = ask(&person, "tolong hubungkan saya dengan petugas", None).await;
    assert_eq!(
        (&answer.body["should_escalate"], &answer.body["state"]),
        (&json!(true), &json!("waiting_for_human")),
        "{}",
        answer.shown()
    );
    let told = app
        .env
        .value("SELECT string_agg(type, ' ' ORDER BY place) FROM chat.notifications")
        .await;
    assert_eq!(
        told.as_deref(),
        Some("chat.generation.completed chat.support.escalated")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_model_answers_the_entry_is_told_and_a_person_takes_over() {
    let app = TestApp::new().await;
    index(&editor(&app), FILE).await;
    app.simulator
        .add_rule(loadtest::simulator::Rule {
            endpoint: Some(loadtest::simulator::Endpoint::Chat),
            directives: "500".to_owned(),
            ..loadtest::simulator::Rule::default()
        })
        .unwrap();
    let answer = app
        .user()
        .post_with(
            CHAT,
            &[("prefer", "wait=60")],
            json!({ "message": "Neraca tidak seimbang setelah posting" }),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    assert!(
        answer
            .text("/response")
            .contains("Periksa jurnal penyesuaian"),
        "{}",
        answer.shown()
    );
    assert_eq!(
        (
            &answer.body["should_escalate"],
            &answer.body["context_used"]
        ),
        (&json!(true), &json!(true)),
        "{}",
        answer.shown()
    );
    assert_eq!(answer.text("/generation/status"), "completed");
    assert_eq!(answer.body["generation"]["usage"]["cost_credits"], json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_refused_and_a_repeated_one_is_answered_once() {
    let app = TestApp::new().await;
    let person = app.user();
    for (body, expected) in [
        (json!({}), "422 validation_failed message"),
        (
            json!({ "message": " \u{a0}" }),
            "422 validation_failed message",
        ),
        (
            json!({ "message": "x".repeat(4001) }),
            "422 message_too_long message",
        ),
        (
            json!({ "message": "x", "session_id": "y" }),
            "422 validation_failed session_id",
        ),
        (
            json!({ "message": "x", "session_id": person.user }),
            "404 conversation_not_found",
        ),
    ] {
        assert_eq!(person.post(CHAT, body).await.problem(), expected);
    }
    let ordinary = crate::common::conversation(&person).await;
    assert_eq!(
        ask(&person, "x", Some(&ordinary)).await.problem(),
        "404 conversation_not_found"
    );
    assert_eq!(app.count("messages").await, "0");
    let headers = [("idempotency-key", "one")];
    let first = person
        .post_with(CHAT, &headers, json!({ "message": "halo" }))
        .await;
    let again = person
        .post_with(CHAT, &headers, json!({ "message": "halo" }))
        .await;
    assert_eq!(
        (again.header("idempotency-replayed"), &again.body),
        ("true", &first.body),
        "{}",
        again.shown()
    );
    assert_eq!(app.count("messages").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_takes_over_answers_gives_back_and_resolves() {
    let app = TestApp::new().await;
    let person = app.user();
    let service = person.service();
    let first = ask(&person, "tolong hubungkan saya dengan petugas", None).await;
    let session = first.text("/session_id");
    let path = |action: &str| format!("/internal/support/{session}/{action}");
    let held = json!({ "user_id": person.user, "agent": "Sari" });
    let said = |text: &str| json!({ "user_id": person.user, "agent": "Sari", "content": text });

    let early = service.post(&path("reply"), said("halo")).await;
    assert_eq!(early.problem(), "409 not_taken_over");
    // What the assistant is making when somebody takes over never lands.
    let late = person
        .say(&session, "[[sim:ttft=1500]] masih menunggu")
        .await;
    let taken = service.post(&path("take"), held.clone()).await;
    assert_eq!(
        (taken.status, taken.text("/state").as_str()),
        (200, "human"),
        "{}",
        taken.shown()
    );
    let late = person.ended(&late.text("/generation/id")).await;
    assert_eq!(late.text("/status"), "cancelled");
    // Nor does what is asked afterwards get an answer of a model.
    let meanwhile = person
        .post_with(
            CHAT,
            &[("prefer", "wait=20")],
            json!({ "message": "halo?", "session_id": session }),
        )
        .await;
    assert_eq!(
        (&meanwhile.body["response"], &meanwhile.body["state"]),
        (&Value::Null, &json!("human")),
        "{}",
        meanwhile.shown()
    );
    let answered = service.post(&path("reply"), said("Saya bantu, Bu.")).await;
    assert_eq!(answered.status, 201, "{}", answered.shown());
    let messages = person
        .get(&format!("/api/chat/conversations/{session}/messages"))
        .await;
    let messages = messages.body["messages"].as_array().unwrap().clone();
    let last = messages.last().unwrap();
    assert_eq!(
        (
            &last["sender_type"],
            &last["content"],
            &last["metadata"]["human"]
        ),
        (&json!("assistant"), &json!("Saya bantu, Bu."), &json!(true))
    );
    let by_model = messages
        .iter()
        .filter(|one| one["sender_type"] == "assistant" && one["metadata"]["human"] != true);
    assert_eq!(by_model.count(), 1, "only the first answer is the model's");

    let note = json!({ "user_id": person.user, "note": "sudah diatur ulang" });
    let given = service.post(&path("give-back"), note).await;
    assert_eq!(given.text("/state"), "bot", "{}", given.shown());
    let next = ask(&person, "terima kasih", Some(&session)).await;
    assert!(next.body["response"].is_string(), "{}", next.shown());
    service.post(&path("take"), held).await;
    let reason = json!({ "user_id": person.user, "reason": "selesai lewat telepon" });
    assert_eq!(
        service
            .post(&path("resolve"), reason.clone())
            .await
            .text("/state"),
        "resolved"
    );
    assert_eq!(
        service.post(&path("resolve"), reason).await.problem(),
        "409 not_taken_over"
    );
    let stranger = json!({ "user_id": app.user().user, "agent": "Sari" });
    assert_eq!(
        service.post(&path("take"), stranger).await.problem(),
        "404 conversation_not_found"
    );
    let trail = app
        .env
        .value("SELECT string_agg(action, ' ' ORDER BY id) FROM chat.audit_log")
        .await;
    assert_eq!(
        trail.as_deref(),
        Some("support.take support.bot support.take support.resolved")
    );
}

/// A provider of chat models that says this, whatever it is asked.
fn says(content: &str) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let said = Value::from(content).to_string();
    let body = include_str!("fixtures/judgement.json").replace("\"CONTENT\"", &said);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.ends_with(b"}") {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                if read == 0 {
                    break;
                }
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_may_judge_messages_and_patterns_do_where_it_says_nothing_of_use() {
    for (said, intent, sentiment, escalates) in [
        (
            r#"{"intent":"complaint","sentiment":-0.9,"wants_person":false}"#,
            "complaint",
            -0.9,
            true,
        ),
        (
            "I would say it is about reports.",
            "login_issue",
            0.0,
            false,
        ),
    ] {
        let mut app = TestApp::without_worker().await;
        let providers =
            json!([{ "name": "judge", "base_url": says(said), "models": ["judge/model"] }]);
        let providers = providers.to_string();
        app.start_worker_with(&[
            ("SUPPORT_CLASSIFIER_MODEL", "judge/model"),
            ("UPSTREAM_PROVIDERS", &providers),
        ]);
        index(&editor(&app), FILE).await;
        let user = app.user();
        let answer = ask(&user, "Bagaimana cara login dengan akun baru", None).await;
        assert_eq!(answer.status, 200, "{}", answer.shown());
        assert_eq!(answer.text("/intent"), intent, "{}", answer.shown());
        assert_eq!(
            answer.body["sentiment"],
            json!(sentiment),
            "{}",
            answer.shown()
        );
        assert_eq!(
            answer.body["should_escalate"],
            json!(escalates),
            "{}",
            answer.shown()
        );
        let booked = "SELECT string_agg(operation, ',') FROM chat.usage_tracking WHERE operation = 'classification'";
        assert_eq!(
            app.env.value(booked).await.as_deref(),
            Some("classification"),
            "what the judgement took is booked"
        );
    }
}
