//! `balas-worker admin events dlq`: events of other services that could not be used.

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;

use super::tables::{one_line, table};
use super::{Outcome, Shown};
use crate::inbound::{DeadEvent, DeadEvents, InboundConfig};
use crate::outbound::BrokerConfig;

/// Of a reason and of a body the table shows so many characters.
const SHOWN: usize = 60;
/// AMQP's word for it.
const CLOSED_IN_ORDER: u16 = 200;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The dead-letter queue.
    Dlq {
        #[command(subcommand)]
        what: Dlq,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Dlq {
    /// The first events in it with the reason of each; they stay there.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Give the first events in it to the workers again. What still makes no sense comes back.
    Replay {
        /// At most so many; all that are there now without it.
        #[arg(long)]
        limit: Option<usize>,
    },
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
struct Replayed {
    replayed: usize,
}

pub(super) async fn run(
    command: Command,
    broker: Option<&BrokerConfig>,
    config: &InboundConfig,
    shown: Shown,
) -> anyhow::Result<Outcome> {
    let Command::Dlq { what } = command;
    let broker = broker.context("RABBITMQ_URL is not set")?;
    let (dead, connection) = DeadEvents::connect(broker, config)
        .await
        .context("failed to reach the broker")?;
    let outcome = match what {
        Dlq::List { limit } => {
            let events = dead.list(limit).await?;
            shown.outcome(&events, || listed(&events))
        }
        Dlq::Replay { limit } => {
            let replayed = dead.replay(limit.unwrap_or(usize::MAX)).await?;
            shown.outcome(&Replayed { replayed }, || format!("{replayed} replayed"))
        }
    };
    // What was looked at goes back with the connection, and what was given on is acknowledged before.
    connection
        .close(CLOSED_IN_ORDER, "done".into())
        .await
        .context("the broker went away before it had confirmed everything")?;
    outcome
}

fn listed(events: &[DeadEvent]) -> String {
    if events.is_empty() {
        return "no events".to_owned();
    }
    let mut table = table(
        &["reason", "routing key", "message id", "bytes", "body"],
        3..4,
    );
    for event in events {
        table.add_row([
            one_line(&event.reason, SHOWN),
            event.routing_key.clone(),
            event.message_id.clone().unwrap_or_default(),
            event.bytes.to_string(),
            one_line(&event.body, SHOWN),
        ]);
    }
    table.to_string()
}
