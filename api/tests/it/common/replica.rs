//! Processes of the fleet, as threads of their own so that they can die as processes do.

use api::app::AppState;
use api::config::Config;
use api::gate::Gate;
use loadtest::simulator::Simulator;
use secrecy::ExposeSecret as _;
use shared::clock::Clock;
use shared::config::Vars;
use shared::lifecycle::Lifecycle;
use shared::redis::Redis;
use shared::store::{Db, History, ServingRole};
use shared::testing::TestEnv;
use tokio::runtime::Runtime;
use uuid::Uuid;
use worker::config::WorkerConfig;

use super::client::{Client, JWT_SECRET, SERVICE_KEY};

/// One API process.
pub(crate) struct Replica {
    /// `http://127.0.0.1:<port>`.
    pub(crate) url: String,
    pub(crate) lifecycle: Lifecycle,
    runtime: Option<Runtime>,
}

impl Replica {
    pub(super) async fn start(
        env: &TestEnv,
        simulator: &Simulator,
        clock: &Clock,
        settings: &[(&'static str, String)],
    ) -> Self {
        let config = config(env, simulator, settings);
        let runtime = runtime();
        let lifecycle = Lifecycle::new();
        let (clock, stop) = (clock.clone(), lifecycle.clone());
        let starting = runtime.spawn(async move {
            shared::metrics::install();
            let server = config.api.server.clone();
            let db = Db::connect_lazy(&config.db, ServingRole::Api).unwrap();
            let history = History::connect_lazy(db.clone(), config.history_db.as_ref()).unwrap();
            let redis = Redis::connect_lazy(&config.redis).unwrap();
            let gate = Gate::new(config.api, clock).unwrap();
            let view = Db::connect_lazy(&config.operator_db, ServingRole::Operator).unwrap();
            let state =
                AppState::new(gate, config.models, db, history, view, redis, stop.clone()).unwrap();
            let listener = api::serve::listen(server.address).unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            stop.spawn(api::serve::serve(listener, state));
            url
        });
        let url = starting.await.unwrap();
        Self {
            url,
            lifecycle,
            runtime: Some(runtime),
        }
    }

    /// A client of this replica.
    pub(crate) fn client(&self, user: Uuid) -> Client {
        Client::new(self.url.clone(), user)
    }

    /// Ends every task at once: nothing is flushed or closed in order.
    pub(crate) fn kill(mut self) {
        self.stop_now();
    }

    fn stop_now(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// Settings that both processes read.
const SHARED: [&str; 6] = [
    "ARCHIVE_SERVICE_URL",
    "AUTH_SERVICE_URL",
    "RABBITMQ_URL",
    "EXCHANGE_NAME",
    "CHAT_QUEUE_NAME",
    "PLATFORM_TIMEOUT",
];

/// One worker process.
pub(crate) struct TestWorker {
    runtime: Option<Runtime>,
}

impl TestWorker {
    /// Of the API's settings it has those about other services.
    pub(super) fn start(
        env: &TestEnv,
        simulator: &Simulator,
        clock: &Clock,
        shared: &[(&'static str, String)],
        settings: &[(&'static str, &str)],
    ) -> Self {
        let redis = env.redis_config();
        let shared = shared
            .iter()
            .filter(|(name, _)| SHARED.contains(name))
            .map(|(name, value)| (*name, value.clone()));
        let defaults = [
            ("DATABASE_URL", env.database_url().to_owned()),
            ("REDIS_URL", redis.url.expose_secret().to_owned()),
            ("REDIS_KEY_PREFIX", redis.prefix.clone()),
            ("OPENROUTER_BASE_URL", simulator.base_url()),
            ("OPENROUTER_API_KEY", "test-key".to_owned()),
            ("NEBIUS_BASE_URL", simulator.base_url()),
            ("NEBIUS_API_KEY", "test-embedding-key".to_owned()),
            ("EMBEDDING_DIMENSION", "256".to_owned()),
            ("MAX_RETRIES", "1".to_owned()),
            ("WORKER_NAME", "worker".to_owned()),
            ("WORKER_CONCURRENCY", "16".to_owned()),
            // The simulator sets no limit.
            ("FREE_MODEL_RATE_LIMIT_PER_MINUTE", "0".to_owned()),
            ("DB_POOL_MIN", "0".to_owned()),
            ("DB_POOL_MAX", "8".to_owned()),
            ("LEASE_SECONDS", "3".to_owned()),
            ("LEASE_RENEW_SECONDS", "0.5".to_owned()),
            ("RECONCILE_SECONDS", "0.3".to_owned()),
            ("QUEUE_BLOCK_SECONDS", "0.3".to_owned()),
            ("INTERNAL_SERVICE_KEY", SERVICE_KEY.to_owned()),
            // Rules of the simulator that count calls would count these as well.
            ("COST_REFRESH", "0".to_owned()),
        ];
        let given = settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let all = defaults.into_iter().chain(shared).chain(given);
        let mut vars = Vars::from_map(all);
        let config = WorkerConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        let runtime = runtime();
        let clock = clock.clone();
        runtime.spawn(async move {
            worker::run::run(config, clock, Lifecycle::new())
                .await
                .unwrap()
        });
        Self {
            runtime: Some(runtime),
        }
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The environment of a replica.
pub(super) fn environment(
    env: &TestEnv,
    simulator: &Simulator,
    settings: &[(&'static str, String)],
) -> Vec<(&'static str, String)> {
    let redis = env.redis_config();
    let defaults = [
        ("PORT", "0".to_owned()),
        ("DATABASE_URL", env.database_url().to_owned()),
        ("DB_POOL_MIN", "0".to_owned()),
        ("DB_POOL_MAX", "8".to_owned()),
        ("REDIS_URL", redis.url.expose_secret().to_owned()),
        ("REDIS_KEY_PREFIX", redis.prefix.clone()),
        ("JWT_SECRET", JWT_SECRET.to_owned()),
        ("INTERNAL_SERVICE_KEY", SERVICE_KEY.to_owned()),
        ("OPENROUTER_BASE_URL", simulator.base_url()),
        ("RATE_LIMIT_UNAUTHENTICATED_PER_MINUTE", "100000".to_owned()),
        ("RATE_LIMIT_MESSAGES_PER_HOUR", "10000".to_owned()),
        ("RATE_LIMIT_CONVERSATIONS_PER_DAY", "10000".to_owned()),
    ];
    let given = settings.iter().map(|(name, value)| (*name, value.clone()));
    defaults.into_iter().chain(given).collect()
}

fn config(env: &TestEnv, simulator: &Simulator, settings: &[(&'static str, String)]) -> Config {
    let mut vars = Vars::from_map(environment(env, simulator, settings));
    let config = Config::from_vars(&mut vars);
    vars.finish().unwrap();
    config
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}
