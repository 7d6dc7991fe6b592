//! Failures at every place, silences and cuts.

use loadtest::simulator::{Outcome, Simulator, reply_text};
use serde_json::{Value, json};

use crate::client::{ask, client, only_call, post, prefix, read, request};

#[tokio::test]
async fn every_named_failure_comes_in_all_three_places() {
    let simulator = Simulator::start().await;
    for name in loadtest::simulator::behaviour::Failure::names() {
        let response = ask(&simulator, &format!("x [[sim:{name}]]")).await;
        let status = response.status().as_u16();
        assert!(
            name.starts_with(&status.to_string()) || name.parse::<u16>().is_err(),
            "{name}: {status}"
        );
        assert_eq!(
            response.headers().contains_key("x-ratelimit-reset"),
            name == "429",
            "{name}"
        );
        let retry_after = ["in_flight_budget", "429_upstream", "503_retryable"].contains(&name);
        assert_eq!(
            response.headers().contains_key("retry-after"),
            retry_after,
            "{name}"
        );
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], status, "{name}");

        let seen = read(ask(&simulator, &format!("x [[sim:{name},in=chunk,at=7]]")).await).await;
        assert_eq!(seen.text, prefix("x", 7), "{name}");
        assert_eq!(
            (seen.errors[0]["code"].as_u64(), seen.finish.as_deref()),
            (Some(u64::from(status)), Some("error"))
        );
        assert!(String::from_utf8_lossy(&seen.raw).contains(r#","error":{"#));

        let seen = read(ask(&simulator, &format!("x [[sim:{name},in=finish]]")).await).await;
        assert_eq!(
            (
                seen.text.as_str(),
                seen.finish.as_deref(),
                seen.usages.len()
            ),
            ("", Some("error"), 0),
            "{name}"
        );
    }
    let stats = simulator.stats();
    assert_eq!(
        (
            stats.by_outcome[&Outcome::Failed],
            stats.total.cost.is_zero()
        ),
        (stats.calls, true)
    );
}

#[tokio::test]
async fn failures_say_what_the_script_says() {
    let simulator = Simulator::start().await;
    let response = ask(
        &simulator,
        "x [[sim:status=503,retry_after=7,retryable=true,error_type=server,code=busy]]",
    )
    .await;
    assert_eq!(response.headers()["retry-after"], "7");
    let error = &response.json::<Value>().await.unwrap()["error"];
    assert_eq!(
        error["availability"],
        json!({"retryable": true, "retry_after": 7.0})
    );
    assert_eq!(
        (
            &error["metadata"]["error_type"],
            &error["metadata"]["provider_code"]
        ),
        (&json!("server"), &json!("busy"))
    );
    let bare: Value = ask(&simulator, "x [[sim:429,no_metadata]]")
        .await
        .json()
        .await
        .unwrap();
    assert!(bare["error"]["metadata"].is_null() && bare["error"]["availability"].is_null());
}

#[tokio::test]
async fn timed_failures_end() {
    let simulator = Simulator::start().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            ask(
                &simulator,
                "x [[sim:status=503,times=2]] [[sim:429,times=1]]",
            )
            .await
            .status()
            .as_u16(),
        );
    }
    assert_eq!(statuses, [503, 503, 429, 200]);
}

#[tokio::test]
async fn a_hang_ends_when_the_client_leaves() {
    for (marker, tokens) in [
        ("hang", 0),
        ("hang=body", 0),
        ("hang=12", 12),
        ("hang=body,processing=5", 0),
    ] {
        let simulator = Simulator::start().await;
        let url = format!("{}/chat/completions", simulator.base_url());
        let body = request("m", &format!("x [[sim:{marker}]]"));
        let task = tokio::spawn(async move {
            let response = client()
                .post(url)
                .bearer_auth("k1")
                .json(&body)
                .send()
                .await
                .unwrap();
            read(response).await
        });
        let call = simulator
            .wait_for_call(|call| call.tokens_sent == tokens)
            .await;
        assert_eq!(call.outcome, Outcome::InProgress, "{marker}");
        task.abort();
        let call = only_call(&simulator, Outcome::Disconnected).await;
        assert_eq!(call.tokens_sent, tokens, "{marker}");
        assert_eq!(call.cost.as_deref() == Some("0"), tokens == 0, "{marker}");
    }
}

#[tokio::test]
async fn a_held_stream_goes_on_when_released() {
    let simulator = Simulator::start().await;
    let message = "x [[sim:hold=5]] [[sim:hold=9]]";
    let reading = tokio::spawn(read(ask(&simulator, message).await));
    simulator.wait_for_call(|call| call.tokens_sent == 5).await;
    simulator.release();
    simulator.wait_for_call(|call| call.tokens_sent == 9).await;
    assert!(!reading.is_finished());
    simulator.release();
    assert_eq!(reading.await.unwrap().text, reply_text("x", 24));
}

#[tokio::test]
async fn cuts_look_like_cuts() {
    let simulator = Simulator::start().await;
    for marker in ["cut=10", "drop=10"] {
        let seen = read(ask(&simulator, &format!("x [[sim:{marker}]]")).await).await;
        assert_eq!(seen.text, prefix("x", 10), "{marker}");
        assert_eq!(
            (seen.broken, seen.finish, seen.done),
            (true, None, false),
            "{marker}"
        );
    }
    for marker in ["reset_connection", "close"] {
        let error = post(&simulator, &request("m", &format!("x [[sim:{marker}]]")))
            .await
            .unwrap_err();
        assert!(
            !error.is_timeout() && !error.is_connect(),
            "{marker}: {error:?}"
        );
    }
    assert_eq!(simulator.stats().by_outcome[&Outcome::Cut], 4);
    // Half an answer that is not streamed is as broken.
    let mut body = request("m", "x [[sim:cut]]");
    body["stream"] = json!(false);
    assert!(post(&simulator, &body).await.unwrap().text().await.is_err());
}

#[tokio::test]
async fn in_the_dark_nothing_answers() {
    let simulator = Simulator::start().await;
    let response = ask(&simulator, "x [[sim:hang=2]]").await;
    simulator.go_dark().await;
    assert!(read(response).await.broken);
    assert!(
        post(&simulator, &request("m", "x"))
            .await
            .unwrap_err()
            .is_connect()
    );
    simulator.come_back().await;
    assert_eq!(
        read(ask(&simulator, "x").await).await.text,
        reply_text("x", 24)
    );
}
