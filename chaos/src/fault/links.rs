//! Faults of the connections between a process and what it talks to.

use std::time::Duration;

use super::{Dice, Outcome, Stage};
use crate::fleet::{LEASE, Member};
use crate::proxy::{Condition, Link};

/// Which connection of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Database,
    Redis,
    Model,
    Receiver,
    Clients,
}

const DELAY: Duration = Duration::from_millis(200);
/// How long a link stays slow or cuts.
const TIME: Duration = Duration::from_secs(8);
/// How long ambiguous commits go on.
const AMBIGUOUS_TIME: Duration = Duration::from_secs(20);
const AMBIGUOUS: f64 = 0.05;

impl Which {
    fn of(self, member: &Member) -> Option<&Link> {
        match self {
            Self::Database => Some(&member.database),
            Self::Redis => Some(&member.redis),
            Self::Model => member.upstream.as_ref(),
            Self::Receiver => member.receiver.as_ref(),
            Self::Clients => member.front.as_ref(),
        }
    }
}

impl Stage {
    /// Puts one process's link into a condition for a time, then cuts what is left of it.
    async fn condition(
        &mut self,
        dice: &mut Dice,
        which: Which,
        condition: Condition,
        time: Duration,
    ) -> anyhow::Result<String> {
        let worker = match which {
            Which::Model | Which::Receiver => true,
            Which::Clients => false,
            Which::Database | Which::Redis => dice.yes(),
        };
        let member = if worker {
            &self.fleet.workers[dice.worker()]
        } else {
            &self.fleet.apis[dice.api()]
        };
        let name = member.process.name().to_owned();
        self.weather.about(&name);
        if let Some(link) = which.of(member) {
            link.set(condition);
            if condition.cut_after == Some(0) {
                // What is open breaks as well, at once.
                link.cut();
            }
            tokio::time::sleep(time).await;
            link.set(Condition::default());
        }
        Ok(format!("{name} for {time:?}"))
    }

    pub(super) async fn slow(&mut self, dice: &mut Dice, which: Which) -> anyhow::Result<Outcome> {
        let condition = Condition {
            delay: DELAY,
            ..Condition::default()
        };
        let what = self.condition(dice, which, condition, TIME).await?;
        Ok(Outcome::Done(what))
    }

    pub(super) async fn cut(&mut self, dice: &mut Dice, which: Which) -> anyhow::Result<Outcome> {
        let bytes = match which {
            // Its answers are short.
            Which::Receiver => dice.one_of(&[0, 10, 40, 400]),
            _ => dice.one_of(&[0, 700, 3_000, 20_000]),
        };
        let condition = Condition {
            cut_after: Some(bytes),
            ..Condition::default()
        };
        let what = self.condition(dice, which, condition, TIME).await?;
        Ok(Outcome::Done(format!("{what}, after {bytes} bytes")))
    }

    pub(super) async fn deafen(
        &mut self,
        dice: &mut Dice,
        which: Which,
    ) -> anyhow::Result<Outcome> {
        let condition = Condition {
            deaf: true,
            ..Condition::default()
        };
        let time = LEASE + dice.millis(1_000..5_000);
        let what = self.condition(dice, which, condition, time).await?;
        Ok(Outcome::Done(what))
    }

    pub(super) async fn ambiguous_commits(&mut self, _: &mut Dice) -> anyhow::Result<Outcome> {
        let before = self.fleet.tally.ambiguous();
        self.fleet.set_database_links(Condition {
            ambiguous: AMBIGUOUS,
            ..Condition::default()
        });
        tokio::time::sleep(AMBIGUOUS_TIME).await;
        self.fleet.set_database_links(Condition::default());
        match self.fleet.tally.ambiguous() - before {
            0 => Ok(Outcome::Missed("no commit was cut off".to_owned())),
            count => Ok(Outcome::Done(format!("{count} commits without an answer"))),
        }
    }
}
