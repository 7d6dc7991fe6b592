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

/// A server that answers every request with this body.
fn canned(body: &'static str) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // The body is short and comes with the end of the object.
            while !request.ends_with(b"}") {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                if read == 0 {
                    break;
                }
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_looks_like_success_is_looked_at_closely() {
    for (body, class, says) in [
        (
            r#"{"error":{"code":429,"message":"slow down"}}"#,
            ErrorClass::Capacity,
            "slow down",
        ),
        (
            r#"{"data":[{"index":0,"embedding":[NaN,1]},{"index":1,"embedding":[1,0]}]}"#,
            ErrorClass::Malformed,
            "no list of vectors",
        ),
        (
            r#"{"data":[{"index":0,"embedding":[1e39,1]},{"index":1,"embedding":[1,0]}]}"#,
            ErrorClass::Malformed,
            "no direction",
        ),
        (
            r#"{"data":[{"index":0,"embedding":[0,0]},{"index":1,"embedding":[1,0]}]}"#,
            ErrorClass::Malformed,
            "no direction",
        ),
        (
            r#"{"data":[{"index":0,"embedding":[1,0]}]}"#,
            ErrorClass::Malformed,
            "1 vectors came for 2 texts",
        ),
        (
            r#"{"data":[{"index":0,"embedding":[1,0]},{"index":0,"embedding":[0,1]}]}"#,
            ErrorClass::Malformed,
            "comes twice",
        ),
        (
            r#"{"data":[{"index":0,"embedding":[1,0]},{"index":2,"embedding":[0,1]}]}"#,
            ErrorClass::Malformed,
            "index 2 is wrong",
        ),
        (
            r#"{"data":[{"index":0,"embedding":[1,0,0]},{"index":1,"embedding":[0,1,0]}]}"#,
            ErrorClass::UnknownModel,
            "embedding_dimension_mismatch",
        ),
        ("not json", ErrorClass::Malformed, "no list of vectors"),
        ("{}", ErrorClass::Malformed, "0 vectors came"),
    ] {
        let mut vars = Vars::from_map([
            ("NEBIUS_BASE_URL", canned(body)),
            ("MAX_RETRIES", "0".to_owned()),
        ]);
        let config = EmbeddingConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        let client = Embeddings::new(config, Clock::system()).unwrap();
        let texts = ["satu".to_owned(), "dua".to_owned()];
        let call = EmbeddingCall {
            model: "any",
            dimension: 2,
            texts: &texts,
            time_left: Duration::from_secs(20),
        };
        let error = client.embed(&call, &Unlimited, drop).await.unwrap_err();
        assert_eq!(error.class, class, "{body}: {error}");
        assert!(error.detail.contains(says), "{body}: {error}");
    }
}
