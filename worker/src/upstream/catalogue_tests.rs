//! What is known of models, and who is skipped for it.

use serde_json::json;
use shared::config::Vars;

use super::*;

fn config(pairs: &[(&str, &str)]) -> ModelsConfig {
    let mut vars = Vars::from_map(pairs.iter().copied());
    let config = ModelsConfig::from_vars(&mut vars);
    vars.finish().unwrap();
    config
}

fn listed(listing: serde_json::Value) -> Catalogue {
    let catalogue = Catalogue::default();
    learn(&catalogue, &config(&[]), listing);
    catalogue
}

fn learn(catalogue: &Catalogue, config: &ModelsConfig, listing: serde_json::Value) {
    catalogue.learn(config, serde_json::from_value(listing).unwrap());
}

fn chain() -> Vec<Model> {
    ["small:free", "large:free", "unknown:free"]
        .map(|name| Model::new(name, true))
        .to_vec()
}

fn windows() -> Catalogue {
    listed(json!({"data": [
        {"id": "small:free", "context_length": 8_192, "pricing": {"prompt": "0"}},
        {"id": "large:free", "max_model_len": 131_072},
        {"id": "unknown:free", "context_length": null},
    ]}))
}

fn fitting(catalogue: &Catalogue, config: &ModelsConfig, chain: &[Model], tokens: u32) -> String {
    let fitting = catalogue.fitting(config, chain, tokens, |_| tokens);
    let names: Vec<&str> = fitting.iter().map(|model| model.name.as_str()).collect();
    names.join(" ")
}

#[test]
fn a_long_prompt_skips_what_is_too_small_for_it() {
    let (catalogue, config, chain) = (windows(), config(&[]), chain());
    for (tokens, expected) in [
        (8_192, "small:free large:free unknown:free"),
        (8_193, "large:free unknown:free"),
        (131_073, "unknown:free"),
    ] {
        assert_eq!(
            fitting(&catalogue, &config, &chain, tokens),
            expected,
            "{tokens}"
        );
    }
    assert!(matches!(
        catalogue.fitting(&config, &chain, 9_000, |_| 10),
        Cow::Borrowed(_)
    ));
    let uncounted = |_: &str| unreachable!("it fits whatever the tokens are");
    assert_eq!(
        catalogue.fitting(&config, &chain, 8_192, uncounted).len(),
        3
    );
    assert_eq!(
        fitting(&catalogue, &config, &chain[..2], 1_000_000),
        "large:free",
        "the largest is left to try"
    );
    assert_eq!(
        fitting(&Catalogue::default(), &config, &chain, u32::MAX),
        "small:free large:free unknown:free"
    );
}

#[test]
fn each_model_counts_for_itself() {
    // The same text is longer for one whose vocabulary is not known.
    let counted = |model: &str| if model == "small:free" { 9_000 } else { 8_000 };
    let (catalogue, config, chain) = (windows(), config(&[]), chain());
    let fitting = catalogue.fitting(&config, &chain, 9_500, counted);
    assert_eq!(fitting[0].name, "large:free");
    let counted = |model: &str| if model == "small:free" { 8_000 } else { 9_000 };
    assert_eq!(catalogue.fitting(&config, &chain, 9_500, counted).len(), 3);
}

#[test]
fn what_the_operator_says_counts() {
    let said = config(&[(
        "MODEL_CATALOGUE",
        r#"[{"name": "large:free", "context_window": 4096, "first_token_timeout": 2.5}]"#,
    )]);
    assert_eq!(
        fitting(&windows(), &said, &chain(), 5_000),
        "small:free unknown:free"
    );
    let common = Timeouts {
        connect: Duration::from_secs(1),
        first_token: Duration::from_secs(2),
        idle: Duration::from_secs(3),
        total: Duration::from_secs(4),
        interim_after: Duration::from_secs(5),
    };
    let own = Catalogue::timeouts(&said, "large:free", common);
    assert_eq!(own.first_token, Duration::from_millis(2_500));
    assert_eq!((own.total, own.idle), (common.total, common.idle));
    let other = Catalogue::timeouts(&said, "small:free", common);
    assert_eq!(other.first_token, common.first_token);
}

#[test]
fn doubts_about_the_configuration_are_told() {
    let config = config(&[
        ("DEFAULT_MODEL", "a:free"),
        ("FALLBACK_MODEL", "gone:free"),
        ("EMERGENCY_FALLBACK_MODEL", "paid"),
        ("FREE_MODELS", "own"),
        ("ALLOWED_MODELS", "own"),
    ]);
    let catalogue = listed(json!({"data": [
        {"id": "a:free", "pricing": {"prompt": "0", "completion": "0", "web_search": "0.004"}},
        {"id": "own", "pricing": {"prompt": 0, "completion": "0.0000006"}},
        {"id": "paid", "pricing": {"prompt": "0.00000015"}},
    ]}));
    let doubts = catalogue.doubts(&config);
    let names: Vec<&str> = doubts.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["gone:free", "own"]);
    assert!(doubts[1].1.contains("price"), "{doubts:?}");
}

#[test]
fn prices_of_configured_models_are_learnt_to_the_last_digit() {
    let config = config(&[
        ("DEFAULT_MODEL", "a:free"),
        ("FALLBACK_MODEL", "router"),
        ("EMERGENCY_FALLBACK_MODEL", "paid"),
    ]);
    let catalogue = Catalogue::default();
    learn(
        &catalogue,
        &config,
        json!({"data": [
            {"id": "paid", "pricing": {"prompt": "0.00000015", "completion": "0.0000006"}},
            {"id": "a:free", "pricing": {"prompt": "0", "completion": 0}},
            {"id": "router", "pricing": {"prompt": "-1", "completion": "-1"}},
            {"id": "somebody/elses", "pricing": {"prompt": "1", "completion": "1"}},
        ]}),
    );
    let price = |name: &str| {
        let price = catalogue.prices.of(name)?;
        Some((price.prompt?.to_string(), price.completion?.to_string()))
    };
    let said = |prompt: &str, completion: &str| Some((prompt.to_owned(), completion.to_owned()));
    assert_eq!(price("paid"), said("0.00000015", "0.0000006"));
    assert_eq!(price("a:free"), said("0", "0"));
    assert_eq!(price("router"), None, "a price that depends is none");
    assert_eq!(price("somebody/elses"), None);
    // A listing without a model takes its price back.
    learn(&catalogue, &config, json!({"data": []}));
    assert_eq!(price("paid"), None);
}
