//! Several keys: refused ones rest, the others carry on.

use loadtest::simulator::Simulator;

use worker::upstream::watch_keys;

use super::rig::{A, B, C, client, generate, soon};

fn keys_used(simulator: &Simulator) -> Vec<String> {
    simulator.calls().into_iter().map(|call| call.key).collect()
}

const KEYS: [(&str, &str); 2] = [
    ("OPENROUTER_API_KEY", "sk-dead"),
    ("OPENROUTER_API_KEYS", "sk-live,sk-spare"),
];

#[tokio::test]
async fn a_refused_key_rests_and_the_next_one_is_used_at_once() {
    let simulator = Simulator::start().await;
    simulator.script("key=sk-dead,401");
    let client = client(&simulator.base_url(), &KEYS);
    let ran = generate(&client, &[A], "one").await;
    assert_eq!(ran.end(), "completed");
    assert_eq!(generate(&client, &[A], "two").await.end(), "completed");
    assert_eq!(keys_used(&simulator), ["sk-dead", "sk-live", "sk-live"]);
    let labels: Vec<_> = ran
        .listener
        .records
        .iter()
        .map(|record| record.key_label.as_str())
        .collect();
    assert_eq!(labels.len(), 2);
    assert_ne!(labels[0], labels[1]);
    assert!(labels.iter().all(|label| !label.contains("sk")));
}

#[tokio::test]
async fn a_key_without_credit_still_serves_free_models() {
    let simulator = Simulator::start().await;
    simulator.script(&format!("key=sk-dead,model={C},402"));
    let client = client(&simulator.base_url(), &KEYS);
    assert_eq!(generate(&client, &[C], "paid").await.end(), "completed");
    assert_eq!(generate(&client, &[A], "free").await.end(), "completed");
    assert_eq!(keys_used(&simulator), ["sk-dead", "sk-live", "sk-dead"]);
}

#[tokio::test]
async fn when_every_key_is_refused_no_more_calls_are_made() {
    let simulator = Simulator::start().await;
    simulator.script("401");
    let client = client(&simulator.base_url(), &KEYS);
    assert_eq!(
        generate(&client, &[A, C], "one").await.end(),
        "upstream_unauthorised"
    );
    let ran = generate(&client, &[A, C], "two").await;
    assert_eq!(ran.end(), "upstream_unauthorised");
    assert!(ran.listener.records.is_empty());
    assert_eq!(keys_used(&simulator), ["sk-dead", "sk-live", "sk-spare"]);
}

#[tokio::test]
async fn when_a_provider_refuses_every_key_the_model_of_another_one_answers() {
    for refusal in ["401", "402"] {
        let (refusing, other) = (Simulator::start().await, Simulator::start().await);
        refusing.script(refusal);
        let providers = serde_json::json!([{
            "name": "other", "base_url": other.base_url(), "models": [C], "api_keys": ["sk-other"],
        }]);
        let providers = ("UPSTREAM_PROVIDERS", providers.to_string());
        let mut settings = KEYS.to_vec();
        settings.push((providers.0, &providers.1));
        let client = client(&refusing.base_url(), &settings);
        assert_eq!(
            generate(&client, &[A, B, C], "one").await.end(),
            "completed",
            "{refusal}"
        );
        assert_eq!(generate(&client, &[A, C], "two").await.end(), "completed");
        assert_eq!(keys_used(&refusing), ["sk-dead", "sk-live", "sk-spare"]);
        assert_eq!(keys_used(&other), ["sk-other", "sk-other"]);
        // And the other way about: what the provider of a single model refuses, the upstream may do.
        other.script(refusal);
        let upstream = Simulator::start().await;
        let client = self::client(&upstream.base_url(), &settings);
        assert_eq!(
            generate(&client, &[C, A], "three").await.end(),
            "completed",
            "{refusal}"
        );
        assert_eq!(keys_used(&upstream), ["sk-dead"]);
    }
}

#[tokio::test]
async fn keys_of_a_file_are_rotated_without_a_restart() {
    let simulator = Simulator::start().await;
    simulator.script("key=sk-dead,401");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "# the first\nsk-old\n").unwrap();
    let file = ("OPENROUTER_API_KEYS_FILE", path.to_str().unwrap());
    let client = client(
        &simulator.base_url(),
        &[("OPENROUTER_API_KEY", "sk-dead"), file],
    );
    generate(&client, &[A], "before").await;
    assert_eq!(keys_used(&simulator), ["sk-dead", "sk-old"]);
    std::fs::write(&path, "sk-new, sk-spare").unwrap();
    let rotated = async {
        while keys_used(&simulator)
            .last()
            .is_none_or(|key| key != "sk-new")
        {
            generate(&client, &[A], "again").await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = soon(rotated) => {}
        () = watch_keys(&client) => unreachable!("it watches for ever"),
    }
    let refused = keys_used(&simulator);
    let refused = refused.iter().filter(|key| *key == "sk-dead");
    assert_eq!(refused.count(), 1, "what rests still does");
}
