//! What the upstream lists decides which models a prompt goes to.

use loadtest::simulator::Simulator;
use worker::upstream::watch_models;

use super::rig::{A, B, called, client, generate, soon};

const TINY: &str = "sim/tiny:free";
const BIG: &str = "qwen/qwen3-235b-a22b-07-25:free";

/// Generates until the listing has been learnt, which shows in what is called.
#[tokio::test]
async fn a_long_prompt_skips_a_model_whose_listed_window_is_too_small() {
    let simulator = Simulator::start().await;
    let client = client(
        &simulator.base_url(),
        &[("DEFAULT_MODEL", TINY), ("FALLBACK_MODEL", BIG)],
    );
    // 1,000 tokens of reply and this are more than the 1,024 of the window.
    let long = "word ".repeat(200);
    let chain = [TINY, BIG];
    let ran = generate(&client, &chain, &long).await;
    assert_eq!(ran.end(), "completed");
    assert_eq!(
        called(&simulator).chars().next(),
        Some('t'),
        "nothing known"
    );
    let skipped = async {
        loop {
            let ran = generate(&client, &chain, &long).await;
            if ran.answer().model.name == BIG && ran.listener.records.len() == 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let models = async { watch_models(&client).await };
    tokio::select! {
        () = soon(skipped) => {}
        () = models => unreachable!("it watches for ever"),
    }
    let ran = generate(&client, &[TINY], "short").await;
    assert_eq!(ran.end(), "context_too_long", "the largest window is tried");
    assert!(!ran.listener.records.is_empty());
}

#[tokio::test]
async fn a_model_may_have_a_patience_of_its_own() {
    let simulator = Simulator::start().await;
    simulator.script(&format!("model={A},hang=body"));
    let catalogue = format!(r#"[{{"name": "{A}", "first_token_timeout": 0.2}}]"#);
    let client = client(&simulator.base_url(), &[("MODEL_CATALOGUE", &catalogue)]);
    let ran = soon(generate(&client, &[A, B], "hello")).await;
    assert_eq!(ran.end(), "completed");
    assert_eq!(called(&simulator), "ab");
}
