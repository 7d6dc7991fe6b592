//! `balas-worker admin … notifications`: what the notification service did not get.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use shared::domain::{DeadNotification, DeadNotificationCount, DeadReason, Destination, timestamp};
use shared::operator::{Fate, MOST_AT_ONCE, Notifications, Operator};
use shared::store::audit::Actor;
use shared::store::notifications::{Filter, Which};
use uuid::Uuid;

use super::tables::{NOTHING, one_line, span, table};
use super::{Outcome, Shown};

/// Of what went wrong, the table shows so many characters.
const LAST_ERROR: usize = 70;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Notifications that were given up and wait for an operator, newest first.
    #[command(name = "dead-notifications")]
    List {
        /// Only those that this destination did not get: http or amqp.
        #[arg(long)]
        destination: Option<Destination>,
        /// Only those that were given up for this reason.
        #[arg(long)]
        reason: Option<DeadReason>,
        /// Only this person's.
        #[arg(long)]
        user: Option<Uuid>,
        /// Only those older than this one.
        #[arg(long)]
        before: Option<Uuid>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=MOST_AT_ONCE))]
        limit: i64,
    },
    /// Try dead notifications for another day, oldest first.
    #[command(name = "replay-notifications")]
    Replay(Meant),
    /// Forget dead notifications.
    #[command(name = "discard-notifications")]
    Discard(Meant),
}

#[derive(Debug, Args)]
pub(super) struct Meant {
    /// These notifications.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<Uuid>,
    /// All that are dead.
    #[arg(long)]
    all: bool,
    /// Of them only what this destination did not get.
    #[arg(long)]
    destination: Option<Destination>,
    /// Of them only what was given up for this reason.
    #[arg(long)]
    reason: Option<DeadReason>,
}

/// What became of one notification, as JSON.
#[derive(Debug, Serialize)]
struct One {
    dead_notification_id: Uuid,
    destinations: Vec<Destination>,
}

pub(super) async fn run(
    command: Command,
    operator: &Operator,
    actor: &Actor,
    shown: Shown,
) -> anyhow::Result<Outcome> {
    match command {
        Command::List {
            destination,
            reason,
            user,
            before,
            limit,
        } => {
            let filter = Filter {
                destination,
                reason,
                user_id: user,
                before,
                limit,
            };
            let (dead, has_more, counts) = operator.dead_notifications(&filter).await?;
            shown.outcome(&dead, || listed(&dead, has_more, &counts))
        }
        Command::Replay(meant) => settle(meant, Fate::Replay, operator, actor, shown).await,
        Command::Discard(meant) => settle(meant, Fate::Discard, operator, actor, shown).await,
    }
}

async fn settle(
    meant: Meant,
    fate: Fate,
    operator: &Operator,
    actor: &Actor,
    shown: Shown,
) -> anyhow::Result<Outcome> {
    let notifications = if meant.all {
        Notifications::All
    } else {
        Notifications::Ids(meant.ids)
    };
    let which = Which {
        destination: meant.destination,
        reason: meant.reason,
    };
    let settled = operator
        .settle_notifications(&notifications, which, fate, actor)
        .await?;
    let all: Vec<One> = settled
        .into_iter()
        .map(|(dead_notification_id, destinations)| One {
            dead_notification_id,
            destinations,
        })
        .collect();
    let mut outcome = shown.outcome(&all, || outcomes(&all, fate))?;
    if all.iter().any(|one| one.destinations.is_empty()) {
        outcome.code = ExitCode::FAILURE;
    }
    Ok(outcome)
}

fn listed(dead: &[DeadNotification], has_more: bool, counts: &[DeadNotificationCount]) -> String {
    let all: i64 = counts.iter().map(|count| count.count).sum();
    let sorts: Vec<String> = counts
        .iter()
        .map(|count| format!("{} {} {}", count.count, count.destination, count.reason))
        .collect();
    let summary = match all {
        0 => "no dead notifications".to_owned(),
        all => format!("{all} in all: {}", sorts.join(", ")),
    };
    if dead.is_empty() {
        return summary;
    }
    let heads = [
        "NOTIFICATION",
        "DESTINATION",
        "AGE",
        "TRIES",
        "REASON",
        "TYPE",
        "USER",
        "LAST ERROR",
    ];
    let mut table = table(&heads, 2..4);
    for one in dead {
        for delivery in &one.deliveries {
            table.add_row([
                one.id.to_string(),
                delivery.destination.to_string(),
                span(delivery.age_seconds as f64),
                delivery.attempts.to_string(),
                delivery.reason.to_string(),
                one.kind.to_string(),
                one.user_id.to_string(),
                one_line(
                    delivery.last_error.as_deref().unwrap_or(NOTHING),
                    LAST_ERROR,
                ),
            ]);
        }
    }
    let more = match dead.last() {
        Some(last) if has_more => format!(
            "\nmore with --before {} (of {})",
            last.id,
            timestamp::format(last.occurred_at)
        ),
        _ => String::new(),
    };
    format!("{}\n\n{summary}{more}", table.trim_fmt())
}

fn outcomes(all: &[One], fate: Fate) -> String {
    let done = match fate {
        Fate::Replay => "replayed",
        Fate::Discard => "discarded",
    };
    let mut table = table(&["NOTIFICATION", "OUTCOME"], 0..0);
    for one in all {
        let names: Vec<&str> = one
            .destinations
            .iter()
            .map(|destination| destination.as_str())
            .collect();
        let outcome = match names.as_slice() {
            [] => "left alone: it is not dead".to_owned(),
            names => format!("{done} at {}", names.join(" and ")),
        };
        table.add_row([one.dead_notification_id.to_string(), outcome]);
    }
    let left = all.iter().filter(|one| one.destinations.is_empty()).count();
    let summary = format!("{done} {}, left alone {left}", all.len() - left);
    match all.len() {
        0 => summary,
        _ => format!("{}\n\n{summary}", table.trim_fmt()),
    }
}
