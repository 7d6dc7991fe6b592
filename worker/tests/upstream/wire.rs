//! What goes over the wire, in both directions.

use futures::future::join_all;
use loadtest::simulator::{Outcome as Ended, Simulator, reply_of_bytes};
use rust_decimal::Decimal;
use worker::upstream::{ErrorClass, MAX_REPLY_BYTES};

use super::rig::{A, C, Heard, called, client, generate, scripted, soon};

#[tokio::test]
async fn a_reply_arrives_byte_for_byte_however_it_is_cut() {
    let scripts = [
        "",
        "crlf",
        "split=7",
        "split=31,crlf",
        "chunk=7",
        "usage_with_finish",
        "no_done",
        "duplicate_usage",
    ];
    let checks = scripts.map(|script| async move {
        let (ran, simulator) = scripted(script, &[A], &[]).await;
        let answer = ran.answer();
        assert_eq!(
            answer.text,
            simulator.expected_reply("How are you?"),
            "{script}"
        );
        assert_eq!(ran.listener.shown(), answer.text, "{script}");
        assert!(!answer.incomplete, "{script}");
        let call = &simulator.calls()[0];
        let usage = answer.usage.as_ref().unwrap();
        assert_eq!(usage.completion_tokens, call.completion_tokens, "{script}");
        assert_eq!(usage.prompt_tokens, call.prompt_tokens, "{script}");
        assert_eq!(
            usage.total_tokens,
            call.prompt_tokens + call.completion_tokens,
            "{script}"
        );
        assert_eq!(
            answer.upstream_id.as_deref(),
            Some(call.id.as_str()),
            "{script}"
        );
        assert_eq!(answer.finish_reason, "stop", "{script}");
        assert_eq!(call.outcome, Ended::Completed, "{script}");
    });
    join_all(checks).await;
}

#[tokio::test]
async fn the_request_says_who_asks_and_for_what() {
    let (_, simulator) = scripted("", &[A], &[]).await;
    let call = &simulator.calls()[0];
    assert_eq!(call.model, A);
    assert!(call.stream);
    assert_eq!(call.max_tokens, Some(1_000));
    assert_eq!(call.user.as_deref(), Some("user-hash"));
    assert_eq!(
        call.session_id.as_deref(),
        Some("00000000-0000-0000-0000-000000000007")
    );
    assert_eq!(call.request_id.as_deref(), Some("request-1"));
    assert_eq!(
        call.traceparent.as_deref(),
        Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    );
    assert_eq!(
        (call.messages, call.last_user_message.as_str()),
        (6, "How are you?")
    );
}

#[tokio::test]
async fn the_upstreams_id_is_known_before_the_first_text() {
    for script in ["", "no_id_header"] {
        let (ran, simulator) = scripted(script, &[A], &[]).await;
        let id = simulator.calls()[0].id.clone();
        assert_eq!(
            ran.listener.heard[0],
            Heard::Calling(A.to_owned()),
            "{script}"
        );
        assert_eq!(
            ran.listener.heard[1],
            Heard::Accepted(id.clone()),
            "{script}"
        );
        assert_eq!(ran.listener.count(&Heard::Accepted(id)), 1, "{script}");
    }
}

#[tokio::test]
async fn money_is_the_upstreams_to_the_last_digit() {
    for script in [
        "",
        "cost=0.000000123456789012",
        "cost=1.50",
        "tokens=777",
        "cached=5",
        "reasoning=9",
    ] {
        let (ran, simulator) = scripted(script, &[C], &[]).await;
        let charged: Decimal = simulator.calls()[0].cost.clone().unwrap().parse().unwrap();
        let usage = ran.answer().usage.clone().unwrap();
        assert_eq!(usage.cost, Some(charged), "{script}");
        assert!(!charged.is_zero(), "{script}");
        assert!(usage.raw.unwrap().get().contains("\"cost\""), "{script}");
    }
}

#[tokio::test]
async fn an_unknown_cost_is_not_zero_and_a_free_one_is() {
    let cost = async |script: &str, model: &str| {
        let (ran, _simulator) = scripted(script, &[model], &[]).await;
        ran.answer().usage.as_ref().map(|usage| usage.cost)
    };
    assert_eq!(cost("", A).await, Some(Some(Decimal::ZERO)));
    assert_eq!(cost("no_cost", A).await, Some(None));
    assert_eq!(cost("no_cost", C).await, Some(None));
    assert_eq!(
        cost("cost=0", C).await,
        Some(None),
        "a paid model is not free"
    );
    assert_eq!(cost("no_usage", C).await, None);
}

#[tokio::test]
async fn details_of_the_usage_are_read() {
    let (ran, _simulator) = scripted("cached=5,reasoning=9,tokens=30", &[C], &[]).await;
    let usage = ran.answer().usage.clone().unwrap();
    assert_eq!(
        (
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.completion_tokens
        ),
        (5, 9, 39)
    );
}

#[tokio::test]
async fn a_reply_cut_at_its_limit_is_incomplete() {
    let (ran, _simulator) = scripted("finish=length", &[A], &[]).await;
    assert_eq!(ran.end(), "incomplete");
    assert_eq!(ran.answer().finish_reason, "length");
    assert!(!ran.answer().text.is_empty());
}

#[tokio::test]
async fn a_stream_without_an_end_is_no_reply() {
    for (script, class) in [
        ("no_finish", ErrorClass::Connection),
        ("no_finish,no_done", ErrorClass::Connection),
        ("cut=5", ErrorClass::Connection),
        ("drop=5", ErrorClass::Connection),
        ("malformed=5", ErrorClass::Malformed),
        ("malformed=0", ErrorClass::Malformed),
    ] {
        let (ran, simulator) = scripted(script, &[A], &[]).await;
        assert_eq!(called(&simulator), "aa", "{script}");
        assert_eq!(ran.end(), "again", "{script}");
        assert_eq!(ran.listener.records[0].error, Some(class), "{script}");
    }
}

#[tokio::test]
async fn ten_megabytes_are_cut_and_the_connection_is_closed() {
    let (ran, simulator) = scripted("bytes=10000000,chunk=200", &[A], &[]).await;
    let answer = ran.answer();
    assert!(answer.incomplete);
    assert!((MAX_REPLY_BYTES - 3..=MAX_REPLY_BYTES).contains(&answer.text.len()));
    assert!(reply_of_bytes("How are you?", 10_000_000).starts_with(&answer.text));
    soon(simulator.wait_for_call(|call| call.outcome == Ended::Disconnected)).await;
}

#[tokio::test]
async fn many_replies_at_once_do_not_mix() {
    let simulator = Simulator::start().await;
    simulator.script("ttft=20,rate=2000,split=50");
    let client = client(&simulator.base_url(), &[]);
    let all = (0..200).map(|number| {
        let client = &client;
        async move {
            let question = format!("question number {number}");
            let ran = generate(client, &[A], &question).await;
            (question, ran.answer().text.clone())
        }
    });
    for (question, text) in join_all(all).await {
        assert_eq!(text, simulator.expected_reply(&question));
    }
    assert_eq!(simulator.calls().len(), 200);
}
