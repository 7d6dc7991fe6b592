//! The knowledge base as editors see it.

use http::Method;
use serde_json::{Value, json};

use crate::common::{Answer, Client, EventStream, TestApp, fresh_id, token_with, until};

const UPLOADS: &str = "/api/chat/knowledge/ingestions";

/// An administrator.
pub(crate) fn editor(app: &TestApp) -> Client {
    let user = app.user();
    let token = token_with(json!({ "sub": user.user, "role": "admin" }));
    user.with_token(token)
}

/// Sends a file as browsers do; `parts` come before it.
pub(crate) async fn send(
    client: &Client,
    path: &str,
    parts: &[(&str, &str)],
    file: &[u8],
) -> Answer {
    let mut body = Vec::new();
    for (name, text) in parts {
        let part =
            format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let head = "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"sipd.csv\"\r\nContent-Type: text/csv\r\n\r\n";
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--edge--\r\n");
    let request = client
        .request(Method::POST, path)
        .header("content-type", "multipart/form-data; boundary=edge");
    client.send(request.body(body)).await
}

/// Uploads a file and waits until it is indexed.
pub(crate) async fn index(editor: &Client, file: &[u8]) -> Value {
    let accepted = send(editor, UPLOADS, &[], file).await;
    assert_eq!(accepted.status, 202, "{}", accepted.shown());
    ended(editor, &accepted.text("/ingestion/id")).await
}

pub(crate) async fn ended(editor: &Client, id: &str) -> Value {
    until(async || {
        let answer = editor.get(&format!("{UPLOADS}/{id}")).await;
        let status = answer.text("/status");
        (!["uploading", "queued", "running"].contains(&status.as_str())).then_some(answer.body)
    })
    .await
}

const FILE: &[u8] = b"\xef\xbb\xbfMenu;MASALAH;Solusi;Catatan Dev;Catatan QA\r\n\
    Akun;Lupa kata sandi dan akun terkunci;Atur ulang password lewat menu Lupa Sandi;;\r\n\
    Penatausahaan SPP;\"SPP tidak bisa disimpan\nkarena pagu terlampaui\";Periksa sisa pagu pada DPA;cek kolom pagu;\r\n\
    ;;;hanya catatan;\r\n\
    Pelaporan;Neraca tidak seimbang;Periksa jurnal penyesuaian;;sudah diuji\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_previewed_indexed_followed_found_and_deleted() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let preview = send(&editor, &format!("{UPLOADS}?preview=true"), &[], FILE).await;
    assert_eq!(preview.status, 200, "{}", preview.shown());
    assert_eq!(preview.body["preview"]["delimiter"], ";");
    assert_eq!(preview.body["preview"]["rows"].as_array().unwrap().len(), 3);
    assert_eq!(
        app.count("knowledge_ingestions").await,
        "0",
        "a look stores nothing"
    );

    let accepted = send(&editor, UPLOADS, &[("collection", "default")], FILE).await;
    assert_eq!(accepted.status, 202, "{}", accepted.shown());
    let id = accepted.text("/ingestion/id");
    let path = format!("{UPLOADS}/{id}");
    assert_eq!(accepted.header("location"), path);
    let events = EventStream::open(&editor, &format!("{path}/events"), None)
        .await
        .rest()
        .await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "knowledge.progress");
    assert_eq!(last["data"]["ingestion"]["status"], "completed", "{last}");
    for event in &events {
        let mut fields: Vec<&String> = event.as_object().unwrap().keys().collect();
        fields.sort();
        let common = [
            "at",
            "conversation_id",
            "data",
            "generation_id",
            "id",
            "type",
        ];
        assert_eq!(fields, common, "as in every event");
        assert_eq!(
            (&event["generation_id"], &event["conversation_id"]),
            (&Value::Null, &Value::Null)
        );
    }
    // Whoever comes back is told what they have missed, and only that.
    let last_id = last["id"].as_str().unwrap();
    let ids: Vec<&str> = events.iter().filter_map(|one| one["id"].as_str()).collect();
    assert!(ids.is_sorted_by(|left, right| left < right), "{ids:?}");
    let before = format!("{id}.0000.0000000001");
    let missed = EventStream::open(&editor, &format!("{path}/events"), Some(&before))
        .await
        .rest()
        .await;
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert_eq!(&missed[0], last);
    let nothing = editor.get(&format!("{path}/events?after={last_id}")).await;
    assert_eq!(nothing.status, 204, "{}", nothing.shown());
    let strange = format!("{}.0000.0000000001", editor.user);
    let strange = editor.get(&format!("{path}/events?after={strange}")).await;
    assert_eq!(strange.problem(), "422 invalid_cursor after");
    let done = ended(&editor, &id).await;
    assert_eq!(
        (
            &done["rows_read"],
            &done["documents_new"],
            &done["chunks_embedded"]
        ),
        (&json!(4), &json!(3), &json!(3)),
        "{done}"
    );
    assert_eq!(
        done["rows_skipped"],
        json!([{ "line": 5, "reason": "there is neither an issue nor a solution" }]),
        "{done}"
    );

    let found = editor
        .get("/api/chat/knowledge/search?q=akun%20kekunci&top_k=2")
        .await;
    assert_eq!(found.status, 200, "{}", found.shown());
    assert_eq!(found.body["degraded"], false, "{}", found.shown());
    assert_eq!(found.text("/results/0/document/menu"), "Akun");
    let first = &found.body["results"][0];
    assert_eq!(
        (&first["words"]["rank"], &first["vector"]["rank"]),
        (&json!(1), &json!(1)),
        "{first}"
    );

    let listed = editor.get("/api/chat/knowledge/documents?limit=2").await;
    assert_eq!(
        (
            &listed.body["total"],
            &listed.body["pagination"]["has_more"]
        ),
        (&json!(3), &json!(true)),
        "{}",
        listed.shown()
    );
    let document = format!(
        "/api/chat/knowledge/documents/{}",
        found.text("/results/0/document/id")
    );
    assert_eq!(
        editor.get(&document).await.text("/document/solution"),
        "Atur ulang password lewat menu Lupa Sandi"
    );
    let changed = json!({ "menu": "Akun", "issue": "Lupa kata sandi dan akun terkunci", "solution": "Hubungi admin" });
    let replaced = editor
        .send(editor.request(Method::PUT, &document).json(&changed))
        .await;
    assert_eq!(replaced.status, 202, "{}", replaced.shown());
    ended(&editor, &replaced.text("/ingestion/id")).await;
    let now = editor.get(&document).await;
    assert_eq!(
        (
            now.text("/document/solution").as_str(),
            &now.body["document"]["version"]
        ),
        ("Hubungi admin", &json!(2))
    );
    assert_eq!(editor.delete(&document).await.status, 204);
    assert_eq!(
        editor.get(&document).await.problem(),
        "404 document_not_found"
    );
    let gone = editor
        .get("/api/chat/knowledge/search?q=akun%20kekunci")
        .await;
    assert!(!gone.raw.contains("Hubungi admin"), "{}", gone.shown());
    let cancelled = editor.post(&format!("{path}/cancel"), Value::Null).await;
    assert_eq!(cancelled.problem(), "409 ingestion_ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_words_must_do() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    index(&editor, FILE).await;
    app.simulator.script("503");
    let found = editor
        .get("/api/chat/knowledge/search?q=nerca%20tidak%20seimbang")
        .await;
    assert_eq!(found.status, 200, "{}", found.shown());
    assert_eq!(found.body["degraded"], true, "{}", found.shown());
    assert_eq!(found.text("/results/0/document/menu"), "Pelaporan");
    assert_eq!(found.body["results"][0]["vector"], Value::Null);
    app.simulator.clear_script();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_the_help_desk_is_refused_with_its_line_and_leaves_nothing() {
    let app = TestApp::without_worker().await;
    let editor = editor(&app);
    let long = [
        b"MENU,ISSUE\n".to_vec(),
        b"a,b\n".repeat(2000),
        b"x,\"never closed\n".to_vec(),
    ]
    .concat();
    for (file, line) in [
        (&b"PK\x03\x04\0\0\0\0\n"[..], "line 1"),
        (b"name,age\nx,1\n", "line 1"),
        (b"MENU,ISSUE,MASALAH\na,b,c\n", "line 1"),
        (b"MENU,ISSUE\na,b\nx,\"y\n", "line 3"),
        (b"", "line 1"),
        (&long, "line 2002"),
    ] {
        let answer = send(&editor, UPLOADS, &[], file).await;
        assert_eq!(answer.problem(), "422 file_unreadable file", "{line}");
        assert!(
            answer.text("/errors/0/message").starts_with(line),
            "{}",
            answer.shown()
        );
    }
    let answer = send(&editor, UPLOADS, &[("collection", "No Such Name")], FILE).await;
    assert_eq!(answer.problem(), "422 validation_failed collection");
    let answer = send(&editor, UPLOADS, &[("colour", "red")], FILE).await;
    assert_eq!(answer.problem(), "422 validation_failed colour");
    let answer = editor.post(UPLOADS, json!({})).await;
    assert_eq!(answer.problem(), "415 unsupported_media_type");
    // A form that ends in the middle of its file.
    let half = b"--edge\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nMENU,ISSUE\na,b\n";
    let request = editor
        .request(Method::POST, UPLOADS)
        .header("content-type", "multipart/form-data; boundary=edge");
    assert_eq!(
        editor.send(request.body(half.to_vec())).await.problem(),
        "400 malformed_request"
    );
    for (query, expected) in [
        ("q=x&top_k=0", "422 validation_failed top_k"),
        ("q=x&top_k=1000", "422 validation_failed top_k"),
        ("q=", "422 validation_failed q"),
        ("top_k=1", "422 validation_failed q"),
        ("q=x&collection=A", "422 validation_failed collection"),
    ] {
        let answer = editor
            .get(&format!("/api/chat/knowledge/search?{query}"))
            .await;
        assert_eq!(answer.problem(), expected, "{query}");
    }
    let blank = editor
        .post(
            "/api/chat/knowledge/documents",
            json!({ "menu": "x", "issue": " \u{a0}" }),
        )
        .await;
    assert_eq!(blank.problem(), "422 validation_failed issue");
    let missing = editor.get(&format!("{UPLOADS}/{}", fresh_id())).await;
    assert_eq!(missing.problem(), "404 ingestion_not_found");
    for table in [
        "knowledge_ingestions",
        "knowledge_rows",
        "knowledge_documents",
    ] {
        assert_eq!(app.count(table).await, "0", "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_for_administrators_and_needs_pgvector() {
    let app = TestApp::without_worker().await;
    let (editor, person) = (editor(&app), app.user());
    let id = fresh_id();
    let paths = [
        UPLOADS.to_owned(),
        format!("{UPLOADS}/{id}"),
        format!("{UPLOADS}/{id}/events"),
        "/api/chat/knowledge/documents".to_owned(),
        format!("/api/chat/knowledge/documents/{id}"),
        "/api/chat/knowledge/search?q=x".to_owned(),
    ];
    for path in &paths {
        assert_eq!(
            person.get(path).await.problem(),
            "403 admin_required",
            "{path}"
        );
    }
    assert_eq!(
        send(&person, UPLOADS, &[], FILE).await.problem(),
        "403 admin_required"
    );
    app.env.execute("DROP TABLE chat.knowledge_vectors").await;
    for path in &paths {
        assert_eq!(
            editor.get(path).await.problem(),
            "503 knowledge_unavailable",
            "{path}"
        );
    }
    assert_eq!(
        send(&editor, UPLOADS, &[], FILE).await.problem(),
        "503 knowledge_unavailable"
    );
    assert_eq!(app.count("knowledge_ingestions").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_sent_again_is_answered_and_not_repeated() {
    let app = TestApp::without_worker().await;
    let editor = editor(&app);
    let send = async |key: &str, collection: &str, file: &[u8]| {
        let mut body = format!(
            "--edge\r\nContent-Disposition: form-data; name=\"collection\"\r\n\r\n{collection}\r\n\
             --edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.csv\"\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n--edge--\r\n");
        let request = editor
            .request(Method::POST, UPLOADS)
            .header("content-type", "multipart/form-data; boundary=edge")
            .header("idempotency-key", key);
        editor.send(request.body(body)).await
    };
    let first = send("one", "default", FILE).await;
    assert_eq!(first.status, 202, "{}", first.shown());
    let again = send("one", "default", FILE).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    let other = send("one", "default", b"MENU,ISSUE\na,b\n").await;
    assert_eq!(other.problem(), "422 idempotency_conflict");
    let elsewhere = send("one", "other", FILE).await;
    assert_eq!(elsewhere.problem(), "422 idempotency_conflict");
    assert_eq!(app.count("knowledge_ingestions").await, "1");
    assert_eq!(app.count("knowledge_rows").await, "4", "of the first alone");
    // A file that cannot be read keeps no key.
    let broken = send("two", "default", b"MENU,ISSUE\na,\"b\n").await;
    assert_eq!(broken.problem(), "422 file_unreadable file");
    assert_eq!(send("two", "default", FILE).await.status, 202);
    let odd = send("k\u{fc}", "default", FILE).await;
    assert_eq!(odd.problem(), "422 validation_failed Idempotency-Key");
    // Both at once: one is done, the other is told so or to come back.
    let (left, right) = futures::join!(
        send("three", "default", FILE),
        send("three", "default", FILE)
    );
    let statuses = [left.status, right.status];
    assert!(
        statuses.contains(&202) && statuses.iter().all(|status| [202, 409].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(app.count("knowledge_ingestions").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_sender_vanishes_leaves_nothing() {
    use tokio::io::AsyncWriteExt as _;
    let app = TestApp::without_worker().await;
    let editor = editor(&app);
    let address = app.api.url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let token = editor.bearer().unwrap();
    let head = format!(
        "POST {UPLOADS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: multipart/form-data; boundary=edge\r\ncontent-length: 9000000\r\n\r\n\
         --edge\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nMENU,ISSUE\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let rows: String = (0..5_000)
        .map(|row| format!("menu,issue {row}\n"))
        .collect();
    stream.write_all(rows.as_bytes()).await.unwrap();
    let staged = "SELECT count(*) > 1000 FROM chat.knowledge_rows";
    until(async || (app.env.value(staged).await.as_deref() == Some("true")).then_some(())).await;
    drop(stream);
    until(async || (app.count("knowledge_ingestions").await == "0").then_some(())).await;
    assert_eq!(app.count("knowledge_rows").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_an_editor_explains_is_understood_at_once() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    index(&editor, FILE).await;
    let path = "/api/chat/knowledge/synonyms";
    let question = "/api/chat/knowledge/search?q=jomplang&top_k=3";
    app.simulator.script("503");
    let before = editor.get(question).await;
    assert_eq!(before.body["results"], json!([]), "{}", before.shown());
    let means = json!({ "means": ["Tidak  Seimbang", "tidak seimbang"] });
    let word = format!("{path}/Jomplang");
    let put = editor
        .send(editor.request(Method::PUT, &word).json(&means))
        .await;
    assert_eq!(
        put.body,
        json!({ "synonym": { "word": "jomplang", "means": ["tidak seimbang"] } }),
        "{}",
        put.shown()
    );
    let after = editor.get(question).await;
    assert_eq!(
        after.text("/results/0/document/menu"),
        "Pelaporan",
        "{}",
        after.shown()
    );
    let listed = editor.get(&format!("{path}?q=jom")).await;
    assert_eq!(
        (&listed.body["total"], &listed.body["synonyms"][0]["word"]),
        (&json!(1), &json!("jomplang")),
        "{}",
        listed.shown()
    );
    assert!(editor.get(&format!("{path}?limit=2")).await.body["pagination"]["has_more"] == true);
    assert_eq!(editor.delete(&word).await.status, 204);
    assert_eq!(
        editor.delete(&word).await.problem(),
        "404 synonym_not_found"
    );
    let gone = editor.get(question).await;
    assert_eq!(gone.body["results"], json!([]), "{}", gone.shown());
    for (word, body, field) in [
        ("x", json!({ "means": [] }), "means"),
        ("x", json!({ "means": ["x"] }), "means"),
        ("x", json!({ "means": ["..."] }), "means"),
        ("x", json!({ "means": ["a b c d e"] }), "means"),
        ("a%20b%20c", json!({ "means": ["y"] }), "word"),
    ] {
        let put = editor.request(Method::PUT, &format!("{path}/{word}"));
        let answer = editor.send(put.json(&body)).await;
        assert_eq!(answer.problem(), format!("422 validation_failed {field}"));
    }
    app.simulator.clear_script();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_tried_again_when_an_editor_says_so() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let refusal = app.simulator.script_containing("ditolak", "400");
    let file = b"MENU,ISSUE\nMenu,biasa saja\nMenu,ditolak dulu\n";
    let done = index(&editor, file).await;
    assert_eq!(done["status"], "completed_with_errors", "{done}");
    assert_eq!(done["rows_skipped"][0]["line"], 3, "{done}");
    let path = format!("{UPLOADS}/{}/retry", done["id"].as_str().unwrap());
    let none = editor.post(&path, json!({ "lines": [2] })).await;
    assert_eq!(none.problem(), "409 nothing_to_retry");
    let bad = editor.post(&path, json!({ "lines": [] })).await;
    assert_eq!(bad.problem(), "422 validation_failed lines");
    assert!(app.simulator.remove_rule(refusal));
    let again = editor.post(&path, json!({ "lines": [3] })).await;
    assert_eq!(again.status, 202, "{}", again.shown());
    let done = ended(&editor, &again.text("/ingestion/id")).await;
    assert_eq!(
        (&done["status"], &done["chunks_failed"]),
        (&json!("completed"), &json!(0)),
        "{done}"
    );
    let over = editor.post(&path, json!({})).await;
    assert_eq!(over.problem(), "409 nothing_to_retry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_too_large_leaves_nothing_wherever_it_is_noticed() {
    let app = TestApp::with(&[("KNOWLEDGE_MAX_UPLOAD_BYTES", "200000")]).await;
    let editor = editor(&app);
    let mut file = b"MENU,ISSUE\n".to_vec();
    let mut number = 0;
    while file.len() <= 200_000 {
        number += 1;
        file.extend_from_slice(format!("menu,issue {number}\n").as_bytes());
    }
    let answer = send(&editor, UPLOADS, &[], &file).await;
    assert_eq!(answer.problem(), "413 body_too_large");
    let preview = send(&editor, &format!("{UPLOADS}?preview=true"), &[], &file).await;
    assert_eq!(preview.problem(), "413 body_too_large");
    assert_eq!(app.count("knowledge_ingestions").await, "0");
    assert_eq!(app.count("knowledge_rows").await, "0");
    file.truncate(199_000);
    file.extend_from_slice(b"\n");
    assert_eq!(send(&editor, UPLOADS, &[], &file).await.status, 202);
}
