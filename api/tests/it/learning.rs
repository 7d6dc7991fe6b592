//! What the help desk learns from: feedback, gaps, proposals.

use serde_json::{Value, json};

use crate::common::{Answer, Client, TestApp, fresh_id};
use crate::knowledge::{editor, ended, index};

const CHAT: &str = "/api/chat/support/chat";
const GAPS: &str = "/api/chat/knowledge/gaps";
const PROPOSALS: &str = "/api/chat/knowledge/proposals";

const FILE: &[u8] = b"MENU,ISSUE,EXPECTED,NOTE BY DEV\n\
    Akun,Lupa kata sandi dan akun terkunci,Atur ulang password lewat menu Lupa Sandi,rahasia dapur\n\
    Penatausahaan SPP,SPP tidak bisa disimpan karena pagu terlampaui,Periksa sisa pagu pada DPA,\n";

async fn ask(client: &Client, message: &str) -> Answer {
    let answer = client.post(CHAT, json!({ "message": message })).await;
    assert_eq!(answer.status, 200, "{}", answer.shown());
    answer
}

/// The path of an answer's message.
fn reply(answer: &Answer) -> String {
    let session = answer.text("/session_id");
    let message = answer.text("/generation/assistant_message_id");
    format!("/api/chat/conversations/{session}/messages/{message}")
}

async fn rate(client: &Client, answer: &Answer, rating: &str) {
    let path = format!("{}/feedback", reply(answer));
    let rated = client.post(&path, json!({ "rating": rating })).await;
    assert_eq!(rated.status, 200, "{}", rated.shown());
}

fn shown(gaps: &Answer) -> Vec<(String, u64, u64, u64)> {
    let groups = gaps.body["gaps"].as_array().unwrap();
    groups
        .iter()
        .map(|gap| {
            let number = |name: &str| gap[name].as_u64().unwrap();
            (
                gap["question"].as_str().unwrap().to_owned(),
                number("count"),
                number("unanswered"),
                number("down_voted"),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_or_does_not_help_is_reported_in_groups_and_without_names() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    index(&editor, FILE).await;
    let (one, other) = (app.user(), app.user());
    ask(&one, "jadwal kereta ke Surabaya, hubungi siti@pemda.go.id").await;
    ask(
        &other,
        "min jadwal keretanya ke Surabaya gimana? 081234567890",
    )
    .await;
    ask(&one, "=HYPERLINK(\"http://evil\") resep rendang").await;
    let helped = ask(&one, "akun saya kekunci, lupa kata sandi").await;
    let not_helped = ask(&other, "SPP tidak bisa disimpan pagu terlampaui").await;
    rate(&one, &helped, "up").await;
    rate(&other, &not_helped, "down").await;

    let gaps = editor.get(GAPS).await;
    assert_eq!(gaps.status, 200, "{}", gaps.shown());
    let expected = [
        ("min jadwal keretanya ke Surabaya gimana? [number]", 2, 2, 0),
        ("SPP tidak bisa disimpan pagu terlampaui", 1, 0, 1),
        ("[link] resep rendang", 1, 1, 0),
    ];
    let expected = expected
        .map(|(question, count, unanswered, down)| (question.to_owned(), count, unanswered, down));
    assert_eq!(shown(&gaps), expected, "{}", gaps.shown());
    assert_eq!(gaps.body["gaps"][0]["conversations"], 2);
    for secret in [
        "siti@",
        "08123",
        &one.user.to_string(),
        &other.user.to_string(),
    ] {
        assert!(!gaps.raw.contains(secret), "{secret}");
    }
    // What people thought is tied to the entries that were used.
    let entries = gaps.body["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{}", gaps.shown());
    for entry in entries {
        assert_eq!((&entry["up"], &entry["down"]), (&json!(1), &json!(1)));
    }

    // The last rating counts, and takes the words with it.
    rate(&other, &not_helped, "up").await;
    let gaps = editor.get(GAPS).await;
    assert_eq!(shown(&gaps).len(), 2);
    assert_eq!(gaps.body["entries"], json!([]), "{}", gaps.shown());
    let kept = "SELECT count(*) FROM chat.support_questions WHERE question IS NOT NULL";
    assert_eq!(app.env.value(kept).await.as_deref(), Some("3"));
    // So does deleting the conversation; what became of the questions stays counted.
    let listed = other.get("/api/chat/conversations").await;
    for conversation in listed.body["conversations"].as_array().unwrap() {
        let id = conversation["id"].as_str().unwrap();
        other.delete(&format!("/api/chat/conversations/{id}")).await;
    }
    let gaps = editor.get(GAPS).await;
    assert_eq!(gaps.body["gaps"][0]["count"], 1, "{}", gaps.shown());
    assert_eq!(app.count("support_questions").await, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_gaps_runs_no_formula() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let person = app.user();
    for question in [
        "=1+2 rendang",
        "+cmd|' /C calc'!A0 kucing",
        "-2+3 kereta",
        "@SUM(A1) gajah",
        "\t=tab merpati",
        "plain, with \"quotes\"",
    ] {
        ask(&person, question).await;
    }
    let table = editor.get(&format!("{GAPS}?format=csv&days=1")).await;
    assert_eq!(table.status, 200, "{}", table.raw);
    assert_eq!(table.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(table.header("cache-control"), "no-store");
    let lines: Vec<&str> = table.raw.split("\r\n").collect();
    assert!(
        lines[0].starts_with("question,count,unanswered,down_voted"),
        "{}",
        lines[0]
    );
    for line in &lines[1..] {
        let bare = line.trim_start_matches('"');
        assert!(
            !bare.starts_with(['=', '+', '-', '@', '\t', '\r']),
            "{line}"
        );
        for cell in line.split("\",\"") {
            assert!(!cell.starts_with(['=', '+', '@']), "{line}");
        }
    }
    assert!(table.raw.contains("\"'=1+2 rendang\""), "{}", table.raw);
    assert!(table.raw.contains("\"'@SUM(A1) gajah\""), "{}", table.raw);
    for query in ["days=0", "days=366", "format=xml"] {
        let name = query.split('=').next().unwrap();
        let refused = editor.get(&format!("{GAPS}?{query}")).await;
        assert_eq!(refused.problem(), format!("422 validation_failed {name}"));
    }
}

/// A conversation that a person answered and resolved.
async fn resolved(app: &TestApp, person: &Client) {
    let service = person.service();
    let asked = ask(person, "kartu token TTE saya hilang, NIK 3174051234567890").await;
    let session = asked.text("/session_id");
    let act = async |action: &str, more: Value| {
        let mut body = json!({ "user_id": person.user });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let path = format!("/internal/support/{session}/{action}");
        let answer = service.post(&path, body).await;
        assert!([200, 201].contains(&answer.status), "{}", answer.shown());
    };
    act("take", json!({ "agent": "Sari" })).await;
    for content in [
        "Ajukan token baru di menu TTE.",
        "Lalu hubungi 0812-3456-7890.",
    ] {
        act("reply", json!({ "agent": "Sari", "content": content })).await;
    }
    act("resolve", json!({ "reason": "token diganti" })).await;
    let _ = app;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_answered_is_proposed_and_becomes_an_entry_once() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let person = app.user();
    resolved(&app, &person).await;
    let open = editor.get(PROPOSALS).await;
    assert_eq!(open.status, 200, "{}", open.shown());
    let proposal = &open.body["proposals"][0];
    assert_eq!(open.body["proposals"].as_array().unwrap().len(), 1);
    assert_eq!(
        (
            &proposal["issue"],
            &proposal["solution"],
            &proposal["resolution"]
        ),
        (
            &json!("kartu token TTE saya hilang, NIK [number]"),
            &json!("Ajukan token baru di menu TTE.\nLalu hubungi [number]."),
            &json!("token diganti")
        ),
        "{}",
        open.shown()
    );
    assert!(!open.raw.contains(&person.user.to_string()));
    let path = format!("{PROPOSALS}/{}", proposal["id"].as_str().unwrap());

    let blank = editor
        .post(&format!("{path}/approve"), json!({ "menu": "TTE" }))
        .await;
    assert_eq!(blank.problem(), "422 validation_failed issue");
    let entry = json!({
        "menu": "TTE", "issue": "Kartu token TTE hilang", "solution": "Ajukan token baru di menu TTE.",
    });
    let approved = editor.post(&format!("{path}/approve"), entry.clone()).await;
    assert_eq!(approved.status, 202, "{}", approved.shown());
    let done = ended(&editor, &approved.text("/ingestion/id")).await;
    assert_eq!(done["documents_new"], 1, "{done}");
    let found = editor
        .get("/api/chat/knowledge/search?q=token%20TTE%20hilang")
        .await;
    assert_eq!(found.text("/results/0/document/menu"), "TTE");
    assert_eq!(
        editor
            .post(&format!("{path}/approve"), entry.clone())
            .await
            .problem(),
        "409 proposal_decided"
    );
    let dismiss = format!("{path}/dismiss");
    assert_eq!(
        editor
            .send(editor.request(http::Method::POST, &dismiss))
            .await
            .problem(),
        "409 proposal_decided"
    );
    assert_eq!(app.count("knowledge_documents").await, "1");
    // The words are forgotten, the decision is not.
    let approved = editor.get(&format!("{PROPOSALS}?state=approved")).await;
    let proposal = &approved.body["proposals"][0];
    assert_eq!(
        (
            &proposal["issue"],
            &proposal["decided_by"],
            &proposal["ingestion_id"]
        ),
        (&json!(""), &json!(editor.user), &done["id"])
    );

    resolved(&app, &person).await;
    let open = editor.get(PROPOSALS).await;
    let path = format!("{PROPOSALS}/{}", open.text("/proposals/0/id"));
    let dismissed = editor
        .send(editor.request(http::Method::POST, &format!("{path}/dismiss")))
        .await;
    assert_eq!(
        dismissed.text("/proposal/state"),
        "dismissed",
        "{}",
        dismissed.shown()
    );
    let unknown = format!("{PROPOSALS}/{}/dismiss", fresh_id());
    assert_eq!(
        editor
            .send(editor.request(http::Method::POST, &unknown))
            .await
            .problem(),
        "404 proposal_not_found"
    );
    let stranger = app.user().get(PROPOSALS).await;
    assert_eq!(stranger.problem(), "403 admin_required");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_got_an_answer_opens_what_it_was_made_of() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    index(&editor, FILE).await;
    let person = app.user();
    let answer = ask(&person, "akun saya kekunci, lupa kata sandi").await;
    let path = format!("{}/sources", reply(&answer));
    let opened = person.get(&path).await;
    assert_eq!(opened.status, 200, "{}", opened.shown());
    let source = &opened.body["sources"][0];
    assert_eq!(
        (
            &source["number"],
            &source["menu"],
            &source["solution"],
            &source["changed"]
        ),
        (
            &json!(1),
            &json!("Akun"),
            &json!("Atur ulang password lewat menu Lupa Sandi"),
            &json!(false)
        )
    );
    assert!(
        !opened.raw.contains("rahasia dapur"),
        "notes are for those who keep the entries"
    );
    assert_eq!(
        app.user().get(&path).await.problem(),
        "404 conversation_not_found"
    );
    let document = answer.text("/sources/0/document_id");
    editor
        .delete(&format!("/api/chat/knowledge/documents/{document}"))
        .await;
    let opened = person.get(&path).await;
    assert_eq!(
        opened.body["sources"][0]["solution"],
        Value::Null,
        "{}",
        opened.shown()
    );
    // An answer that was made of nothing has none.
    let none = ask(&person, "resep rendang daging sapi").await;
    let opened = person.get(&format!("{}/sources", reply(&none))).await;
    assert_eq!(opened.body, json!({ "sources": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_and_proposals_end_with_the_retention_period() {
    let mut app = TestApp::with(&[]).await;
    app.start_worker_with(&[("RETENTION_DAYS", "30")]);
    let person = app.user();
    resolved(&app, &person).await;
    assert_eq!(
        (
            app.count("support_questions").await,
            app.count("knowledge_proposals").await
        ),
        ("1".to_owned(), "1".to_owned())
    );
    // As if it had all been long ago, but for the conversation, which goes on.
    let old = "chat.uuid7_floor(now() - interval '31 days')";
    app.env
        .execute(&format!(
            "UPDATE chat.support_questions SET message_id = {old}"
        ))
        .await;
    app.env
        .execute(&format!("UPDATE chat.knowledge_proposals SET id = {old}"))
        .await;
    // Another worker begins with a pass.
    app.start_worker_with(&[("RETENTION_DAYS", "30"), ("WORKER_NAME", "sweeper")]);
    crate::common::until(async || {
        let left = (
            app.count("support_questions").await,
            app.count("knowledge_proposals").await,
        );
        (left == ("0".to_owned(), "0".to_owned())).then_some(())
    })
    .await;
}
