//! Which models a generation may use, and in which order.
//!
//! The API chooses the chain when it accepts a message and stores it on the row, so that a change
//! of configuration never changes work that is already promised; the worker only follows it.

mod catalogue;
mod prices;

pub use catalogue::ModelFacts;
pub use prices::{Price, Prices};

use serde::{Deserialize, Serialize};

use crate::config::Vars;
use crate::domain::{ContextType, Tier};

/// The longest model name, in bytes, that a request may carry.
pub const MAX_NAME_BYTES: usize = 200;

/// One model as the upstream names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Model {
    /// The upstream's name, for example `openai/gpt-4o-mini`.
    pub name: String,
    /// Whether a call costs nothing; free models share the account's free request limits.
    pub free: bool,
    /// Only conversations about one of these use it; any does where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<ContextType>,
}

impl Model {
    /// A model for any conversation.
    #[must_use]
    pub fn new(name: impl Into<String>, free: bool) -> Self {
        Self {
            name: name.into(),
            free,
            contexts: Vec::new(),
        }
    }
}

/// The models of a chain that a conversation of this kind uses. A chain that would be left empty is
/// used as it is: an answer by another model is better than none.
#[must_use]
pub fn for_context(mut chain: Vec<Model>, context: ContextType) -> Vec<Model> {
    let fits = |model: &Model| model.contexts.is_empty() || model.contexts.contains(&context);
    if chain.iter().any(fits) {
        chain.retain(fits);
    }
    // One that is special here and common as well stands in it twice.
    let mut seen: Vec<String> = Vec::with_capacity(chain.len());
    chain.retain(|model| {
        let is_new = !seen.contains(&model.name);
        if is_new {
            seen.push(model.name.clone());
        }
        is_new
    });
    chain
}

/// The model that a chain most likely begins with, as long as it is not known what the conversation
/// is about.
#[must_use]
pub fn likely_first(chain: &[Model]) -> Option<&Model> {
    let general = chain.iter().find(|model| model.contexts.is_empty());
    general.or(chain.first())
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
    /// What is said about single models.
    pub catalogue: Vec<ModelFacts>,
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
                "models a request may name besides those of the chain",
            ),
            catalogue: catalogue::from_vars(vars),
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
        name.ends_with(":free")
            || self.free_models.iter().any(|free| free == name)
            || self.facts(name).is_some_and(|facts| facts.free)
    }

    /// What is said about a model.
    #[must_use]
    pub fn facts(&self, name: &str) -> Option<&ModelFacts> {
        self.catalogue.iter().find(|facts| facts.name == name)
    }

    /// A model with what is known of it, for any conversation.
    #[must_use]
    pub fn model(&self, name: &str) -> Model {
        Model::new(name, self.is_free(name))
    }

    /// Whether a request of someone of this tier may name the model: the operator listed it, and
    /// it is free or the tier may use paid ones.
    #[must_use]
    pub fn is_allowed(&self, name: &str, tier: Tier) -> bool {
        let special = |facts: &ModelFacts| facts.name == name && !facts.contexts.is_empty();
        let listed = self.configured().any(|known| known == name)
            || self.allowed.iter().any(|known| known == name)
            || self.catalogue.iter().any(special);
        listed && self.affordable(name, tier)
    }

    /// The models for one generation, best first, none twice: the requested one if it is allowed,
    /// then those for certain contexts, then default, fallback and emergency, leaving out what the
    /// tier may not use. [`for_context`] takes out those for other contexts, once it is known which
    /// it is.
    #[must_use]
    pub fn chain_for(&self, tier: Tier, requested: Option<&str>) -> Vec<Model> {
        let requested = requested.filter(|name| self.is_allowed(name, tier));
        let special = self.catalogue.iter().map(|facts| Model {
            contexts: facts.contexts.clone(),
            ..self.model(&facts.name)
        });
        let special = special.filter(|model| !model.contexts.is_empty());
        let wanted = requested.map(|name| self.model(name)).into_iter();
        let common = self.configured().map(|name| self.model(name));
        let mut chain: Vec<Model> = Vec::with_capacity(4);
        for model in wanted.chain(special).chain(common) {
            // A special model of the chain is common after all, in its place there.
            let known = |other: &Model| other.name == model.name && other.contexts.is_empty();
            if self.affordable(&model.name, tier) && !chain.iter().any(known) {
                chain.push(model);
            }
        }
        chain
    }

    /// Every model that is configured, none twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let others = self.allowed.iter().map(String::as_str);
        let known = self.catalogue.iter().map(|facts| facts.name.as_str());
        let all: Vec<&str> = self.configured().chain(others).chain(known).collect();
        let is_first =
            |at: usize, name: &str| all.iter().position(|other| *other == name) == Some(at);
        let firsts = all
            .iter()
            .enumerate()
            .filter(|(at, name)| is_first(*at, name));
        firsts
            .map(|(_, name)| *name)
            .collect::<Vec<_>>()
            .into_iter()
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
mod tests;
