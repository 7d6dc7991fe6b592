//! Replies that come whole: their text, pace, length, usage and end.

use std::time::{Duration, Instant};

use loadtest::simulator::{Endpoint, Outcome, Simulator, reply_text};
use serde_json::{Value, json};

use crate::client::{ask, client, only_call, post, read, request};

#[tokio::test]
async fn streams_the_whole_reply_and_books_it() {
    let simulator = Simulator::start().await;
    let message = "How do I become a data engineer?";
    let response = ask(&simulator, message).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let id = response.headers()["x-generation-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let seen = read(response).await;
    assert_eq!(seen.text, reply_text(message, 24));
    assert_eq!(simulator.expected_reply(message), seen.text);
    assert_eq!(
        (seen.finish.as_deref(), seen.done, seen.broken),
        (Some("stop"), true, false)
    );
    assert_eq!(seen.usages.len(), 1);
    assert_eq!(seen.usages[0]["completion_tokens"], 24);

    let call = only_call(&simulator, Outcome::Completed).await;
    assert_eq!(
        (call.id.as_str(), call.tokens_sent, call.status),
        (id.as_str(), 24, 200)
    );
    assert_eq!(
        (
            call.session_id.as_deref(),
            call.user.as_deref(),
            call.key.as_str()
        ),
        (Some("s1"), Some("u1"), "k1")
    );
    assert_eq!(
        (call.endpoint, call.last_user_message.as_str()),
        (Endpoint::Chat, message)
    );
    assert!(call.first_token_us >= Some(call.at_us) && call.ended_us >= call.first_token_us);
    // Prompt: 2 words + 7 words + 2 × 4 + 3 = 20 tokens at 0.00000015, and 24 at 0.0000006.
    assert_eq!(
        (call.prompt_tokens, call.cost.as_deref()),
        (20, Some("0.0000174"))
    );
    assert_eq!(seen.usages[0]["cost"].as_f64(), Some(0.000_017_4));
    assert!(String::from_utf8_lossy(&seen.raw).contains(r#""cost":0.0000174,"#));

    let generation: Value = client()
        .get(format!("{}/generation?id={id}", simulator.base_url()))
        .bearer_auth("k1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(generation["data"]["total_cost"].as_f64(), Some(0.000_017_4));
    assert_eq!(generation["data"]["tokens_completion"], 24);
    assert_eq!(simulator.stats().total.cost.to_string(), "0.0000174");
}

#[tokio::test]
async fn answers_without_a_stream() {
    let simulator = Simulator::start().await;
    let mut body = request("openai/gpt-4o-mini", "Hello");
    body["stream"] = json!(false);
    let answer: Value = post(&simulator, &body).await.unwrap().json().await.unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        reply_text("Hello", 24)
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 24);
    only_call(&simulator, Outcome::Completed).await;
}

#[tokio::test]
async fn paces_tokens_but_keeps_the_text() {
    let simulator = Simulator::start().await;
    let message = "Go [[sim:ttft=30,rate=400,tokens=40,processing=5]]";
    let started = Instant::now();
    let seen = read(ask(&simulator, message).await).await;
    assert_eq!(seen.text, reply_text(message, 40));
    assert!(seen.comments >= 1, "no comment in 30 ms of silence");
    // The last token is due 39/400 s after the first: sooner would be too fast, later is load.
    assert!(
        started.elapsed() >= Duration::from_micros(30_000 + 97_500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn endings_that_are_not_endings() {
    let simulator = Simulator::start().await;
    let seen = read(ask(&simulator, "x [[sim:no_finish]]").await).await;
    assert_eq!(
        (seen.text, seen.finish, seen.broken),
        (reply_text("x", 24), None, false)
    );
    only_call(&simulator, Outcome::Cut).await;

    let seen = read(ask(&simulator, "x [[sim:no_done]]").await).await;
    assert_eq!((seen.finish.as_deref(), seen.done), (Some("stop"), false));
    let seen = read(ask(&simulator, "x [[sim:empty]]").await).await;
    assert_eq!(
        (seen.text.as_str(), seen.finish.as_deref()),
        ("", Some("stop"))
    );
    assert_eq!(seen.usages[0]["completion_tokens"], 0);
    for reason in ["length", "content_filter", "tool_calls", ""] {
        let seen = read(ask(&simulator, &format!("x [[sim:finish={reason}]]")).await).await;
        assert_eq!(seen.finish.as_deref(), Some(reason));
    }
}

#[tokio::test]
async fn max_tokens_cuts_the_reply() {
    let simulator = Simulator::start().await;
    let mut body = request("m", "x [[sim:tokens=300]]");
    body["max_tokens"] = json!(40);
    let seen = read(post(&simulator, &body).await.unwrap()).await;
    assert_eq!(
        (
            seen.finish.as_deref(),
            seen.usages[0]["completion_tokens"].as_u64()
        ),
        (Some("length"), Some(40))
    );
    assert!(reply_text("x", 300).starts_with(&seen.text));
}

#[tokio::test]
async fn usage_in_all_its_forms() {
    let simulator = Simulator::start().await;
    let seen = read(ask(&simulator, "x [[sim:duplicate_usage]]").await).await;
    assert_eq!(
        (seen.usages.len(), seen.usages[0] == seen.usages[1]),
        (2, true)
    );
    assert!(
        read(ask(&simulator, "x [[sim:no_usage]]").await)
            .await
            .usages
            .is_empty()
    );
    let seen = read(ask(&simulator, "x [[sim:no_cost]]").await).await;
    assert!(seen.usages[0]["cost"].is_null() && seen.usages[0]["total_tokens"].is_u64());
    let seen = read(ask(&simulator, "x [[sim:usage_with_finish]]").await).await;
    assert_eq!(seen.usages.len(), 1);
    let seen = read(ask(&simulator, "x [[sim:cached=5,reasoning=11,cost=0.5]]").await).await;
    let usage = &seen.usages[0];
    assert_eq!(
        (usage["completion_tokens"].as_u64(), usage["cost"].as_f64()),
        (Some(35), Some(0.5))
    );
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 5);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 11);
    let free = read(post(&simulator, &request("a/b:free", "x")).await.unwrap()).await;
    assert_eq!(free.usages[0]["cost"], 0);
}

#[tokio::test]
async fn titles_are_short() {
    let simulator = Simulator::start().await;
    let mut body = request("m", "How do I become a data engineer? [[sim:500]]");
    body["max_tokens"] = json!(32);
    let seen = read(post(&simulator, &body).await.unwrap()).await;
    assert_eq!(seen.text, "How do I become a");
    assert_eq!(simulator.calls()[0].endpoint, Endpoint::Title);
}

#[tokio::test]
async fn a_dropped_simulator_is_gone() {
    let simulator = Simulator::start().await;
    let url = format!("{}/models", simulator.base_url());
    assert_eq!(client().get(&url).send().await.unwrap().status(), 200);
    drop(simulator);
    // The listener closes when its task next runs; a connection that is refused says it has.
    let refused = async { while client().get(&url).send().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once() {
    let simulator = Simulator::start().await;
    let client = client();
    let mut reading = tokio::task::JoinSet::new();
    for index in 0..1_000 {
        let body = request("m", &format!("Question {index} [[sim:hold=8]]"));
        let send = client
            .post(format!("{}/chat/completions", simulator.base_url()))
            .bearer_auth("k1")
            .json(&body);
        reading.spawn(async move { (index, read(send.send().await.unwrap()).await) });
    }
    simulator
        .wait_for_stats(|stats| stats.in_flight == 1_000)
        .await;
    simulator.release();
    while let Some(read) = reading.join_next().await {
        let (index, seen) = read.unwrap();
        assert_eq!(seen.text, reply_text(&format!("Question {index}"), 24));
    }
    assert_eq!(
        (
            simulator.stats().in_flight_max,
            simulator.stats().by_outcome[&Outcome::Completed]
        ),
        (1_000, 1_000)
    );
}
