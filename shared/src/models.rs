//! Which models a generation may use, and in which order.
//!
//! The API chooses the chain when it accepts a message and stores it on the row, so that a change
//! of configuration never changes work that is already promised; the worker only follows it.

use serde::{Deserialize, Serialize};

use crate::config::Vars;
use crate::domain::Tier;

/// The longest model name, in bytes, that a request may carry.
pub const MAX_NAME_BYTES: usize = 200;

/// One model as the upstream names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Model {
    /// The upstream's name, for example `openai/gpt-4o-mini`.
    pub name: String,
    /// Whether a call costs nothing; free models share the account's free request limits.
    pub free: bool,
}

/// The models an operator allows and what every call of them is given.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelsConfig {
    /// Tried first.
    pub default: String,
    /// Tried when the first gave no answer.
    pub fallback: String,
    /// Tried last. Usually paid, and then only for those who may use paid models.
    pub emergency: String,
    /// Nobody gets a paid model.
    pub free_only: bool,
    /// Models without `:free` in their name that cost nothing, for example self-hosted ones.
    pub free_models: Vec<String>,
    /// What a request may name besides the three above.
    pub allowed: Vec<String>,
    /// The most tokens a reply may have.
    pub max_tokens: u32,
    /// Sampling temperature, 0 to 2.
    pub temperature: f32,
}

impl ModelsConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let config = Self {
            default: vars.get(
                "DEFAULT_MODEL",
                "qwen/qwen3-235b-a22b-07-25:free",
                "model tried first",
            ),
            fallback: vars.get(
                "FALLBACK_MODEL",
                "meta-llama/llama-3.2-3b-instruct:free",
                "model tried when the first gives no answer",
            ),
            emergency: vars.get(
                "EMERGENCY_FALLBACK_MODEL",
                "openai/gpt-4o-mini",
                "model tried last; a paid one serves the premium tier only",
            ),
            free_only: vars.flag(
                "USE_FREE_MODELS_ONLY",
                true,
                "true: nobody gets a paid model",
            ),
            free_models: vars.list(
                "FREE_MODELS",
                "",
                "models that cost nothing although their name does not end in :free",
            ),
            allowed: vars.list(
                "ALLOWED_MODELS",
                "",
                "models a request may name besides the three of the chain",
            ),
            max_tokens: vars.within(
                "MAX_TOKENS",
                1_000,
                (1, 1_000_000),
                "most tokens of a reply",
            ),
            temperature: vars.within(
                "TEMPERATURE",
                0.7,
                (0.0, 2.0),
                "sampling temperature, 0 to 2",
            ),
        };
        for (name, model) in [
            ("DEFAULT_MODEL", &config.default),
            ("FALLBACK_MODEL", &config.fallback),
            ("EMERGENCY_FALLBACK_MODEL", &config.emergency),
        ] {
            if model.len() > MAX_NAME_BYTES {
                vars.problem(
                    name,
                    format_args!("must have at most {MAX_NAME_BYTES} bytes"),
                );
            }
        }
        if !config.temperature.is_finite() {
            vars.problem("TEMPERATURE", "must be a number");
        }
        if config.chain_for(Tier::Free, None).is_empty() {
            vars.problem(
                "DEFAULT_MODEL",
                "none of the three models is free, so the free tier has no model; \
                 list those that cost nothing in FREE_MODELS",
            );
        }
        config
    }

    /// Whether calls of a model cost nothing.
    #[must_use]
    pub fn is_free(&self, name: &str) -> bool {
        name.ends_with(":free") || self.free_models.iter().any(|free| free == name)
    }

    /// A model with what is known of it.
    #[must_use]
    pub fn model(&self, name: &str) -> Model {
        Model {
            name: name.to_owned(),
            free: self.is_free(name),
        }
    }

    /// Whether a request of someone of this tier may name the model: the operator listed it, and
    /// it is free or the tier may use paid ones.
    #[must_use]
    pub fn is_allowed(&self, name: &str, tier: Tier) -> bool {
        let listed = self.configured().any(|known| known == name)
            || self.allowed.iter().any(|known| known == name);
        listed && self.affordable(name, tier)
    }

    /// The models for one generation, best first, none twice: the requested one if it is allowed,
    /// then default, fallback and emergency, leaving out what the tier may not use.
    #[must_use]
    pub fn chain_for(&self, tier: Tier, requested: Option<&str>) -> Vec<Model> {
        let requested = requested.filter(|name| self.is_allowed(name, tier));
        let mut chain: Vec<Model> = Vec::with_capacity(4);
        for name in requested.into_iter().chain(self.configured()) {
            if self.affordable(name, tier) && chain.iter().all(|model| model.name != name) {
                chain.push(self.model(name));
            }
        }
        chain
    }

    fn configured(&self) -> impl Iterator<Item = &str> {
        [&self.default, &self.fallback, &self.emergency]
            .into_iter()
            .map(String::as_str)
    }

    fn affordable(&self, name: &str, tier: Tier) -> bool {
        self.is_free(name) || (tier == Tier::Premium && !self.free_only)
    }
}

#[cfg(test)]
mod tests {
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
}
