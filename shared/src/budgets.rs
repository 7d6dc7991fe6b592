//! What people and all of them together may spend.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::config::Vars;
use crate::models::{Model, ModelsConfig, Price, Prices};

/// Tokens that a prompt may have beside its history: the system's part and the background.
const PROMPT_OVERHEAD: u32 = 2_500;

/// What happens once a budget is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenExhausted {
    /// Messages that might cost something are refused until the budget is free again.
    #[default]
    Refuse,
    /// They are answered by free models.
    FreeModel,
}

impl FromStr for WhenExhausted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "free_model" => Ok(Self::FreeModel),
            _ => Err("must be refuse or free_model"),
        }
    }
}

impl fmt::Display for WhenExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::FreeModel => "free_model",
        })
    }
}

/// Budgets in credits, by UTC days and months; none where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of each person in a day.
    pub user_day: Option<Decimal>,
    /// Of each person in a month.
    pub user_month: Option<Decimal>,
    /// Of everybody in a day.
    pub total_day: Option<Decimal>,
    /// Of everybody in a month.
    pub total_month: Option<Decimal>,
}

/// What an operator sets about budgets.
#[derive(Clone, Copy, Debug)]
pub struct BudgetsConfig {
    /// The budgets.
    pub limits: Limits,
    /// What happens once one is used up.
    pub when_exhausted: WhenExhausted,
    /// What a token of a model is held to cost whose price is not known, in credits.
    pub default_price: Decimal,
}

impl BudgetsConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let limits = Limits {
            user_day: limit(
                vars,
                "BUDGET_USER_DAY",
                "credits that one person may spend in a day (UTC); no limit unless set",
            ),
            user_month: limit(vars, "BUDGET_USER_MONTH", "the same for a month"),
            total_day: limit(
                vars,
                "BUDGET_TOTAL_DAY",
                "credits that everybody together may spend in a day (UTC); no limit unless set",
            ),
            total_month: limit(vars, "BUDGET_TOTAL_MONTH", "the same for a month"),
        };
        let when_exhausted = vars.get(
            "BUDGET_EXHAUSTED",
            "refuse",
            "what a message that may cost something gets once a budget is used up: refuse, or free_model",
        );
        let per_million: Decimal = vars.get(
            "BUDGET_DEFAULT_PRICE",
            "15",
            "credits for a million tokens of a paid model whose prices neither MODEL_CATALOGUE nor the upstream's \
             GET /models names; what is reserved for a reply is reckoned with it",
        );
        if per_million.is_sign_negative() {
            vars.problem("BUDGET_DEFAULT_PRICE", "must not be negative");
        }
        Self {
            limits,
            when_exhausted,
            default_price: per_million / Decimal::from(1_000_000),
        }
    }

    /// Whether there is any budget.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.limits != Limits::default()
    }

    /// The most that one call over this chain costs, in credits, with so many tokens of history; none where
    /// all of its models are free. What the operator says of a price counts, then what the upstream lists.
    #[must_use]
    pub fn estimate(
        &self,
        models: &ModelsConfig,
        prices: &Prices,
        chain: &[Model],
        history_tokens: u32,
    ) -> Option<Decimal> {
        let prompt = Decimal::from(history_tokens.saturating_add(PROMPT_OVERHEAD));
        let reply = Decimal::from(models.max_tokens);
        let paid = chain.iter().filter(|model| !model.free);
        let costs = paid.map(|model| {
            let facts = models.facts(&model.name);
            let listed = prices.of(&model.name);
            let price = |named: Option<Decimal>, listed: Option<Decimal>| {
                named.or(listed).unwrap_or(self.default_price)
            };
            let of_prompt = facts.and_then(|facts| facts.prompt_price());
            let of_reply = facts.and_then(|facts| facts.completion_price());
            let (listed_prompt, listed_reply) = listed
                .map_or((None, None), |Price { prompt, completion }| {
                    (prompt, completion)
                });
            prompt * price(of_prompt, listed_prompt) + reply * price(of_reply, listed_reply)
        });
        costs.max()
    }
}

/// What a generation over a chain may cost, for those who accept one.
#[derive(Clone, Debug)]
pub struct Reckoning {
    /// The budgets.
    pub config: BudgetsConfig,
    /// Tokens of history that a prompt may hold.
    pub history_tokens: u32,
    /// What the upstream lists.
    pub prices: Prices,
}

impl Reckoning {
    /// What is to be reserved for a generation over this chain, in credits; none where nobody set a budget, or
    /// all of its models are free.
    #[must_use]
    pub fn estimate(&self, models: &ModelsConfig, chain: &[Model]) -> Option<Decimal> {
        let config = self.config.is_on().then_some(&self.config)?;
        config.estimate(models, &self.prices, chain, self.history_tokens)
    }
}

/// Says that four fifths of a budget, `user day` or another, are used; of a person's, whose.
pub fn warn(budget: &str, person: Option<Uuid>) {
    let (scope, period) = budget.split_once(' ').unwrap_or((budget, ""));
    metrics::counter!(
        crate::metrics::BUDGET_WARNINGS,
        "scope" => scope.to_owned(), "period" => period.to_owned()
    )
    .increment(1);
    tracing::warn!(
        budget.scope = scope,
        budget.period = period,
        user.id = person.map(tracing::field::display),
        "four fifths of a budget are used"
    );
}

/// What counts as far above what somebody, or a model, took before.
#[derive(Clone, Copy, Debug)]
pub struct AnomalyRules {
    /// So many times the average day of the two weeks before; zero is never.
    pub factor: Decimal,
    /// Less than so many credits in a day is none.
    pub min_credits: Decimal,
    /// Less than so many tokens in a day is none.
    pub min_tokens: u32,
}

impl AnomalyRules {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let mut amount = |name, default, help| {
            let amount: Decimal = vars.get(name, default, help);
            if amount.is_sign_negative() {
                vars.problem(name, "must not be negative");
            }
            amount
        };
        Self {
            factor: amount(
                "ANOMALY_FACTOR",
                "5",
                "a person or a model that takes so many times as much in 24 hours as on an average day of the two weeks \
                 before is reported; 0 is never",
            ),
            min_credits: amount(
                "ANOMALY_MIN_CREDITS",
                "1",
                "less than so many credits in 24 hours is never reported",
            ),
            min_tokens: vars.within(
                "ANOMALY_MIN_TOKENS",
                200_000,
                (0, u32::MAX),
                "less than so many tokens in 24 hours is never reported",
            ),
        }
    }
}

fn limit(vars: &mut Vars, name: &'static str, help: &'static str) -> Option<Decimal> {
    let limit: Option<Decimal> = vars.optional(name, help);
    if limit.is_some_and(|limit| limit.is_sign_negative()) {
        vars.problem(name, "must not be negative");
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&'static str, &str)]) -> Result<(BudgetsConfig, ModelsConfig), String> {
        let mut vars = Vars::from_map(pairs.iter().copied());
        let budgets = BudgetsConfig::from_vars(&mut vars);
        let models = ModelsConfig::from_vars(&mut vars);
        vars.finish().map_err(|error| error.to_string())?;
        Ok((budgets, models))
    }

    #[test]
    fn there_is_none_unless_one_is_set() {
        let (budgets, _) = config(&[]).unwrap();
        assert!(!budgets.is_on());
        let (budgets, _) = config(&[("BUDGET_TOTAL_DAY", "0")]).unwrap();
        assert!(budgets.is_on(), "a budget of nothing is one");
        let error = config(&[
            ("BUDGET_USER_DAY", "-1"),
            ("BUDGET_USER_MONTH", "much"),
            ("BUDGET_EXHAUSTED", "beg"),
        ]);
        let error = error.unwrap_err();
        for name in ["BUDGET_USER_DAY", "BUDGET_USER_MONTH", "BUDGET_EXHAUSTED"] {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_dearest_model_of_the_chain_is_reckoned_with() {
        let catalogue = r#"[{"name": "dear", "prompt_price": 10, "completion_price": "0.5"}]"#;
        let (budgets, models) = config(&[
            ("MODEL_CATALOGUE", catalogue),
            ("BUDGET_DEFAULT_PRICE", "1"),
            ("MAX_TOKENS", "1000"),
        ])
        .unwrap();
        let prices = Prices::default();
        let estimate = |names: &[&str]| {
            let chain: Vec<Model> = names.iter().map(|name| models.model(name)).collect();
            let credits = budgets.estimate(&models, &prices, &chain, 7_500);
            credits.map(|credits| credits.normalize().to_string())
        };
        assert_eq!(estimate(&["a:free", "b:free"]), None);
        // 10,000 tokens and 1,000 more, at a credit for a million.
        assert_eq!(estimate(&["a:free", "unknown"]).unwrap(), "0.011");
        assert_eq!(estimate(&["unknown", "dear"]).unwrap(), "0.1005");
        // The upstream's list fills in what the operator does not say, and changes nothing of what is said.
        let listed = |prompt: &str, completion: &str| Price {
            prompt: Some(prompt.parse().unwrap()),
            completion: Some(completion.parse().unwrap()),
        };
        let list = [
            ("listed", listed("0.0001", "0.001")),
            ("dear", listed("9", "9")),
        ];
        prices.learn(list.map(|(name, price)| (name.to_owned(), price)).into());
        assert_eq!(estimate(&["listed"]).unwrap(), "2");
        assert_eq!(estimate(&["dear"]).unwrap(), "0.1005");
    }
}
