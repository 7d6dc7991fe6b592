//! Every clock of a call. The limits are small; what is asserted is which clock ran out, never how
//! long it took.

use super::rig::{A, B, Heard, called, scripted};

const FIRST: (&str, &str) = ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "0.3");
const IDLE: (&str, &str) = ("UPSTREAM_IDLE_TIMEOUT", "0.3");
const TOTAL: (&str, &str) = ("UPSTREAM_TOTAL_TIMEOUT", "1");

#[tokio::test]
async fn silence_before_the_first_token_moves_on_to_the_next_model() {
    for script in [
        "hang",
        "hang=body",
        "hang=body,processing=50",
        "ttfb=60000",
        "ttft=60000",
    ] {
        let (ran, simulator) = scripted(script, &[A, B], &[FIRST]).await;
        assert_eq!(called(&simulator), "ab", "{script}");
        assert_eq!(ran.end(), "again", "{script}");
        assert!(
            ran.detail().ends_with("no token came in time"),
            "{script}: {}",
            ran.detail()
        );
    }
}

#[tokio::test]
async fn silence_in_the_middle_moves_on_to_the_next_model() {
    let (ran, simulator) = scripted("hang=3", &[A, B], &[IDLE]).await;
    assert_eq!(called(&simulator), "ab");
    assert!(
        ran.detail().ends_with("the stream went silent"),
        "{}",
        ran.detail()
    );
    assert!(ran.listener.records.iter().all(|record| record.wasted));
}

#[tokio::test]
async fn comments_are_signs_of_life_but_the_call_still_ends() {
    let (ran, _simulator) = scripted("hang=3,processing=50", &[A], &[IDLE, TOTAL]).await;
    assert!(
        ran.detail().ends_with("the call took too long"),
        "{}",
        ran.detail()
    );
}

#[tokio::test]
async fn a_slow_drip_ends_with_the_call() {
    let (ran, simulator) = scripted("drip=50,tokens=5000", &[A, B], &[IDLE, TOTAL]).await;
    assert_eq!(called(&simulator), "ab");
    assert!(
        ran.detail().ends_with("the call took too long"),
        "{}",
        ran.detail()
    );
}

#[tokio::test]
async fn another_model_answers_when_the_first_is_silent() {
    let (ran, simulator) = scripted(&format!("model={A},hang=2"), &[A, B], &[IDLE]).await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("completed", "ab")
    );
    assert_eq!(ran.listener.shown(), ran.answer().text);
    assert_eq!(ran.answer().model.name, B);
}

#[tokio::test]
async fn a_person_is_told_once_per_silence_that_it_takes_a_while() {
    let quiet_early = [("INTERIM_AFTER", "0.1")];
    let (ran, _simulator) = scripted("ttft=600,processing=20", &[A], &quiet_early).await;
    assert_eq!(ran.end(), "completed");
    assert_eq!(ran.listener.count(&Heard::Quiet), 1);
    let quiet = ran
        .listener
        .heard
        .iter()
        .position(|heard| *heard == Heard::Quiet);
    let text = ran
        .listener
        .heard
        .iter()
        .position(|heard| matches!(heard, Heard::Text(_)));
    assert!(quiet < text);

    let (ran, _simulator) = scripted("", &[A], &[]).await;
    assert_eq!(ran.listener.count(&Heard::Quiet), 0);
}
