//! What an operator says about single models, beyond the chain.

use std::time::Duration;

use rust_decimal::Decimal;
use serde::Deserialize;

use super::MAX_NAME_BYTES;
use crate::config::Vars;
use crate::domain::ContextType;

/// The shortest and the longest time limit that a model may be given, in seconds.
const TIMEOUTS: (f64, f64) = (0.1, 3_600.0);

/// What is said about one model. What is left out is asked of the upstream, or taken from the
/// settings for all models.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    /// The upstream's name of it.
    pub name: String,
    /// Calls cost nothing, as if it were named in `FREE_MODELS`.
    #[serde(default)]
    pub free: bool,
    /// Conversations about these get it before the models of the chain, where their owner may use it.
    #[serde(default)]
    pub contexts: Vec<ContextType>,
    /// Tokens that prompt and reply may have together.
    #[serde(default)]
    pub context_window: Option<u32>,
    /// Seconds from the request to the first token.
    #[serde(default)]
    first_token_timeout: Option<f64>,
    /// Seconds for a whole call.
    #[serde(default)]
    total_timeout: Option<f64>,
    /// Credits for a million tokens of a prompt, for budgets.
    #[serde(default, with = "crate::domain::credits")]
    prompt_price: Option<Decimal>,
    /// Credits for a million tokens of a reply, for budgets.
    #[serde(default, with = "crate::domain::credits")]
    completion_price: Option<Decimal>,
}

impl ModelFacts {
    /// Longest time from the request to the first token, where it differs from other models'.
    #[must_use]
    pub fn first_token_timeout(&self) -> Option<Duration> {
        self.first_token_timeout.map(Duration::from_secs_f64)
    }

    /// Longest time of a whole call, where it differs from other models'.
    #[must_use]
    pub fn total_timeout(&self) -> Option<Duration> {
        self.total_timeout.map(Duration::from_secs_f64)
    }

    /// Credits for one token of a prompt.
    #[must_use]
    pub fn prompt_price(&self) -> Option<Decimal> {
        self.prompt_price.map(per_token)
    }

    /// Credits for one token of a reply.
    #[must_use]
    pub fn completion_price(&self) -> Option<Decimal> {
        self.completion_price.map(per_token)
    }

    fn problem(&self) -> Option<&'static str> {
        let seconds = [self.first_token_timeout, self.total_timeout];
        let outside =
            |seconds: &f64| !seconds.is_finite() || *seconds < TIMEOUTS.0 || *seconds > TIMEOUTS.1;
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            Some("each model needs a name of 1 to 200 bytes")
        } else if seconds.iter().flatten().any(outside) {
            Some("timeouts must lie between 0.1 and 3600 seconds")
        } else if self.context_window == Some(0) {
            Some("a context_window must be more than 0")
        } else if [self.prompt_price, self.completion_price]
            .iter()
            .flatten()
            .any(Decimal::is_sign_negative)
        {
            Some("prices must not be negative")
        } else {
            None
        }
    }
}

fn per_token(price: Decimal) -> Decimal {
    price / Decimal::from(1_000_000)
}

/// Reads `MODEL_CATALOGUE`; mistakes are collected in `vars`.
pub(super) fn from_vars(vars: &mut Vars) -> Vec<ModelFacts> {
    const NAME: &str = "MODEL_CATALOGUE";
    let text: String = vars.get(
        NAME,
        "[]",
        "facts about single models, a JSON array of {name, free, contexts, context_window, \
         first_token_timeout, total_timeout, prompt_price, completion_price}; only the name is required",
    );
    let facts: Vec<ModelFacts> = match serde_json::from_str(&text) {
        Ok(facts) => facts,
        Err(error) => {
            // Only where the mistake is: the text may be anything.
            let place = format!("line {}, column {}", error.line(), error.column());
            vars.problem(NAME, format_args!("cannot be read at {place}"));
            return Vec::new();
        }
    };
    for problem in facts.iter().filter_map(ModelFacts::problem) {
        vars.problem(NAME, problem);
    }
    let twice = |(at, known): (usize, &ModelFacts)| {
        facts
            .iter()
            .skip(at + 1)
            .any(|other| other.name == known.name)
    };
    if facts.iter().enumerate().any(twice) {
        vars.problem(NAME, "a model stands in it twice");
    }
    facts
}
