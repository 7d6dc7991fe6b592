//! The worker's settings.

use std::net::SocketAddr;
use std::time::Duration;

use platform::PlatformConfig;
use shared::budgets::{AnomalyRules, BudgetsConfig};
use shared::config::Vars;
use shared::redis::RedisConfig;
use shared::store::DbConfig;
use shared::telemetry::LogConfig;
use shared::traces::TracesConfig;

use crate::costs::CostsConfig;
use crate::inbound::InboundConfig;
use crate::knowledge::KnowledgeConfig;
use crate::outbound::NotificationsConfig;
use crate::pacing::PacingConfig;
use crate::support_config::SupportConfig;
use crate::upstream::{Dialect, EmbeddingConfig, UpstreamConfig};

/// What hangs on a dead connection is let go after 10 s, and that is no reason to bark.
const SHORTEST_WATCHDOG: Duration = Duration::from_secs(15);

/// Fewer days are taken for a mistake: what was removed does not come back.
const SHORTEST_RETENTION: u16 = 30;

/// Everything an operator can set about a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Where and how to log.
    pub log: LogConfig,
    /// The database.
    pub db: DbConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// The models' provider.
    pub upstream: UpstreamConfig,
    /// The provider of vectors.
    pub embedding: EmbeddingConfig,
    /// The knowledge base.
    pub knowledge: KnowledgeConfig,
    /// The help desk.
    pub support: SupportConfig,
    /// How this worker claims and keeps work.
    pub queue: QueueConfig,
    /// The limits of the upstream's account.
    pub pacing: PacingConfig,
    /// How costs that come late are asked for.
    pub costs: CostsConfig,
    /// What may be spent.
    pub budgets: BudgetsConfig,
    /// What counts as far above the usual.
    pub anomalies: AnomalyRules,
    /// The model that summarises what prompts have no room for; none where nobody does.
    pub summary_model: Option<String>,
    /// Tokens of history that a prompt may hold.
    pub history_tokens: u32,
    /// Where events of other services come from.
    pub inbound: InboundConfig,
    /// The platform's other services.
    pub platform: PlatformConfig,
    /// Where notifications go.
    pub notifications: NotificationsConfig,
    /// Days after which what people wrote is removed; 0 is never.
    pub retention_days: u16,
    /// Days after which lines of the trail go; 0 is never.
    pub audit_retention_days: u16,
    /// Whether `/metrics` answers there.
    pub enable_metrics: bool,
    /// Where spans go.
    pub traces: TracesConfig,
    /// Where probes and scrapers ask; nowhere unless set.
    pub health_address: Option<SocketAddr>,
    /// How long a part may make no progress before the worker ends itself; zero is for ever.
    pub watchdog: Duration,
}

/// How a worker claims and keeps work.
#[derive(Clone, Debug)]
pub struct QueueConfig {
    /// Stays the same over restarts, so that a booting worker can free what its predecessor held.
    pub name: String,
    /// Generations at a time.
    pub concurrency: u32,
    /// Percent of them that standard and background work may take together.
    pub standard_share: u32,
    /// Percent of them that background work may take.
    pub background_share: u32,
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// How often claims are renewed.
    pub renew_every: Duration,
    /// How long running generations may go on after SIGTERM.
    pub drain_grace: Duration,
    /// How long one wait for the lists may block.
    pub block: Duration,
    /// How often the sweeps run.
    pub reconcile_every: Duration,
    /// How long another worker of this name has at the start to say that it lives.
    pub roll_call: Duration,
}

impl WorkerConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let keys = vars.secrets(
            "INTERNAL_SERVICE_KEY",
            "comma-separated; the first is shown to the archive and the auth service",
        );
        let config = Self {
            log: LogConfig::from_vars(vars),
            db: DbConfig::from_vars(vars),
            redis: RedisConfig::from_vars(vars),
            upstream: UpstreamConfig::from_vars(vars),
            embedding: EmbeddingConfig::from_vars(vars),
            knowledge: KnowledgeConfig::from_vars(vars),
            support: SupportConfig::from_vars(vars),
            pacing: PacingConfig::from_vars(vars),
            queue: QueueConfig::from_vars(vars),
            costs: CostsConfig::from_vars(vars),
            budgets: BudgetsConfig::from_vars(vars),
            anomalies: AnomalyRules::from_vars(vars),
            summary_model: summary_model(vars),
            history_tokens: history_tokens(vars),
            notifications: NotificationsConfig::from_vars(vars),
            retention_days: vars.within(
                "RETENTION_DAYS",
                365,
                (0, 36_500),
                "days after which messages, conversations and what was booked for them are removed; 0 is never",
            ),
            audit_retention_days: vars.within(
                "AUDIT_RETENTION_DAYS",
                1_095,
                (0, 36_500),
                "days after which the trail of what operators did is removed; 0 is never",
            ),
            inbound: InboundConfig::from_vars(vars),
            platform: PlatformConfig::from_vars(vars, &keys),
            enable_metrics: vars.flag("ENABLE_METRICS", true, "whether /metrics answers"),
            traces: TracesConfig::from_vars(vars),
            health_address: health_address(vars),
            watchdog: vars.seconds(
                "WATCHDOG_TIMEOUT",
                "30",
                "seconds without progress after which a stuck worker exits with 70; 0 is never",
            ),
        };
        if (1..SHORTEST_RETENTION).contains(&config.retention_days) {
            vars.problem("RETENTION_DAYS", "must be 0 or at least 30");
        }
        if (1..SHORTEST_RETENTION).contains(&config.audit_retention_days) {
            vars.problem("AUDIT_RETENTION_DAYS", "must be 0 or at least 30");
        }
        if !config.watchdog.is_zero() && config.watchdog < SHORTEST_WATCHDOG {
            vars.problem(
                "WATCHDOG_TIMEOUT",
                "must be 0 or at least 15: a database that does not answer is waited for for 10",
            );
        }
        config
    }

    /// Whether the upstream is asked for costs that it did not say. Only OpenRouter has an endpoint for that.
    #[must_use]
    pub fn costs_are_asked(&self) -> bool {
        !self.costs.every.is_zero() && self.upstream.dialect == Dialect::OpenRouter
    }
}

/// Tokens of history that a prompt may hold, `MAX_CONVERSATION_HISTORY_TOKENS`.
pub(crate) fn history_tokens(vars: &mut Vars) -> u32 {
    vars.within(
        "MAX_CONVERSATION_HISTORY_TOKENS",
        6000,
        (100, 1_000_000),
        "tokens of history that a prompt may hold",
    )
}

fn summary_model(vars: &mut Vars) -> Option<String> {
    let name: String = vars.get(
        "SUMMARY_MODEL",
        "meta-llama/llama-3.2-3b-instruct:free",
        "cheap model that summarises what long conversations have no room for in their prompts; a paid one does so \
         for those who may use paid models; none: nobody does, and the oldest turns are left out",
    );
    (name != "none").then_some(name)
}

/// Where probes and scrapers ask, `HEALTH_ADDRESS`.
pub fn health_address(vars: &mut Vars) -> Option<SocketAddr> {
    vars.optional(
        "HEALTH_ADDRESS",
        "address and port for /health/live, /health/ready and /metrics; none unless set",
    )
}

impl QueueConfig {
    /// Within which time what is lost for the second time comes back.
    #[must_use]
    pub fn stagger(&self) -> Duration {
        self.lease / 3
    }

    fn from_vars(vars: &mut Vars) -> Self {
        let default_name = hostname();
        let config = Self {
            name: vars.get::<String>(
                "WORKER_NAME",
                &default_name,
                "name that stays the same over restarts; no slash",
            ),
            concurrency: vars.within(
                "WORKER_CONCURRENCY",
                64,
                (1, 20_000),
                "generations at a time",
            ),
            standard_share: vars.within(
                "STANDARD_SHARE",
                90,
                (1, 100),
                "percent of a worker's places that standard and background work may take; the rest is premium's",
            ),
            background_share: vars.within(
                "BACKGROUND_SHARE",
                50,
                (1, 100),
                "percent of a worker's places that background work may take, of those of standard work",
            ),
            lease: vars.seconds(
                "LEASE_SECONDS",
                "30",
                "how long a claim holds without renewal, seconds",
            ),
            renew_every: vars.seconds(
                "LEASE_RENEW_SECONDS",
                "5",
                "how often claims are renewed, seconds",
            ),
            drain_grace: vars.seconds(
                "DRAIN_GRACE",
                "25",
                "how long running generations may go on after SIGTERM, seconds",
            ),
            block: vars.seconds(
                "QUEUE_BLOCK_SECONDS",
                "1",
                "how long one wait for ready work may block, seconds",
            ),
            reconcile_every: vars.seconds(
                "RECONCILE_SECONDS",
                "1",
                "how often lost work is looked for, seconds",
            ),
            roll_call: vars.seconds(
                "ROLL_CALL_SECONDS",
                "2",
                "how long another worker of this name has at the start to say that it lives, seconds",
            ),
        };
        if config.name.contains('/') {
            vars.problem("WORKER_NAME", "must not contain a slash");
        }
        if config.lease < config.renew_every * 3 {
            vars.problem(
                "LEASE_SECONDS",
                "must be at least three times LEASE_RENEW_SECONDS",
            );
        }
        if config.renew_every.is_zero()
            || config.block.is_zero()
            || config.reconcile_every.is_zero()
        {
            vars.problem("LEASE_RENEW_SECONDS", "no interval may be 0");
        }
        config
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "worker".to_owned(),
        name => name.replace('/', "-"),
    }
}
