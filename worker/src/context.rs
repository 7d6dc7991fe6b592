//! What every job of a worker shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::clock::Clock;
use shared::knowledge::Vocabularies;
use shared::redis::Redis;
use shared::store::Db;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::WorkerConfig;
use crate::jobs::{Calls, Replies};
use crate::knowledge::Embedder;
use crate::outbound::Wake;
use crate::pacing::Pacing;
use crate::progress::Progress;
use crate::queue::{Gates, Running, Tally};
use crate::upstream::Client;

/// The tools of a job.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub config: WorkerConfig,
    /// Stable name and boot: `name/uuid`.
    pub worker_id: String,
    /// Names this start of the worker.
    pub boot: Uuid,
    /// The wall clock.
    pub clock: Clock,
    /// The database as `balas_worker`.
    pub db: Db,
    /// Redis.
    pub redis: Redis,
    /// The upstream.
    pub upstream: Client,
    /// The limits of the upstream's account.
    pub pacing: Pacing,
    /// Texts to vectors.
    pub embedder: Arc<Embedder>,
    /// The words of the knowledge base.
    pub vocabularies: Vocabularies,
    /// What runs here right now.
    pub running: Running,
    /// Which queues may be taken from.
    pub gates: Gates,
    /// What was done of late.
    pub tally: Tally,
    /// How long replies take, by model.
    pub pace: Pace,
    /// Upstream calls that the ledger does not know yet.
    pub calls: Calls,
    /// Where finished replies are stored.
    pub replies: Replies,
    /// Wakes those who tell the notification service.
    pub wake: Wake,
    /// What the watchdog looks at.
    pub progress: Arc<Progress>,
    /// Somebody of this worker's name asks whether it lives.
    pub called: Notify,
}

/// Moving averages of how long models take.
#[derive(Debug, Default)]
pub struct Pace(Mutex<HashMap<String, f64>>);

impl Pace {
    /// Notes one reply.
    pub fn note(&self, model: &str, took: Duration) {
        let ms = took.as_secs_f64() * 1000.0;
        let mut averages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match averages.get_mut(model) {
            Some(average) => *average += (ms - *average) * 0.1,
            None => {
                averages.insert(model.to_owned(), ms);
            }
        }
    }

    /// The average of one model, once it is known.
    #[must_use]
    pub fn average(&self, model: &str) -> Option<Duration> {
        let averages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ms = averages.get(model)?;
        Some(Duration::from_secs_f64(ms / 1000.0))
    }

    /// The averages, in milliseconds.
    #[must_use]
    pub fn averages(&self) -> Vec<(String, f64)> {
        let averages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        averages
            .iter()
            .map(|(model, ms)| (model.clone(), *ms))
            .collect()
    }
}
