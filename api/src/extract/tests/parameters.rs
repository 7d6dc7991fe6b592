//! What may stand in paths, queries and headers.

use super::*;

#[tokio::test]
async fn path_parameters_must_have_their_type() {
    assert_eq!(
        with(&format!("/path/{USER}"), &[]).await,
        format!("200 {USER}")
    );
    for odd in [
        "1",
        "not-a-uuid",
        "%00",
        "018900000000-7000-8000-000000000001",
    ] {
        let answer = with(&format!("/path/{odd}"), &[]).await;
        assert!(
            answer.starts_with("422 validation_failed [id: "),
            "{odd}: {answer}"
        );
    }
    assert_eq!(with("/path/%ff", &[]).await, "400 malformed_request");
}

#[tokio::test]
async fn query_parameters_are_bounded_and_known() {
    assert_eq!(with("/query", &[]).await, "200 20 0 None");
    assert_eq!(
        with("/query?limit=100&offset=7&q=a+b%20c", &[]).await,
        "200 100 7 Some(\"a b c\")"
    );
    let limit = "422 validation_failed [limit: must be a number between 1 and 100]";
    for odd in [
        "0",
        "-1",
        "1000000000",
        "99999999999999999999",
        "1.5",
        "ten",
        "",
    ] {
        assert_eq!(
            with(&format!("/query?limit={odd}"), &[]).await,
            limit,
            "{odd}"
        );
    }
    assert_eq!(
        with("/query?offset=-1", &[]).await,
        "422 validation_failed [offset: must be a number between 0 and 1000000]"
    );
    assert_eq!(
        with("/query?page=2", &[]).await,
        "422 validation_failed [page: unknown field `page`, expected one of `limit`, `offset`, `q`]"
    );
    assert!(
        with("/query?limit=1&limit=2", &[])
            .await
            .starts_with("422 validation_failed")
    );
    assert_eq!(
        with("/query?q=a%00b", &[]).await,
        "422 validation_failed [q: must not contain NUL characters]"
    );
}

#[tokio::test]
async fn prefer_is_read_as_its_rfc_says_but_a_bad_wait_is_told() {
    for (value, expected) in [
        ("wait=10", "200 Some(10s)"),
        ("WAIT = \"10\"", "200 Some(10s)"),
        ("respond-async, wait=0", "200 Some(0ns)"),
        ("respond-async; foo=\"a,b;wait=9\"", "200 None"),
        ("handling=lenient, wait=60, wait=5", "200 Some(60s)"),
    ] {
        assert_eq!(
            with("/prefer", &[("prefer", value)]).await,
            expected,
            "{value}"
        );
    }
    for odd in [
        "wait",
        "wait=",
        "wait=61",
        "wait=-1",
        "wait=1.5",
        "wait=ten",
        "wait=99999999999999999999",
        "",
        "=5",
        ",",
        "a b",
    ] {
        let answer = with("/prefer", &[("prefer", odd)]).await;
        assert!(
            answer.starts_with("422 validation_failed [Prefer: "),
            "{odd:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn entity_tags_compare_strongly() {
    assert_eq!(with("/match", &[]).await, "200 Absent true");
    assert_eq!(with("/match", &[("if-match", "*")]).await, "200 Any true");
    assert_eq!(
        with("/match", &[("if-match", "\"2\", \"3\"")]).await,
        "200 OneOf([\"2\", \"3\"]) true"
    );
    assert_eq!(
        with("/match", &[("if-match", "W/\"3\"")]).await,
        "200 OneOf([\"W/3\"]) false"
    );
    for odd in ["3", "\"3", "", "\"3\" \"4\""] {
        assert!(
            with("/match", &[("if-match", odd)])
                .await
                .starts_with("422 validation_failed [If-Match"),
            "{odd:?}"
        );
    }
}

#[tokio::test]
async fn event_ids_are_checked_before_use() {
    let id = format!("{USER}.0001.0000000017");
    assert_eq!(with("/cursor", &[]).await, "200 Ok(false)");
    assert_eq!(
        with("/cursor", &[("last-event-id", "")]).await,
        "200 Ok(false)"
    );
    assert_eq!(
        with("/cursor", &[("last-event-id", &id)]).await,
        "200 Ok(true)"
    );
    for odd in ["17", "0-1", "a.b.c"] {
        let answer = with("/cursor", &[("last-event-id", odd)]).await;
        assert!(
            answer.starts_with("422 invalid_cursor [Last-Event-ID"),
            "{odd}: {answer}"
        );
    }
}
