//! Embeddings.

use loadtest::simulator::{Endpoint, Simulator};
use serde_json::{Value, json};

use crate::client::client;

#[tokio::test]
async fn embeddings_in_all_their_forms() {
    let simulator = Simulator::start().await;
    let embed = async |body: Value| {
        let url = format!("{}/embeddings", simulator.base_url());
        client()
            .post(url)
            .bearer_auth("k1")
            .json(&body)
            .send()
            .await
            .unwrap()
    };
    let vectors = |answer: &Value| -> Vec<(u64, usize)> {
        let data = answer["data"].as_array().unwrap();
        data.iter()
            .map(|item| {
                (
                    item["index"].as_u64().unwrap(),
                    item["embedding"].as_array().unwrap().len(),
                )
            })
            .collect()
    };
    let body = json!({"model": "Qwen/Qwen3-Embedding-8B", "input": ["gagal login", "gagal login", "cuti"], "dimensions": 256});
    let answer: Value = embed(body).await.json().await.unwrap();
    assert_eq!(vectors(&answer), [(0, 256), (1, 256), (2, 256)]);
    assert_eq!(
        answer["data"][0]["embedding"],
        answer["data"][1]["embedding"]
    );
    assert_ne!(
        answer["data"][0]["embedding"],
        answer["data"][2]["embedding"]
    );
    assert_eq!(
        (
            answer["usage"]["total_tokens"].as_u64(),
            answer["usage"]["cost"].as_f64()
        ),
        (Some(5), Some(5e-8))
    );

    let native: Value = embed(json!({"model": "Qwen/Qwen3-Embedding-8B", "input": "x"}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(vectors(&native), [(0, 4096)]);
    let scripted =
        json!({"model": "m", "input": ["a [[sim:reverse,short=1,dimension=5]]", "b", "c"]});
    let answer: Value = embed(scripted).await.json().await.unwrap();
    assert_eq!(vectors(&answer), [(1, 5), (0, 5)]);
    let encoded = json!({"model": "m", "input": "x", "dimensions": 8, "encoding_format": "base64"});
    let answer: Value = embed(encoded).await.json().await.unwrap();
    assert_eq!(answer["data"][0]["embedding"].as_str().unwrap().len(), 44);
    assert_eq!(
        embed(json!({"model": "m", "input": "x [[sim:429]]"}))
            .await
            .status(),
        429
    );
    assert_eq!(
        embed(json!({"model": "m", "input": [1, 2]})).await.status(),
        400
    );
    assert_eq!(
        simulator.calls().last().unwrap().endpoint,
        Endpoint::Embeddings
    );
}
