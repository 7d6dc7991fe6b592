//! Who gets which models, in which order.

use super::*;

fn config(pairs: &[(&str, &str)]) -> ModelsConfig {
    let mut vars = Vars::from_map(pairs.iter().copied());
    let config = ModelsConfig::from_vars(&mut vars);
    vars.finish().unwrap();
    config
}

fn names(chain: &[Model]) -> Vec<&str> {
    chain.iter().map(|model| model.name.as_str()).collect()
}

const DEFAULT: &str = "qwen/qwen3-235b-a22b-07-25:free";
const FALLBACK: &str = "meta-llama/llama-3.2-3b-instruct:free";
const PAID: &str = "openai/gpt-4o-mini";

#[test]
fn nobody_gets_a_paid_model_unless_the_operator_says_so() {
    let config = config(&[]);
    for tier in Tier::ALL {
        assert_eq!(names(&config.chain_for(*tier, None)), [DEFAULT, FALLBACK]);
        assert_eq!(
            names(&config.chain_for(*tier, Some(PAID))),
            [DEFAULT, FALLBACK]
        );
        assert!(!config.is_allowed(PAID, *tier));
    }
}

#[test]
fn premium_gets_paid_models_and_free_never_does() {
    let config = config(&[
        ("USE_FREE_MODELS_ONLY", "false"),
        ("ALLOWED_MODELS", "big/model, tiny/model:free"),
    ]);
    assert_eq!(
        names(&config.chain_for(Tier::Premium, None)),
        [DEFAULT, FALLBACK, PAID]
    );
    assert_eq!(
        names(&config.chain_for(Tier::Free, None)),
        [DEFAULT, FALLBACK]
    );
    assert!(config.is_allowed("big/model", Tier::Premium));
    assert!(!config.is_allowed("big/model", Tier::Free));
    assert!(config.is_allowed("tiny/model:free", Tier::Free));
    assert!(!config.is_allowed("unknown/model:free", Tier::Premium));
    let chain = config.chain_for(Tier::Premium, Some("big/model"));
    assert_eq!(names(&chain), ["big/model", DEFAULT, FALLBACK, PAID]);
    assert_eq!(
        chain.iter().map(|model| model.free).collect::<Vec<_>>(),
        [false, true, true, false]
    );
}

#[test]
fn no_model_is_tried_twice() {
    let config = config(&[("FALLBACK_MODEL", DEFAULT)]);
    assert_eq!(
        names(&config.chain_for(Tier::Free, Some(DEFAULT))),
        [DEFAULT]
    );
}

#[test]
fn a_free_tier_without_a_model_is_refused_at_start() {
    let paid = [("DEFAULT_MODEL", "a/b"), ("FALLBACK_MODEL", "a/c")];
    let mut vars = Vars::from_map(paid);
    ModelsConfig::from_vars(&mut vars);
    assert!(
        vars.finish()
            .unwrap_err()
            .to_string()
            .contains("FREE_MODELS")
    );
    let own = config(&[paid[0], paid[1], ("FREE_MODELS", "a/b,a/c")]);
    assert_eq!(names(&own.chain_for(Tier::Free, None)), ["a/b", "a/c"]);
}

const CATALOGUE: &str = r#"[
    {"name": "big/mind", "contexts": ["assessment"], "context_window": 200000, "total_timeout": 90},
    {"name": "own/small", "free": true, "contexts": ["support"]},
    {"name": "tiny/model:free", "context_window": 8192}
]"#;

#[test]
fn a_context_has_its_own_models_where_the_tier_may_use_them() {
    let config = config(&[
        ("USE_FREE_MODELS_ONLY", "false"),
        ("MODEL_CATALOGUE", CATALOGUE),
    ]);
    let chain = |tier, context| for_context(config.chain_for(tier, None), context);
    assert_eq!(
        names(&chain(Tier::Premium, ContextType::Assessment)),
        ["big/mind", DEFAULT, FALLBACK, PAID]
    );
    assert_eq!(
        names(&chain(Tier::Free, ContextType::Assessment)),
        [DEFAULT, FALLBACK],
        "the free tier never gets a paid model"
    );
    assert_eq!(
        names(&chain(Tier::Free, ContextType::Support)),
        ["own/small", DEFAULT, FALLBACK]
    );
    assert_eq!(
        names(&chain(Tier::Premium, ContextType::General)),
        [DEFAULT, FALLBACK, PAID]
    );
    let likely = config.chain_for(Tier::Premium, None);
    assert_eq!(likely_first(&likely).unwrap().name, DEFAULT);
}

#[test]
fn who_asks_for_a_special_model_gets_it_in_any_context() {
    let config = config(&[
        ("USE_FREE_MODELS_ONLY", "false"),
        ("MODEL_CATALOGUE", CATALOGUE),
    ]);
    assert!(config.is_allowed("big/mind", Tier::Premium));
    assert!(!config.is_allowed("big/mind", Tier::Free));
    assert!(
        !config.is_allowed("tiny/model:free", Tier::Premium),
        "to be known is not to be allowed"
    );
    let chain = config.chain_for(Tier::Premium, Some("big/mind"));
    let general = for_context(chain.clone(), ContextType::General);
    assert_eq!(names(&general), ["big/mind", DEFAULT, FALLBACK, PAID]);
    let assessment = for_context(chain, ContextType::Assessment);
    assert_eq!(names(&assessment), ["big/mind", DEFAULT, FALLBACK, PAID]);
}

#[test]
fn a_special_model_of_the_chain_keeps_its_place_for_the_others() {
    let config = config(&[(
        "MODEL_CATALOGUE",
        &format!(r#"[{{"name": "{FALLBACK}", "contexts": ["support"]}}]"#),
    )]);
    let chain = config.chain_for(Tier::Free, None);
    let general = for_context(chain.clone(), ContextType::General);
    assert_eq!(names(&general), [DEFAULT, FALLBACK]);
    let support = for_context(chain, ContextType::Support);
    assert_eq!(names(&support), [FALLBACK, DEFAULT]);
}

#[test]
fn a_chain_is_stored_without_what_it_does_not_say_and_old_ones_stay_readable() {
    let plain = serde_json::to_string(&Model::new("a:free", true)).unwrap();
    assert_eq!(plain, r#"{"name":"a:free","free":true}"#);
    let special = Model {
        contexts: vec![ContextType::Support],
        ..Model::new("a", false)
    };
    let text = serde_json::to_string(&special).unwrap();
    assert_eq!(text, r#"{"name":"a","free":false,"contexts":["support"]}"#);
    assert_eq!(serde_json::from_str::<Model>(&text).unwrap(), special);
    assert!(
        serde_json::from_str::<Model>(&plain)
            .unwrap()
            .contexts
            .is_empty()
    );
}

#[test]
fn what_is_wrong_with_a_catalogue_is_said() {
    for (text, expected) in [
        ("{}", "line 1, column"),
        (r#"[{"name": "a", "speed": 1}]"#, "line 1, column"),
        (r#"[{"name": ""}]"#, "a name of"),
        (r#"[{"name": "a", "total_timeout": 0}]"#, "timeouts"),
        (r#"[{"name": "a", "context_window": 0}]"#, "context_window"),
        (r#"[{"name": "a"}, {"name": "b"}, {"name": "a"}]"#, "twice"),
    ] {
        let mut vars = Vars::from_map([("MODEL_CATALOGUE", text)]);
        ModelsConfig::from_vars(&mut vars);
        let problem = vars.finish().unwrap_err().to_string();
        assert!(
            problem.contains("MODEL_CATALOGUE: ") && problem.contains(expected),
            "{text}: {problem}"
        );
    }
}
