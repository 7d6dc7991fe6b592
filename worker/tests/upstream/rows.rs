//! One case per row of upstream.md's table: which models are called, and how it ends.

use futures::future::join_all;
use worker::upstream::ErrorClass;

use super::rig::{A, B, C, Heard, called, scripted};

/// A script, what is called of the chain a (free), b (free), c (paid), and how it ends.
async fn check(rows: &[(&str, &str, &str)]) {
    let checks = rows
        .iter()
        .map(|(script, expected_calls, expected_end)| async move {
            let (ran, simulator) = scripted(script, &[A, B, C], &[]).await;
            assert_eq!(
                called(&simulator),
                *expected_calls,
                "{script}: {:?}",
                ran.outcome
            );
            assert_eq!(ran.end(), *expected_end, "{script}: {:?}", ran.outcome);
            let ended = ran.listener.records.len();
            assert_eq!(
                ended,
                expected_calls.len(),
                "{script}: every call is in the ledger"
            );
            assert_eq!(ran.listener.shown(), "", "{script}");
        });
    join_all(checks).await;
}

#[tokio::test]
async fn our_own_mistakes_are_not_repeated() {
    check(&[
        ("400", "a", "upstream_rejected"),
        ("413", "a", "upstream_rejected"),
        ("422", "a", "upstream_rejected"),
        ("400,no_metadata", "a", "upstream_rejected"),
        ("unknown_model", "abc", "upstream_exhausted"),
    ])
    .await;
    let (ran, _simulator) = scripted("400", &[A], &[]).await;
    assert!(ran.detail().contains("payload sha256 "), "{}", ran.detail());
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_cut_once_and_then_goes_to_another_model() {
    let (ran, simulator) = scripted("context_length", &[A, B], &[]).await;
    assert_eq!(ran.end(), "context_too_long");
    let sizes: Vec<_> = simulator
        .calls()
        .iter()
        .map(|call| (call.model.clone(), call.messages))
        .collect();
    let expected = [(A, 6), (A, 4), (B, 6), (B, 4)].map(|(model, size)| (model.to_owned(), size));
    assert_eq!(sizes, expected);

    let (ran, simulator) = scripted("context_length,times=1", &[A, B], &[]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("completed", "aa")
    );
}

#[tokio::test]
async fn refused_content_is_refused_everywhere() {
    check(&[
        ("content_policy", "a", "content_refused"),
        ("moderation", "a", "content_refused"),
        ("403,no_metadata", "a", "content_refused"),
        ("finish=content_filter,empty", "a", "content_refused"),
    ])
    .await;
}

#[tokio::test]
async fn without_a_usable_key_or_credit_it_ends_at_once() {
    check(&[
        ("401", "a", "upstream_unauthorised"),
        ("401,no_metadata", "a", "upstream_unauthorised"),
        ("402", "a", "upstream_unauthorised"),
        ("key_limit", "a", "upstream_unauthorised"),
    ])
    .await;
}

#[tokio::test]
async fn without_credit_a_free_model_answers() {
    let (ran, simulator) = scripted(&format!("model={C},402"), &[C, A], &[]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("completed", "ca")
    );
    assert_eq!(ran.answer().model.name, A);

    let (ran, simulator) = scripted("402", &[C, A, B], &[]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("upstream_unauthorised", "ca"),
        "a negative balance blocks free models too"
    );
}

#[tokio::test]
async fn credit_held_by_running_calls_is_waited_for() {
    check(&[
        ("in_flight_budget,retry_after=30", "a", "put back 30"),
        ("in_flight_budget,retry_after=0.05", "aa", "put back 0"),
    ])
    .await;
}

#[tokio::test]
async fn a_model_nobody_serves_is_left_for_the_next() {
    check(&[
        ("404", "abc", "upstream_exhausted"),
        ("deprecated", "abc", "upstream_exhausted"),
    ])
    .await;
}

#[tokio::test]
async fn a_broken_upstream_is_asked_twice_per_model() {
    check(&[
        ("408", "aabbcc", "again"),
        ("500", "aabbcc", "again"),
        ("502", "aabbcc", "again"),
        ("504", "aabbcc", "again"),
        ("524", "aabbcc", "again"),
        ("529", "aabbcc", "again"),
        ("500,no_metadata", "aabbcc", "again"),
    ])
    .await;
}

#[tokio::test]
async fn a_limit_of_the_account_is_waited_for_or_paid_around() {
    check(&[
        ("429,reset=60", "ac", "put back 60"),
        ("429,reset=7200", "ac", "upstream_exhausted"),
    ])
    .await;
    let (ran, simulator) = scripted("model=*:free,429,reset=60", &[A, B, C], &[]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("completed", "ac")
    );
    let (ran, simulator) = scripted("429,reset=60", &[A, B], &[]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("put back 60", "a"),
        "the next free model shares the limit"
    );
    let (ran, simulator) = scripted("429,reset=0.3,times=1", &[A, B], &[]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("completed", "aa")
    );
}

#[tokio::test]
async fn a_busy_provider_is_waited_for_shortly_or_left() {
    check(&[
        ("429_upstream,retry_after=30", "abc", "put back 30"),
        ("429_upstream,retry_after=0.05", "aabbcc", "put back 0"),
        ("429_upstream,retry_after=900", "abc", "upstream_exhausted"),
    ])
    .await;
}

#[tokio::test]
async fn a_wait_that_was_asked_for_is_never_cut_short() {
    let (ran, simulator) = scripted("429_upstream,retry_after=0.3,times=1", &[A], &[]).await;
    assert_eq!(ran.end(), "completed");
    let calls = simulator.calls();
    let waited_us = calls[1].at_us - calls[0].at_us;
    assert!(waited_us >= 290_000, "{waited_us} µs");
}

#[tokio::test]
async fn an_unavailable_provider_is_asked_again_only_if_it_says_so() {
    check(&[
        ("503", "abc", "again"),
        ("503,no_metadata", "abc", "again"),
        ("503_retryable,retry_after=0.05", "aabbcc", "put back 0"),
    ])
    .await;
}

#[tokio::test]
async fn an_empty_answer_is_asked_for_once_more() {
    check(&[("empty", "aabbcc", "again")]).await;
    let (ran, simulator) = scripted("empty,times=1", &[A, B], &[]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("completed", "aa")
    );
    let first = &ran.listener.records[0];
    assert!(
        first.wasted && first.usage.is_some(),
        "the prompt may be billed: {first:?}"
    );
}

#[tokio::test]
async fn a_broken_connection_is_tried_again() {
    check(&[
        ("reset_connection", "aabbcc", "again"),
        ("close", "aabbcc", "again"),
    ])
    .await;
    for script in ["reset_connection,times=1", "close,times=1", "500,times=1"] {
        let (ran, simulator) = scripted(script, &[A, B], &[]).await;
        assert_eq!(
            (ran.end().as_str(), called(&simulator).as_str()),
            ("completed", "aa"),
            "{script}"
        );
        assert_eq!(ran.listener.shown(), ran.answer().text);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again_and_again() {
    let simulator = loadtest::simulator::Simulator::start().await;
    let client = super::rig::client(&simulator.base_url(), &[]);
    simulator.go_dark().await;
    let ran = super::rig::generate(&client, &[A, B], "hello").await;
    assert_eq!(ran.end(), "again");
    assert_eq!(ran.listener.records.len(), 4);
    assert!(
        ran.detail().contains("failed to connect"),
        "{}",
        ran.detail()
    );
    simulator.come_back().await;
    assert_eq!(
        super::rig::generate(&client, &[A], "hello").await.end(),
        "completed"
    );
}

#[tokio::test]
async fn each_retry_says_from_which_model_to_which_and_why() {
    let (ran, _simulator) = scripted(&format!("model={A},404"), &[A, B], &[]).await;
    let calls: Vec<_> = ran
        .listener
        .heard
        .iter()
        .filter(|heard| !matches!(heard, Heard::Text(_) | Heard::Accepted(_)))
        .cloned()
        .collect();
    assert_eq!(
        calls,
        [
            Heard::Calling(A.to_owned()),
            Heard::Ended(Some(ErrorClass::NoEndpoint)),
            Heard::Retrying(A.to_owned(), ErrorClass::NoEndpoint, B.to_owned()),
            Heard::Calling(B.to_owned()),
            Heard::Ended(None),
        ]
    );
    let refused = &ran.listener.records[0];
    assert_eq!(refused.http_status, Some(404));
    assert!(!refused.wasted, "a refused call costs nothing");
}
