//! What a provider of vectors may answer, and what becomes of it.

use std::time::Duration;

use loadtest::simulator::Simulator;
use shared::clock::Clock;
use shared::config::Vars;
use worker::upstream::{
    Embedded, EmbeddingCall, EmbeddingConfig, EmbeddingError, Embeddings, ErrorClass, Fault,
    Unlimited,
};

struct Provider {
    simulator: Simulator,
    client: Embeddings,
}

impl Provider {
    async fn new(retries: &str) -> Self {
        let simulator = Simulator::start().await;
        let mut vars = Vars::from_map([
            ("NEBIUS_BASE_URL", simulator.base_url()),
            ("NEBIUS_API_KEY", "one,two".to_owned()),
            ("MAX_RETRIES", retries.to_owned()),
        ]);
        let config = EmbeddingConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        let client = Embeddings::new(config, Clock::system()).unwrap();
        Self { simulator, client }
    }

    async fn embed(&self, texts: &[&str]) -> Result<Embedded, EmbeddingError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let call = EmbeddingCall {
            model: "Qwen/Qwen3-Embedding-8B",
            dimension: 32,
            texts: &texts,
            time_left: Duration::from_secs(30),
        };
        self.client.embed(&call, &Unlimited, drop).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_come_back_in_the_order_of_their_texts() {
    let provider = Provider::new("0").await;
    let straight = provider.embed(&["satu", "dua", "tiga"]).await.unwrap();
    let shuffled = provider
        .embed(&["satu [[sim:reverse]]", "dua", "tiga"])
        .await
        .unwrap();
    assert_eq!(straight.vectors, shuffled.vectors);
    assert!(straight.vectors.iter().all(|vector| vector.len() == 32));
    assert_ne!(straight.vectors[0], straight.vectors[1]);
    let usage = straight.record.usage.unwrap();
    assert!(usage.total_tokens > 0 && usage.cost.is_some(), "{usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_list_of_vectors_is_an_error_and_names_whose_fault_it_is() {
    let provider = Provider::new("0").await;
    for (text, class, fault) in [
        ("x [[sim:short=1]]", ErrorClass::Malformed, Fault::Passing),
        (
            "x [[sim:dimension=31]]",
            ErrorClass::UnknownModel,
            Fault::Setting,
        ),
        ("x [[sim:400]]", ErrorClass::InvalidRequest, Fault::Text),
        ("x [[sim:500]]", ErrorClass::ServerError, Fault::Passing),
    ] {
        let error = provider.embed(&[text, "y"]).await.unwrap_err();
        assert_eq!(
            (error.class, error.fault),
            (class, fault),
            "{text}: {error}"
        );
        assert!(!error.detail.contains("x ["), "no content: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again_and_a_refused_key_is_replaced() {
    let provider = Provider::new("3").await;
    provider.simulator.script("503,times=2");
    provider.embed(&["satu"]).await.unwrap();
    assert_eq!(provider.simulator.calls().len(), 3);
    provider.simulator.clear_script();
    provider.simulator.clear_calls();
    provider.simulator.script("key=one,401");
    provider.embed(&["dua"]).await.unwrap();
    assert_eq!(provider.simulator.calls().len(), 2);
}
