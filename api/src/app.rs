//! The application: its state, its routes and the layers around them.

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::{from_fn, from_fn_with_state};
use platform::Platform;
use shared::budgets::Reckoning;
use shared::figures::Figures;
use shared::knowledge::Vocabularies;
use shared::lifecycle::Lifecycle;
use shared::models::{ModelsConfig, Prices};
use shared::operator::Operator;
use shared::push::Hub;
use shared::redis::Redis;
use shared::store::{Db, History};
use shared::vitals;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::backlog::{self, Backlog};
use crate::figures::{self, Remembered};
use crate::gate::Gate;
use crate::probes::Probes;
use crate::streams::Streams;
use crate::{activity, error, middleware, routes};

/// Feeds that may read what they missed at the same time.
const CATCHING_UP: usize = 4;

/// What handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState(Arc<Parts>);

/// What an [`AppState`] holds.
#[derive(Debug)]
pub struct Parts {
    /// Configuration, clock, credentials.
    pub gate: Gate,
    /// The truth.
    pub db: Db,
    /// The same, for reading what was.
    pub history: History,
    /// Hints, copies and limits.
    pub redis: Redis,
    /// Live events.
    pub hub: Hub,
    /// Which models may be used.
    pub models: ModelsConfig,
    /// The process's tasks and end.
    pub lifecycle: Lifecycle,
    /// Cancelled when sockets and streams should reconnect elsewhere.
    pub closing: CancellationToken,
    /// Turns for feeds that have to read what they missed. When Redis comes back every feed of the
    /// process wants to at once, and requests need connections to the database meanwhile.
    pub catching_up: Semaphore,
    /// Open streams by user.
    pub streams: Streams,
    /// What operators do.
    pub operator: Operator,
    /// What is counted for the whole fleet.
    pub figures: Arc<Figures>,
    /// The figures that were told last.
    pub stats: Remembered,
    /// How long the queues are.
    pub backlog: Arc<Backlog>,
    /// Asks the platform's other services.
    pub platform: Platform,
    /// The words of the knowledge base.
    pub vocabularies: Vocabularies,
    /// Asks the upstream for a sign of life.
    pub upstream: reqwest::Client,
    /// What health checks remember.
    pub probes: Probes,
}

impl AppState {
    /// Puts the parts together and starts the hub and the watch over queues and servers as tasks of
    /// `lifecycle`. `view` is the database as operators see it.
    ///
    /// # Errors
    /// When the HTTP client for health checks cannot be made.
    pub fn new(
        gate: Gate,
        models: ModelsConfig,
        db: Db,
        history: History,
        view: Db,
        redis: Redis,
        lifecycle: Lifecycle,
    ) -> Result<Self, reqwest::Error> {
        let (hub, connected) = Hub::new(redis.clone());
        let closing = CancellationToken::new();
        let closed = closing.clone();
        lifecycle.run("push hub", async move {
            tokio::select! {
                () = connected => {}
                () = closed.cancelled() => {}
            }
        });
        let operator = Operator {
            view,
            people: db.clone(),
            redis: redis.clone(),
            models: models.clone(),
            reckoning: Reckoning {
                config: gate.config.budgets,
                history_tokens: gate.config.history_tokens,
                prices: Prices::default(),
            },
            clock: gate.clock.clone(),
        };
        if gate.config.budgets.is_on() {
            let prices = operator.reckoning.prices.clone().watch(redis.clone());
            let closed = closing.clone();
            lifecycle.run("prices", async move {
                closed.run_until_cancelled(prices).await;
            });
        }
        let backlog = Arc::new(Backlog::new(gate.config.limits.max_queue_depth));
        let watching = backlog::watch(operator.clone(), Arc::clone(&backlog));
        let closed = closing.clone();
        lifecycle.run("backlog", async move {
            closed.run_until_cancelled(watching).await;
        });
        let measured = history.clone();
        let shown = futures::future::join3(
            vitals::watch(db.clone(), redis.clone()),
            activity::watch(operator.clone()),
            async move { measured.watch().await },
        );
        let closed = closing.clone();
        lifecycle.run("vitals", async move {
            closed.run_until_cancelled(shown).await;
        });
        let figures = Arc::new(Figures::default());
        let adding = figures::add_until(operator.clone(), Arc::clone(&figures), closing.clone());
        lifecycle.run("figures", adding);
        // Several parts of one process may do this; the first one wins and all are the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let upstream = reqwest::Client::builder()
            .timeout(std::time::Duration::from_secs(5))
            .build()?;
        let platform = Platform::new(&gate.config.platform)?;
        let streams = Streams::new(gate.config.limits.streams_per_user);
        Ok(Self(Arc::new(Parts {
            gate,
            db,
            history,
            redis,
            hub,
            models,
            lifecycle,
            closing,
            catching_up: Semaphore::new(CATCHING_UP),
            streams,
            operator,
            figures,
            stats: Remembered::default(),
            backlog,
            platform,
            vocabularies: Vocabularies::default(),
            upstream,
            probes: Probes::default(),
        })))
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<AppState> for Gate {
    fn from_ref(state: &AppState) -> Self {
        state.gate.clone()
    }
}

/// The whole router.
pub fn build(state: AppState) -> Router {
    let (api, _) = routes::table().split_for_parts();
    layers(api.merge(routes::files(&state)), &state).with_state(state)
}

/// Every layer, innermost first: the last one sees a request first.
pub fn layers(router: Router<AppState>, state: &AppState) -> Router<AppState> {
    let gate = state.gate.clone();
    router
        .layer(from_fn_with_state(state.clone(), middleware::allowance))
        .layer(from_fn_with_state(
            state.clone(),
            middleware::slow_down_strangers,
        ))
        .layer(from_fn_with_state(gate.clone(), middleware::deadline))
        .layer(CatchPanicLayer::custom(middleware::on_panic))
        .layer(from_fn(middleware::heads))
        .layer(from_fn_with_state(
            middleware::Cors::new(&gate.config.server.cors),
            middleware::cors,
        ))
        .layer(from_fn(middleware::security_headers))
        .layer(from_fn(error::problems))
        .layer(from_fn_with_state(gate, middleware::observe))
}
