//! Bad input gets a clear error, and nothing is stored.

use http::Method;
use serde_json::{Value, json};

use crate::common::{
    Answer, Client, TestApp, conversation, forged_token, fresh_id, now, token_with,
};

struct Case {
    app: TestApp,
    user: Client,
    id: String,
    messages: String,
}

impl Case {
    async fn new() -> Self {
        let app = TestApp::without_worker().await;
        let user = app.user();
        let id = conversation(&user).await;
        let messages = format!("/api/chat/conversations/{id}/messages");
        Self {
            app,
            user,
            id,
            messages,
        }
    }

    async fn send(&self, body: Value) -> Answer {
        self.user.post(&self.messages, body).await
    }

    async fn send_with(&self, name: &str, value: &str) -> Answer {
        self.user
            .post_with(&self.messages, &[(name, value)], json!({ "content": "x" }))
            .await
    }

    /// Nothing but the conversation this began with.
    async fn assert_nothing_stored(&self) {
        for (table, rows) in [
            ("conversations", "1"),
            ("messages", "0"),
            ("generations", "0"),
            ("idempotency_keys", "0"),
        ] {
            assert_eq!(self.app.count(table).await, rows, "{table}");
        }
    }
}

#[tokio::test]
async fn tokens_that_are_missing_forged_expired_or_unsigned() {
    let case = Case::new().await;
    let user = case.user.user;
    let unsigned = {
        use base64::Engine as _;
        let part = |value: Value| {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
        };
        let claims = json!({ "sub": user, "exp": now().unix_timestamp() + 60 });
        format!(
            "{}.{}.",
            part(json!({ "alg": "none", "typ": "JWT" })),
            part(claims)
        )
    };
    let expired = token_with(json!({ "sub": user, "exp": now().unix_timestamp() - 60 }));
    for (client, expected) in [
        (case.user.anonymous(), "401 unauthenticated"),
        (
            case.user.with_token(forged_token(user)),
            "401 token_invalid",
        ),
        (case.user.with_token(expired), "401 token_expired"),
        (case.user.with_token(unsigned), "401 token_invalid"),
        (case.user.with_token("no.token.at-all"), "401 token_invalid"),
        (
            case.user.with_token(token_with(json!({}))),
            "401 token_invalid",
        ),
    ] {
        let answer = client.post(&case.messages, json!({ "content": "x" })).await;
        assert_eq!(answer.problem(), expected);
        assert!(
            answer.header("www-authenticate").starts_with("Bearer"),
            "{}",
            answer.shown()
        );
    }
    case.assert_nothing_stored().await;
}

#[tokio::test]
async fn content_that_is_missing_blank_too_long_or_not_text() {
    let case = Case::new().await;
    for (body, expected) in [
        (json!({}), "422 validation_failed content"),
        (json!({ "content": null }), "422 validation_failed content"),
        (json!({ "content": 5 }), "422 validation_failed content"),
        (json!({ "content": ["x"] }), "422 validation_failed content"),
        (json!({ "content": "" }), "422 validation_failed content"),
        (
            json!({ "content": " \t\r\n\u{a0}\u{2003}" }),
            "422 validation_failed content",
        ),
        (
            json!({ "content": "x".repeat(4001) }),
            "422 message_too_long content",
        ),
        (
            json!({ "content": "\u{1f600}".repeat(4001) }),
            "422 message_too_long content",
        ),
        (
            json!({ "content": "a\0b" }),
            "422 validation_failed content",
        ),
        (
            json!({ "content": "x", "surprise": true }),
            "422 validation_failed surprise",
        ),
        (
            json!({ "content": "x", "content_type": "video" }),
            "422 validation_failed content_type",
        ),
        (
            json!({ "content": "x", "concurrency": "maybe" }),
            "422 validation_failed concurrency",
        ),
        (
            json!({ "content": "x", "stream": "yes" }),
            "422 validation_failed stream",
        ),
        (
            json!({ "content": "x", "parent_message_id": "1" }),
            "422 validation_failed parent_message_id",
        ),
        (
            json!({ "content": "x", "model": "no/such-model" }),
            "422 model_unknown model",
        ),
        (
            json!({ "content": "x", "model": "openai/gpt-4o-mini" }),
            "422 model_unknown model",
        ),
        (
            json!({ "content": "x", "attachments": {} }),
            "422 validation_failed attachments",
        ),
        (
            json!({ "content": "x", "attachments": [{ "url": "https://x.org" }] }),
            "422 validation_failed attachments[0].media_type",
        ),
        (
            json!({ "content": "x", "attachments": [{ "url": "file:///etc/passwd", "media_type": "text" }] }),
            "422 validation_failed attachments[0].url attachments[0].media_type",
        ),
        (
            json!({ "content": "x", "attachments": vec![json!({ "url": "https://x.org", "media_type": "a/b" }); 11] }),
            "422 validation_failed attachments",
        ),
        (json!("content"), "422 validation_failed body"),
        // An array of the fields is no object, here and further in.
        (
            json!({ "content": "x", "attachments": [["https://x.org", "a/b"]] }),
            "422 validation_failed attachments[0]",
        ),
        (
            json!(["x", "text", [], null, null, "enqueue", true]),
            "422 validation_failed body",
        ),
        (json!([]), "422 validation_failed body"),
        (Value::Null, "422 validation_failed body"),
    ] {
        let shown = body.to_string().chars().take(100).collect::<String>();
        assert_eq!(case.send(body).await.problem(), expected, "{shown}");
    }
    case.assert_nothing_stored().await;
}

#[tokio::test]
async fn bodies_that_are_not_json() {
    let case = Case::new().await;
    let deep = format!(
        r#"{{"content":"x","metadata":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    for (kind, body, expected) in [
        ("application/json", "", "400 malformed_json"),
        ("application/json", "{", "400 malformed_json"),
        ("application/json", "content=x", "400 malformed_json"),
        (
            "application/json",
            "{\"content\":\"\u{0}\"}",
            "400 malformed_json",
        ),
        (
            "application/json",
            r#"{"content":"\ud800"}"#,
            "400 malformed_json",
        ),
        ("application/json", &deep, "400 malformed_json"),
        // JSON, but not what is asked for.
        (
            "application/json",
            r#"{"content":"x","content_type":7}"#,
            "422 validation_failed content_type",
        ),
        (
            "application/json",
            r#"{"content":"x","concurrency":["enqueue"]}"#,
            "422 validation_failed concurrency",
        ),
        (
            "application/json",
            r#"{"content":"x","metadata":{"a":1e400}}"#,
            "422 validation_failed metadata",
        ),
        (
            "text/plain",
            r#"{"content":"x"}"#,
            "415 unsupported_media_type",
        ),
        (
            "application/x-www-form-urlencoded",
            "content=x",
            "415 unsupported_media_type",
        ),
        (
            "multipart/form-data; boundary=x",
            "--x--",
            "415 unsupported_media_type",
        ),
    ] {
        let request = case
            .user
            .request(Method::POST, &case.messages)
            .header("content-type", kind);
        let answer = case.user.send(request.body(body.to_owned())).await;
        assert_eq!(answer.problem(), expected, "{kind} {body:.40}");
    }
    let compressed = case
        .user
        .request(Method::POST, &case.messages)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip");
    let compressed = case.user.send(compressed.body("{\"content\":\"x\"}")).await;
    assert_eq!(compressed.problem(), "415 unsupported_media_type");
    assert_eq!(compressed.header("accept-encoding"), "identity");
    let binary = case
        .user
        .request(Method::POST, &case.messages)
        .header("content-type", "application/json");
    assert_eq!(
        case.user
            .send(binary.body(vec![0xff, 0xfe, 0x00]))
            .await
            .problem(),
        "400 malformed_json"
    );
    case.assert_nothing_stored().await;
}

#[tokio::test]
async fn conversations_with_too_much_or_the_wrong_thing_in_them() {
    let case = Case::new().await;
    let all = "/api/chat/conversations";
    let large = json!({ "text": "x".repeat(70 * 1024) });
    for (body, expected) in [
        (
            json!({ "context_data": large }),
            "422 validation_failed context_data",
        ),
        (
            json!({ "metadata": large }),
            "422 validation_failed metadata",
        ),
        (
            json!({ "context_data": [1] }),
            "422 validation_failed context_data",
        ),
        (
            json!({ "context_data": { "a": ["\0"] } }),
            "422 validation_failed context_data.a[0]",
        ),
        (
            json!({ "metadata": { "\0": 1 } }),
            "422 validation_failed metadata.\u{fffd}",
        ),
        (
            json!({ "metadata": { "a": [1.797e308] } }),
            "422 validation_failed metadata",
        ),
        (json!({ "title": "" }), "422 validation_failed title"),
        (json!({ "title": "  " }), "422 validation_failed title"),
        (
            json!({ "title": "x".repeat(256) }),
            "422 validation_failed title",
        ),
        (
            json!({ "title": "x".repeat(300), "metadata": large }),
            "422 validation_failed title metadata",
        ),
        (
            json!({ "context_type": "gossip" }),
            "422 validation_failed context_type",
        ),
        (
            json!({ "user_id": fresh_id() }),
            "422 validation_failed user_id",
        ),
    ] {
        let shown = body.to_string().chars().take(60).collect::<String>();
        assert_eq!(
            case.user.post(all, body).await.problem(),
            expected,
            "{shown}"
        );
    }
    let path = format!("{all}/{}", case.id);
    for (body, expected) in [
        (
            json!({ "status": "deleted" }),
            "422 validation_failed status",
        ),
        (json!({ "title": 1 }), "422 validation_failed title"),
        (
            json!({ "context_data": {} }),
            "422 validation_failed context_data",
        ),
        (json!({ "metadata": "x" }), "422 validation_failed metadata"),
    ] {
        assert_eq!(
            case.user.patch(&path, body.clone()).await.problem(),
            expected,
            "{body}"
        );
    }
    case.assert_nothing_stored().await;
    assert_eq!(case.user.get(&path).await.header("etag"), "\"1\"");
}

#[tokio::test]
async fn pages_out_of_bounds() {
    let case = Case::new().await;
    let lists = [
        "/api/chat/conversations",
        "/api/chat/generations",
        &case.messages,
    ];
    for path in lists {
        for limit in [
            "0",
            "-1",
            "1000000000",
            "99999999999999999999",
            "ten",
            "",
            "1.5",
        ] {
            let answer = case.user.get(&format!("{path}?limit={limit}")).await;
            assert_eq!(
                answer.problem(),
                "422 validation_failed limit",
                "{path} {limit}"
            );
        }
        assert_eq!(
            case.user.get(&format!("{path}?page=1")).await.problem(),
            "422 validation_failed page"
        );
    }
    for (path, expected) in [
        (
            "/api/chat/conversations?offset=-1",
            "422 validation_failed offset",
        ),
        (
            "/api/chat/conversations?status=deleted",
            "422 validation_failed status",
        ),
        ("/api/chat/conversations?q=", "422 validation_failed q"),
        ("/api/chat/conversations?q=a%00b", "422 validation_failed q"),
        (
            "/api/chat/generations?status=done",
            "422 validation_failed status",
        ),
        (
            "/api/chat/generations?conversation_id=1",
            "422 validation_failed conversation_id",
        ),
        (
            &*format!("{}?before_id=1", case.messages),
            "422 validation_failed before_id",
        ),
        (
            &*format!("/api/chat/generations/{}?wait=61", fresh_id()),
            "422 validation_failed wait",
        ),
        (
            &*format!("/api/chat/generations/{}?wait=-1", fresh_id()),
            "422 validation_failed wait",
        ),
        ("/health?full=maybe", "422 validation_failed full"),
    ] {
        assert_eq!(case.user.get(path).await.problem(), expected, "{path}");
    }
}

#[tokio::test]
async fn headers_that_cannot_be_understood() {
    let case = Case::new().await;
    for (name, value, expected) in [
        ("prefer", "wait=61", "422 validation_failed Prefer"),
        ("prefer", "wait=soon", "422 validation_failed Prefer"),
        ("prefer", "wait", "422 validation_failed Prefer"),
        ("prefer", "=", "422 validation_failed Prefer"),
        (
            "idempotency-key",
            "",
            "422 validation_failed Idempotency-Key",
        ),
        (
            "idempotency-key",
            "two words",
            "422 validation_failed Idempotency-Key",
        ),
        (
            "idempotency-key",
            "k".repeat(256).as_str(),
            "422 validation_failed Idempotency-Key",
        ),
    ] {
        assert_eq!(
            case.send_with(name, value).await.problem(),
            expected,
            "{name}: {value}"
        );
    }
    case.assert_nothing_stored().await;
    let path = format!("/api/chat/conversations/{}/events", case.id);
    for odd in ["17", "a.b.c", "0-0", &format!("{}.1.2.3", fresh_id())] {
        let request = case
            .user
            .request(Method::GET, &path)
            .header("last-event-id", odd);
        assert_eq!(
            case.user.send(request).await.problem(),
            "422 invalid_cursor Last-Event-ID",
            "{odd}"
        );
        let answer = case.user.get(&format!("{path}?after={odd}")).await;
        assert_eq!(answer.problem(), "422 invalid_cursor after", "{odd}");
    }
    let sent = case.send(json!({ "content": "x" })).await;
    let foreign = format!(
        "{}?after={}.0001.0000000001",
        sent.text("/links/events"),
        fresh_id()
    );
    assert_eq!(
        case.user.get(&foreign).await.problem(),
        "422 invalid_cursor after"
    );
    let request = case.user.request(
        Method::PATCH,
        &format!("/api/chat/conversations/{}", case.id),
    );
    let answer = case
        .user
        .send(
            request
                .header("if-match", "1")
                .json(&json!({ "title": "x" })),
        )
        .await;
    assert_eq!(answer.problem(), "422 validation_failed If-Match");
}

#[tokio::test]
async fn messages_where_they_do_not_belong() {
    let case = Case::new().await;
    let stranger = case.app.user();
    let theirs = conversation(&stranger).await;
    let foreign = stranger.say(&theirs, "x").await.text("/user_message/id");
    let own = case
        .send(json!({ "content": "x", "parent_message_id": foreign }))
        .await;
    assert_eq!(own.problem(), "422 validation_failed parent_message_id");
    let other = conversation(&case.user).await;
    let elsewhere = case.user.say(&other, "x").await.text("/user_message/id");
    let own = case
        .send(json!({ "content": "x", "parent_message_id": elsewhere }))
        .await;
    assert_eq!(own.problem(), "422 validation_failed parent_message_id");
    let path = format!("/api/chat/conversations/{}", case.id);
    case.user
        .patch(&path, json!({ "status": "archived" }))
        .await;
    assert_eq!(
        case.send(json!({ "content": "x" })).await.problem(),
        "409 conversation_archived"
    );
    case.user.delete(&path).await;
    assert_eq!(
        case.send(json!({ "content": "x" })).await.problem(),
        "404 conversation_not_found"
    );
    let sql = format!(
        "SELECT count(*) FROM chat.messages WHERE conversation_id = '{}'",
        case.id
    );
    assert_eq!(case.app.env.value(&sql).await.as_deref(), Some("0"));
}
