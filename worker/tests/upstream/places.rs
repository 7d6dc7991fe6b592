//! The three places an error shows up in mean the same, and partial text never stays.

use futures::future::join_all;
use worker::upstream::ErrorClass;

use super::rig::{A, B, called, scripted};

#[tokio::test]
async fn an_error_means_the_same_in_the_status_and_in_the_stream() {
    let rows = [
        ("400", "a", "upstream_rejected", ErrorClass::InvalidRequest),
        (
            "content_policy",
            "a",
            "content_refused",
            ErrorClass::ContentPolicy,
        ),
        ("404", "ab", "upstream_exhausted", ErrorClass::NoEndpoint),
        ("502", "aabb", "again", ErrorClass::ServerError),
        ("503", "ab", "again", ErrorClass::Unavailable),
        (
            "429,reset=60",
            "a",
            "put back 60",
            ErrorClass::PlatformLimit,
        ),
        (
            "429_upstream,retry_after=30",
            "ab",
            "put back 30",
            ErrorClass::Capacity,
        ),
    ];
    let checks = rows
        .into_iter()
        .flat_map(|row| ["in=http", "in=chunk", "in=chunk,at=3"].map(|place| (row, place)));
    let checks = checks.map(|((failure, calls, end, class), place)| async move {
        let script = format!("{failure},{place}");
        let (ran, simulator) = scripted(&script, &[A, B], &[]).await;
        assert_eq!(called(&simulator), calls, "{script}: {:?}", ran.outcome);
        assert_eq!(ran.end(), end, "{script}: {:?}", ran.outcome);
        let in_stream = place != "in=http";
        for record in &ran.listener.records {
            assert_eq!(record.error, Some(class), "{script}");
            assert_eq!(
                record.wasted, in_stream,
                "{script}: what had begun may cost something"
            );
            assert_eq!(record.http_status == Some(200), in_stream, "{script}");
        }
    });
    join_all(checks).await;
}

#[tokio::test]
async fn a_finish_reason_of_error_is_an_error_of_the_upstream() {
    for script in ["502,in=finish", "502,in=finish,at=3"] {
        let (ran, simulator) = scripted(script, &[A], &[]).await;
        assert_eq!(called(&simulator), "aa", "{script}");
        let records = &ran.listener.records;
        assert!(
            records
                .iter()
                .all(|record| record.error == Some(ErrorClass::ServerError)),
            "{script}: {records:?}"
        );
    }
}

#[tokio::test]
async fn text_before_an_error_is_void() {
    for script in [
        "502,in=chunk,at=5,times=1",
        "502,in=finish,at=5,times=1",
        "cut=5,times=1",
        "drop=5,times=1",
        "no_finish,times=1",
        "malformed=5,times=1",
    ] {
        let (ran, simulator) = scripted(script, &[A, B], &[]).await;
        assert_eq!(called(&simulator), "aa", "{script}: {:?}", ran.outcome);
        assert_eq!(ran.listener.retried(), 1, "{script}");
        assert_eq!(
            ran.answer().text,
            simulator.expected_reply("How are you?"),
            "{script}"
        );
        assert_eq!(ran.listener.shown(), ran.answer().text, "{script}");
        let failed = &ran.listener.records[0];
        assert!(
            failed.wasted && failed.upstream_id.is_some(),
            "{script}: its cost can be asked for"
        );
        assert!(failed.first_token_at.is_some(), "{script}");
    }
}
