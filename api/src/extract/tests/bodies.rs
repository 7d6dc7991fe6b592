//! What may come in a body.

use super::*;

#[tokio::test]
async fn json_of_the_right_shape_is_read() {
    assert_eq!(
        send("/json", r#"{"content":"h\u0069 \\u0000"}"#).await,
        "200 hi \\u0000"
    );
    let typed =
        Request::post("/json").header(header::CONTENT_TYPE, "application/ld+JSON; charset=utf-8");
    assert_eq!(
        ask(typed.body(Body::from(r#"{"content":"x"}"#)).unwrap()).await,
        "200 x"
    );
}

#[tokio::test]
async fn json_of_any_other_shape_is_refused_by_name() {
    let deep = format!(
        r#"{{"content":"x","metadata":{}{}}}"#,
        "[".repeat(64),
        "]".repeat(64)
    );
    let fits = format!(
        r#"{{"content":"x","metadata":{}"[[[{{"{}}}"#,
        "[".repeat(63),
        "]".repeat(63)
    );
    assert_eq!(send("/json", fits).await, "200 x");
    let brackets = format!(r#"{{"content":"{}"}}"#, "[".repeat(100));
    assert!(send("/json", brackets).await.starts_with("200 "));
    let cases = [
        (r"", "400 malformed_json"),
        (r"{", "400 malformed_json"),
        (r#"{"content":"x"} {}"#, "400 malformed_json"),
        ("{\"content\":\"\u{0}\"}", "400 malformed_json"),
        (r#"{"content":"\ud800"}"#, "400 malformed_json"),
        (
            r#"{"content":"x","metadata":1e999}"#,
            "422 validation_failed [metadata: has the wrong type, or is out of range]",
        ),
        (&deep, "400 malformed_json"),
        (
            r"[]",
            "422 validation_failed [body: invalid type: sequence, expected an object]",
        ),
        (
            r#""text""#,
            "422 validation_failed [body: invalid type: string \"text\", expected an object]",
        ),
        (
            r"{}",
            "422 validation_failed [content: missing field `content`]",
        ),
        (
            r#"{"content":5}"#,
            "422 validation_failed [content: invalid type: integer `5`, expected a string]",
        ),
        (
            r#"{"content":"x","count":256}"#,
            "422 validation_failed [count: invalid value: integer `256`, expected u8]",
        ),
        (
            r#"{"content":"x","surprise":1}"#,
            "422 validation_failed [surprise: unknown field `surprise`, expected one of `content`, `count`, `metadata`, `parts`]",
        ),
        (
            r#"{"content":"x","parts":[{"url":"a"},{}]}"#,
            "422 validation_failed [parts[1].url: missing field `url`]",
        ),
        (
            r#"{"content":"a\u0000b"}"#,
            "422 validation_failed [content: must not contain NUL characters]",
        ),
        (
            r#"{"content":"x","metadata":{"a":[{"k\u0000":1}]}}"#,
            "422 validation_failed [metadata.a[0].k\u{fffd}: must not contain NUL characters]",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(send("/json", body.to_owned()).await, expected, "{body}");
    }
}

#[tokio::test]
async fn bodies_too_large_or_of_another_type_are_refused() {
    assert_eq!(
        send("/json", "x".repeat(200_001)).await,
        "413 body_too_large"
    );
    // Without a length that is known in advance, too.
    let chunks = futures::stream::iter(
        (0..30).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 10_000]))),
    );
    assert_eq!(
        send("/json", Body::from_stream(chunks)).await,
        "413 body_too_large"
    );
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
    ] {
        let request = Request::post("/json").header(header::CONTENT_TYPE, kind);
        assert_eq!(
            ask(request.body(Body::from("{}")).unwrap()).await,
            "415 unsupported_media_type",
            "{kind}"
        );
    }
    let untyped = Request::post("/json").body(Body::from("{}")).unwrap();
    assert_eq!(ask(untyped).await, "415 unsupported_media_type");
    let nothing = Request::post("/json").body(Body::empty()).unwrap();
    assert_eq!(
        ask(nothing).await,
        "422 validation_failed [content: missing field `content`]"
    );
}

#[tokio::test]
async fn idempotency_keys_are_bounded_and_the_body_leaves_a_fingerprint() {
    let post = async |key: &str, body: &str| {
        let request = Request::post("/idempotent").header(header::CONTENT_TYPE, "application/json");
        ask(request
            .header("idempotency-key", key)
            .body(Body::from(body.to_owned()))
            .unwrap())
        .await
    };
    let (one, two) = (r#"{"content":"1"}"#, r#"{"content":"2"}"#);
    assert_eq!(post("k", one).await, post("k", one).await);
    assert_ne!(post("k", one).await, post("k", two).await);
    assert!(post(&"k".repeat(255), one).await.starts_with("200 "));
    for odd in [&"k".repeat(256), "", "two words", "käse"] {
        let answer = post(odd, one).await;
        assert!(
            answer.starts_with("422 validation_failed [Idempotency-Key"),
            "{odd:?}: {answer}"
        );
    }
}
