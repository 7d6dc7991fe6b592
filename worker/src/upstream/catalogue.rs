//! What is known of the models: said by the operator, or learnt from `GET /models`. What the
//! operator says counts.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rust_decimal::Decimal;
use serde::Deserialize;
use shared::models::{ModelsConfig, Price, Prices};

use super::{Client, Model, Timeouts};

/// Models that are remembered of a listing; the longest known lists some hundreds.
const MAX_LISTED: usize = 10_000;

/// The longest listing that is read, in bytes.
const MAX_LISTING_BYTES: usize = 32 * 1024 * 1024;

/// For a whole listing, and between two tries while there is none.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything this process knows of the models.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    listed: RwLock<HashMap<String, Listed>>,
    /// Prices of the models that are configured.
    pub(super) prices: Prices,
}

/// What a listing says about a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    context_window: Option<u32>,
    price: Price,
    costs: bool,
}

impl Catalogue {
    /// The time limits for calls of a model.
    pub(super) fn timeouts(config: &ModelsConfig, name: &str, common: Timeouts) -> Timeouts {
        let Some(facts) = config.facts(name) else {
            return common;
        };
        Timeouts {
            first_token: facts.first_token_timeout().unwrap_or(common.first_token),
            total: facts.total_timeout().unwrap_or(common.total),
            ..common
        }
    }

    /// The models whose window holds the tokens, which are counted as each of them does and only where `at_most` so
    /// many might not fit. A window that is not known may hold any; where
    /// none is large enough, the largest is left to try, with the history cut.
    pub(super) fn fitting<'c>(
        &self,
        config: &ModelsConfig,
        chain: &'c [Model],
        at_most: u32,
        tokens: impl Fn(&str) -> u32,
    ) -> Cow<'c, [Model]> {
        let windows: Vec<u32> = chain
            .iter()
            .map(|model| self.window(config, &model.name))
            .collect();
        if windows.iter().all(|window| *window >= at_most) {
            return Cow::Borrowed(chain);
        }
        let largest = windows.iter().copied().max().unwrap_or(0);
        let fits = |(model, window): &(&Model, u32)| {
            *window >= at_most || *window >= tokens(&model.name).min(largest)
        };
        let fitting = chain.iter().zip(windows).filter(fits);
        let fitting: Vec<Model> = fitting.map(|(model, _)| model.clone()).collect();
        if fitting.len() == chain.len() {
            return Cow::Borrowed(chain);
        }
        Cow::Owned(fitting)
    }

    fn window(&self, config: &ModelsConfig, name: &str) -> u32 {
        let said = config.facts(name).and_then(|facts| facts.context_window);
        let listed = || {
            let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
            listed.get(name).and_then(|listed| listed.context_window)
        };
        said.or_else(listed).unwrap_or(u32::MAX)
    }

    fn learn(&self, config: &ModelsConfig, listing: Listing) -> usize {
        let models = listing.data.into_iter().take(MAX_LISTED);
        let listed: HashMap<String, Listed> = models
            .map(|entry| (entry.id.clone(), entry.facts()))
            .collect();
        let count = listed.len();
        let configured = config.names();
        let prices: BTreeMap<String, Price> = configured
            .filter_map(|name| Some((name.to_owned(), listed.get(name)?.price)))
            .collect();
        self.prices.learn(prices);
        *self.listed.write().unwrap_or_else(PoisonError::into_inner) = listed;
        count
    }

    /// What an operator should know: configured models that the upstream does not list, and those
    /// that are held to be free and have a price.
    fn doubts<'m>(&self, config: &'m ModelsConfig) -> Vec<(&'m str, &'static str)> {
        let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
        let doubt = |name: &'m str| match listed.get(name) {
            None => Some((name, "the upstream does not list it")),
            Some(facts) if facts.costs && config.is_free(name) => {
                Some((name, "it is held to be free and the upstream names a price"))
            }
            Some(_) => None,
        };
        config.names().filter_map(doubt).collect()
    }
}

/// `GET /models`.
#[derive(Debug, Deserialize)]
struct Listing {
    data: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    context_length: Option<u32>,
    /// vLLM's name for it.
    #[serde(default)]
    max_model_len: Option<u32>,
    #[serde(default)]
    pricing: HashMap<String, serde_json::Value>,
}

impl Entry {
    fn facts(&self) -> Listed {
        // Web search and the like cost extra even with models that are free.
        let prices = ["prompt", "completion", "request"].map(|kind| self.pricing.get(kind));
        let price = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.parse().ok(),
            number => number.to_string().parse().ok(),
        };
        // A price below zero says that it depends, as that of a router does.
        let known = |name: &str| {
            let named = self.pricing.get(name).and_then(price);
            named.filter(|price: &Decimal| !price.is_sign_negative())
        };
        Listed {
            price: Price {
                prompt: known("prompt"),
                completion: known("completion"),
            },
            context_window: self
                .context_length
                .or(self.max_model_len)
                .filter(|window| *window > 0),
            costs: prices
                .into_iter()
                .flatten()
                .filter_map(price)
                .any(|price: Decimal| !price.is_zero()),
        }
    }
}

/// Asks the upstream for its models for ever, every `MODELS_REFRESH`. A server without a listing is
/// as good: then only what the operator says is known.
pub async fn watch_models(client: &Client) {
    let every = client.config().models_refresh;
    if every.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let pause = match refresh(client).await {
            Ok(count) => {
                tracing::debug!(count, "models listed");
                every
            }
            Err(error) => {
                tracing::info!(error, "the upstream's models are not known");
                every.min(PATIENCE)
            }
        };
        // Not all workers of a fleet at once.
        tokio::time::sleep(pause.mul_f64(0.9 + rand::random::<f64>() * 0.2)).await;
    }
}

/// Asks once; how many models there are.
///
/// # Errors
/// When the listing does not come or cannot be read; what is known stays.
async fn refresh(client: &Client) -> Result<usize, String> {
    let reading = client.read("models", MAX_LISTING_BYTES);
    let body = tokio::time::timeout(PATIENCE, reading)
        .await
        .map_err(|_| "no answer in time".to_owned())??;
    let listing = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let count = client.catalogue.learn(&client.config().models, listing);
    for (model, doubt) in client.catalogue.doubts(&client.config().models) {
        tracing::warn!(upstream.model = model, doubt, "check the configured models");
    }
    Ok(count)
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
