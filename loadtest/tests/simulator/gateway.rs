//! What the gateway refuses, limits, and tells about itself.

use loadtest::simulator::{Rule, Settings, Simulator};
use serde_json::{Value, json};

use crate::client::{ask, client, get, post, read, request};

#[tokio::test]
async fn refuses_what_the_gateway_refuses() {
    let simulator = Simulator::start().await;
    let url = format!("{}/chat/completions", simulator.base_url());
    let status =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(
        status(client().post(&url).json(&request("m", "x"))).await,
        401
    );
    assert_eq!(
        status(client().post(&url).bearer_auth("k").body("{")).await,
        400
    );
    assert_eq!(
        status(
            client()
                .post(&url)
                .bearer_auth("k")
                .json(&json!({"messages": []}))
        )
        .await,
        400
    );
    assert_eq!(
        status(
            client()
                .post(&url)
                .bearer_auth("k")
                .json(&json!({"model": "m"}))
        )
        .await,
        400
    );
    let long = "word ".repeat(1_100);
    let response = post(&simulator, &request("sim/tiny", &long)).await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        body["error"]["metadata"]["error_type"],
        "context_length_exceeded"
    );
    let mistyped: Value = ask(&simulator, "x [[sim:hnag]]")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        mistyped["error"]["message"],
        "simulator: unknown directive \"hnag\""
    );
    assert_eq!(simulator.calls().len(), 6);
}

#[tokio::test]
async fn free_models_have_limits() {
    let simulator = Simulator::start().await;
    simulator.set_settings(Settings {
        free_per_minute: 2,
        free_per_day: 50,
        ..Settings::default()
    });
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(
            post(&simulator, &request("a/b:free", "x"))
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(ask(&simulator, "paid").await.status(), 200);
    let refused = post(&simulator, &request("a/b:free", "x")).await.unwrap();
    let reset: u64 = refused.headers()["x-ratelimit-reset"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let now = loadtest::clock::unix_micros() / 1_000;
    assert!((now..=now + 60_002).contains(&reset), "{reset} at {now}");
    let key: Value = get(&simulator, "/api/v1/key").await;
    assert_eq!(
        key["data"]["free_model_daily_requests"],
        json!({"used": 2, "limit": 50, "remaining": 48})
    );
    assert_eq!(simulator.stats().free_per_minute_max, 4);
}

#[tokio::test]
async fn tells_about_models_and_credits_under_every_base_path() {
    let simulator = Simulator::start().await;
    read(ask(&simulator, "x [[sim:cost=1.25]]").await).await;
    for base in ["/api/v1", "/v1", ""] {
        let models = get(&simulator, &format!("{base}/models")).await;
        assert!(
            models["data"]
                .as_array()
                .unwrap()
                .iter()
                .any(|model| model["pricing"]["prompt"] == "0.00000015")
        );
        let credits = get(&simulator, &format!("{base}/credits")).await;
        assert_eq!(
            credits["data"],
            json!({"total_credits": 100, "total_usage": 1.25})
        );
    }
    let missing = client()
        .get(format!("{}/generation?id=gen-1-2", simulator.base_url()))
        .bearer_auth("k1")
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn a_dead_key_is_dead_everywhere() {
    let simulator = Simulator::start().await;
    simulator
        .add_rule(Rule {
            key: Some("k1".into()),
            directives: "401".into(),
            ..Rule::default()
        })
        .unwrap();
    assert_eq!(ask(&simulator, "x").await.status(), 401);
    let url = format!("{}/key", simulator.base_url());
    assert_eq!(
        client()
            .get(&url)
            .bearer_auth("k1")
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(
        client()
            .get(&url)
            .bearer_auth("k2")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}
