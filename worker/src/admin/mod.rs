//! `balas-worker admin …`: the operator's view from a terminal, where the API is out of reach.

mod events;
mod knowledge;
mod notifications;
mod tables;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use shared::budgets::{BudgetsConfig, Reckoning};
use shared::clock::Clock;
use shared::config::Vars;
use shared::domain::{FailureCode, GenerationKind, Priority};
use shared::models::{Model, ModelsConfig, Prices};
use shared::operator::{MOST_AT_ONCE, Operator, Selection, Settled, Verdict};
use shared::redis::{Redis, RedisConfig};
use shared::store::audit::Actor;
use shared::store::dead_letters::{Filter, Refused};
use shared::store::{Db, DbConfig, ServingRole};
use shared::upstreams;
use uuid::Uuid;

use crate::inbound::InboundConfig;
use crate::outbound::BrokerConfig;
use crate::pacing::open_breakers;

/// What to look at or to do.
#[derive(Debug, Args)]
pub struct Admin {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How the queues are.
    Queues,
    /// Tell the fleet to leave a queue alone.
    Pause {
        /// premium, standard or background.
        queue: Priority,
        /// For whoever finds it paused.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let the fleet take from a queue again.
    Resume {
        /// premium, standard or background.
        queue: Priority,
    },
    /// The workers of the last day.
    Workers,
    /// The models that are left alone because they failed again and again.
    Breakers,
    /// The models' provider as the workers see it: who is left alone, limits, keys, credits.
    Upstreams,
    /// Generations that were given up and wait for an operator, newest first.
    DeadLetters {
        /// Only those with this reason.
        #[arg(long)]
        code: Option<FailureCode>,
        /// Only those that were to make this.
        #[arg(long)]
        kind: Option<GenerationKind>,
        /// Only this person's.
        #[arg(long)]
        user: Option<Uuid>,
        /// Only those accepted before this one.
        #[arg(long)]
        before: Option<Uuid>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=MOST_AT_ONCE))]
        limit: i64,
    },
    /// Try dead letters again, oldest first.
    Replay {
        #[command(flatten)]
        which: Which,
        /// A model to try before those that failed.
        #[arg(long)]
        model: Option<String>,
    },
    /// Take dead letters off the list without another try.
    Discard {
        #[command(flatten)]
        which: Which,
    },
    /// Events of other services.
    Events {
        #[command(subcommand)]
        which: events::Command,
    },
    /// The knowledge base of the help desk.
    Knowledge {
        #[command(subcommand)]
        which: knowledge::Command,
    },
    #[command(flatten)]
    Notifications(notifications::Command),
}

#[derive(Debug, Args)]
struct Which {
    /// These dead letters.
    #[arg(required_unless_present = "code", conflicts_with_all = ["code", "kind", "limit"])]
    ids: Vec<Uuid>,
    /// All that were given up for this reason.
    #[arg(long)]
    code: Option<FailureCode>,
    /// Of them only those that were to make this.
    #[arg(long)]
    kind: Option<GenerationKind>,
    /// At most so many of them.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

/// What an operator's terminal needs to know.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    db: DbConfig,
    operator_db: DbConfig,
    redis: RedisConfig,
    models: ModelsConfig,
    budgets: BudgetsConfig,
    history_tokens: u32,
    broker: Option<BrokerConfig>,
    inbound: InboundConfig,
    actor: String,
}

impl AdminConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let db = DbConfig::from_vars(vars);
        let person: String = vars.get("USER", "somebody", "who is at the terminal, for the trail");
        Self {
            operator_db: db.for_operators(vars),
            db: DbConfig { pool_min: 0, ..db },
            redis: RedisConfig::from_vars(vars),
            models: ModelsConfig::from_vars(vars),
            budgets: BudgetsConfig::from_vars(vars),
            history_tokens: crate::config::history_tokens(vars),
            broker: BrokerConfig::from_vars(vars),
            inbound: InboundConfig::from_vars(vars),
            actor: format!("terminal of {person}").chars().take(200).collect(),
        }
    }
}

/// What is printed and how the process ends.
#[derive(Debug)]
pub struct Outcome {
    /// For the terminal, with its last line's end.
    pub text: String,
    /// A failure when anything was refused.
    pub code: ExitCode,
}

/// What became of many dead letters, as JSON.
#[derive(Debug, Serialize)]
struct SettledMany {
    settled: Vec<(Uuid, Option<Uuid>)>,
    refused: Vec<(Uuid, &'static str)>,
}

/// Looks or acts.
///
/// # Errors
/// When the settings cannot be used or the database fails.
pub async fn run(config: AdminConfig, admin: Admin, clock: Clock) -> anyhow::Result<Outcome> {
    let shown = Shown { json: admin.json };
    if let Command::Events { which } = admin.command {
        return events::run(which, config.broker.as_ref(), &config.inbound, shown).await;
    }
    if let Command::Knowledge { which } = admin.command {
        let db = Db::connect_lazy(&config.db, ServingRole::Worker)
            .context("failed to use DATABASE_URL")?;
        return knowledge::run(which, &db, &clock, shown).await;
    }
    let redis = Redis::connect_lazy(&config.redis).context("failed to use REDIS_URL")?;
    let prices = Prices::default();
    if config.budgets.is_on()
        && let Err(failure) = prices.read(&redis).await
    {
        tracing::debug!(%failure, "listed prices not read");
    }
    let operator = Operator {
        view: Db::connect_lazy(&config.operator_db, ServingRole::Operator)
            .context("failed to use OPERATOR_DATABASE_URL")?,
        people: Db::connect_lazy(&config.db, ServingRole::Worker)
            .context("failed to use DATABASE_URL")?,
        redis,
        models: config.models,
        reckoning: Reckoning {
            config: config.budgets,
            history_tokens: config.history_tokens,
            prices,
        },
        clock,
    };
    let actor = Actor {
        name: config.actor,
        request_id: None,
    };
    match admin.command {
        Command::Events { .. } | Command::Knowledge { .. } => {
            bail!("neither is in the operator's database")
        }
        Command::Queues => shown.queues(&operator).await,
        Command::Pause { queue, reason } => {
            let reason = reason.as_deref();
            if reason.is_some_and(|reason| reason.chars().count() > 500) {
                bail!("a reason has at most 500 characters");
            }
            operator.pause(queue, reason, &actor).await?;
            shown.queues(&operator).await
        }
        Command::Resume { queue } => {
            operator.resume(queue, &actor).await?;
            shown.queues(&operator).await
        }
        Command::Workers => {
            let workers = operator.workers().await?;
            shown.outcome(&workers, || tables::workers(&workers))
        }
        Command::Breakers => {
            let breakers = open_breakers(&operator.redis).await?;
            shown.outcome(&breakers, || tables::breakers(&breakers))
        }
        Command::Upstreams => {
            let known = upstreams::read(&operator.redis).await?;
            shown.outcome(&known, || tables::upstreams(&known))
        }
        Command::DeadLetters {
            code,
            kind,
            user,
            before,
            limit,
        } => {
            let filter = Filter {
                error_code: code,
                kind,
                user_id: user,
                before,
                limit,
            };
            let (letters, has_more, counts) = operator.dead_letters(&filter).await?;
            shown.outcome(&letters, || {
                tables::dead_letters(&letters, has_more, &counts)
            })
        }
        Command::Replay { which, model } => {
            let first = model.as_deref().map(|name| chosen(&operator, name));
            let verdict = Verdict::Replay(first.transpose()?);
            let settled = settle(&operator, which, &verdict, &actor).await?;
            shown.settled(settled, "replayed")
        }
        Command::Discard { which } => {
            let settled = settle(&operator, which, &Verdict::Discard, &actor).await?;
            shown.settled(settled, "discarded")
        }
        Command::Notifications(command) => {
            notifications::run(command, &operator, &actor, shown).await
        }
    }
}

fn chosen(operator: &Operator, name: &str) -> anyhow::Result<Model> {
    operator.model(name).with_context(|| {
        format!(
            "{name:?} is no name of a model, or of one that costs while only free ones are used"
        )
    })
}

/// Page by page, so that any number can be settled.
async fn settle(
    operator: &Operator,
    which: Which,
    verdict: &Verdict,
    actor: &Actor,
) -> anyhow::Result<Settled> {
    let Some(error_code) = which.code else {
        return Ok(operator
            .settle(&Selection::Ids(which.ids), verdict, actor)
            .await?);
    };
    let mut all = Settled::default();
    let mut left = which.limit.unwrap_or(i64::MAX);
    let mut after = None;
    while left > 0 {
        let limit = left.min(MOST_AT_ONCE);
        let selection = Selection::Like {
            error_code,
            kind: which.kind,
            after,
            limit,
        };
        let page = operator.settle(&selection, verdict, actor).await?;
        all.done.extend(page.done);
        all.refused.extend(page.refused);
        left -= limit;
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    Ok(all)
}

/// How answers are shown.
#[derive(Clone, Copy)]
struct Shown {
    json: bool,
}

impl Shown {
    async fn queues(self, operator: &Operator) -> anyhow::Result<Outcome> {
        let queues = operator.queues().await?;
        let now = operator.clock.now();
        self.outcome(&queues, || tables::queues(&queues, now))
    }

    fn settled(self, settled: Settled, done: &str) -> anyhow::Result<Outcome> {
        let many = SettledMany {
            settled: settled.done,
            refused: settled
                .refused
                .iter()
                .map(|(letter, refused)| (*letter, why(*refused)))
                .collect(),
        };
        let mut outcome = self.outcome(&many, || {
            tables::settled(&many.settled, &many.refused, done)
        })?;
        if !many.refused.is_empty() {
            outcome.code = ExitCode::FAILURE;
        }
        Ok(outcome)
    }

    fn outcome(
        self,
        value: &impl Serialize,
        table: impl FnOnce() -> String,
    ) -> anyhow::Result<Outcome> {
        let mut text = if self.json {
            serde_json::to_string_pretty(value)?
        } else {
            table()
        };
        text.push('\n');
        Ok(Outcome {
            text,
            code: ExitCode::SUCCESS,
        })
    }
}

fn why(refused: Refused) -> &'static str {
    match refused {
        Refused::NotFound => "no such dead letter",
        Refused::Settled(Some(_)) => "was replayed before",
        Refused::Settled(None) => "was discarded before",
        Refused::ConversationGone => "its conversation was deleted",
        Refused::BudgetExhausted { .. } => "a budget is used up",
        Refused::Answered => "its message has a reply by now, or one is on its way",
    }
}
