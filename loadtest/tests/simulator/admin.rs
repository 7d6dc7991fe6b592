//! Scripts from outside.

use loadtest::simulator::{CallRecord, Simulator, reply_text};
use serde_json::json;

use crate::client::{ask, client, get, read};

#[tokio::test]
async fn the_admin_endpoints_do_what_the_library_does() {
    let simulator = Simulator::start().await;
    let admin = |path: &str| format!("{}/sim{path}", simulator.origin());
    let rule = json!({"model": "openai/*", "do": "429,times=1", "contains": "blue"});
    let created = client()
        .post(admin("/script"))
        .json(&rule)
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), 201);
    let bad = client()
        .post(admin("/script"))
        .json(&json!({"do": "hnag"}))
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), 400);
    assert_eq!(ask(&simulator, "a blue one").await.status(), 429);
    assert_eq!(ask(&simulator, "a blue one").await.status(), 200);
    let rules = get(&simulator, "/sim/script").await;
    assert_eq!(
        (&rules["rules"][0]["used"], &rules["rules"][0]["rule"]["do"]),
        (&json!(1), &json!("429,times=1"))
    );
    let literal = json!({"reply": "One, two, three.", "do": "", "contains": "red"});
    client()
        .post(admin("/script"))
        .json(&literal)
        .send()
        .await
        .unwrap();
    assert_eq!(
        read(ask(&simulator, "red").await).await.text,
        "One, two, three."
    );
    assert_eq!(
        client()
            .delete(admin("/script"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(
        read(ask(&simulator, "red").await).await.text,
        reply_text("red", 24)
    );

    let calls = get(&simulator, "/sim/calls?contains=blue").await;
    assert_eq!(
        (
            calls["total"].as_u64(),
            calls["calls"][0]["status"].as_u64()
        ),
        (Some(2), Some(429))
    );
    let typed: CallRecord = serde_json::from_value(calls["calls"][0].clone()).unwrap();
    assert_eq!(typed, simulator.calls()[0]);
    assert_eq!(
        get(&simulator, "/sim/calls?outcome=completed").await["total"],
        3
    );
    assert_eq!(
        get(&simulator, "/sim/stats").await["by_status"],
        json!({"200": 3, "429": 1})
    );

    let patched = client()
        .patch(admin("/settings"))
        .json(&json!({"tokens_min": 3, "tokens_max": 3}))
        .send()
        .await;
    assert_eq!(patched.unwrap().status(), 200);
    assert_eq!(
        read(ask(&simulator, "red").await).await.text,
        reply_text("red", 3)
    );
    let wrong = client()
        .patch(admin("/settings"))
        .json(&json!({"tokens": 3}))
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 400);

    assert_eq!(
        client()
            .delete(admin("/calls"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(simulator.calls(), []);
}
