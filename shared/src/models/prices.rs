//! Prices that the upstream lists. A worker learns them, the others and the API read what it wrote down.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::redis::{cmd, pipe};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::redis::{Redis, RedisFailure};

/// Where they are written down, and how long they are believed when nobody lists them any more.
const KEY: &str = "prices";
const LIFETIME: Duration = Duration::from_hours(25);
/// Between two looks at what is written down.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What one token of a model costs, in credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Of a prompt.
    pub prompt: Option<Decimal>,
    /// Of a reply.
    pub completion: Option<Decimal>,
}

/// The prices of models by name, as this process knows them; clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Prices(Arc<RwLock<BTreeMap<String, Price>>>);

impl Prices {
    /// What is known of a model.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<Price> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(model).copied()
    }

    /// From now on these are known, and no others.
    pub fn learn(&self, prices: BTreeMap<String, Price>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = prices;
    }

    /// Writes down what is known, for the others; where nothing is, what they know stays.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn write(&self, redis: &Redis) -> Result<(), RedisFailure> {
        let text = {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if known.is_empty() {
                return Ok(());
            }
            serde_json::to_string(&*known).unwrap_or_default()
        };
        let mut pipeline = pipe();
        let key = redis.key(KEY);
        pipeline.set_ex(key, text, LIFETIME.as_secs()).ignore();
        redis.pipeline(&pipeline).await
    }

    /// Learns what is written down; what cannot be read changes nothing.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn read(&self, redis: &Redis) -> Result<(), RedisFailure> {
        let mut get = cmd("GET");
        get.arg(redis.key(KEY));
        let text: Option<String> = redis.command(&get).await?;
        if let Some(prices) = text.and_then(|text| serde_json::from_str(&text).ok()) {
            self.learn(prices);
        }
        Ok(())
    }

    /// Reads for ever.
    pub async fn watch(self, redis: Redis) {
        loop {
            if let Err(failure) = self.read(&redis).await {
                tracing::debug!(%failure, "listed prices not read");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_process_learns_another_reads() {
        let env = crate::testing::TestEnv::new().await;
        let redis = env.redis();
        let (worker, api) = (Prices::default(), Prices::default());
        worker.write(&redis).await.unwrap();
        api.read(&redis).await.unwrap();
        assert_eq!(api.of("a"), None);
        let price = Price {
            prompt: Some("0.00000015".parse().unwrap()),
            completion: None,
        };
        worker.learn([("a".to_owned(), price)].into());
        worker.write(&redis).await.unwrap();
        api.read(&redis).await.unwrap();
        assert_eq!(api.of("a"), Some(price), "to the last digit");
        // Who knows nothing yet takes nothing away.
        Prices::default().write(&redis).await.unwrap();
        api.read(&redis).await.unwrap();
        assert_eq!(api.of("a"), Some(price));
    }
}
