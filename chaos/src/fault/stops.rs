//! Processes that are asked to stop, whatever else is going on.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Dice, Outcome, Stage};
use crate::fleet::{Process, stop, stop_in_order};

impl Stage {
    fn keep<T>(&mut self, outcome: Result<T, String>) {
        if let Err(broken) = outcome {
            self.broken.push(broken);
        }
    }

    /// A worker and a replica, so that both kinds have to leave.
    fn leaving(&mut self, dice: &mut Dice) -> [&mut Process; 2] {
        let (worker, api) = (dice.worker(), dice.api());
        [
            &mut self.fleet.workers[worker].process,
            &mut self.fleet.apis[api].process,
        ]
    }

    pub(super) async fn roll_everybody(&mut self) -> anyhow::Result<Outcome> {
        // Outlasts every grace, so it is handed over, and again.
        let held = self.held_reply("hold=8").await?;
        for place in 0..self.fleet.workers.len() {
            let process = &mut self.fleet.workers[place].process;
            let mut next = process.sibling();
            process.signal(Signal::SIGTERM);
            // Both have the name until the first has drained.
            next.start()?;
            let ended = stop_in_order(process).await;
            *process = next;
            self.keep(ended);
        }
        for place in 0..self.fleet.apis.len() {
            let process = &mut self.fleet.apis[place].process;
            let ended = stop_in_order(process).await;
            process.start()?;
            self.keep(ended);
            self.fleet.wait_ready().await?;
        }
        let handed = held.map_or("nothing", |_| "a held reply");
        Ok(Outcome::Done(format!(
            "everybody in turn, {handed} handed over"
        )))
    }

    pub(super) async fn double_sigterm(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let held = self.held_reply("hold=8").await?;
        let mut leaving = vec![];
        if let Some((worker, _)) = held {
            leaving.push(&mut self.fleet.workers[worker].process);
        } else {
            leaving.push(&mut self.fleet.workers[0].process);
        }
        let api = dice.api();
        leaving.push(&mut self.fleet.apis[api].process);
        let between = dice.millis(0..1_500);
        let mut broken = vec![];
        let mut names = vec![];
        for process in leaving {
            process.signal(Signal::SIGTERM);
            tokio::time::sleep(between).await;
            broken.extend(stop_in_order(process).await.err());
            process.start()?;
            names.push(process.name().to_owned());
        }
        self.broken.extend(broken);
        Ok(Outcome::Done(format!(
            "{}, {between:?} between the signals",
            names.join(" and ")
        )))
    }

    pub(super) async fn sigterm_redis_down(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        self.fleet.redis.crash().await;
        let away = dice.millis(0..2_000);
        tokio::time::sleep(away).await;
        let mut names = vec![];
        let mut broken = vec![];
        for process in self.leaving(dice) {
            broken.extend(stop_in_order(process).await.err());
            process.start()?;
            names.push(process.name().to_owned());
        }
        self.broken.extend(broken);
        self.fleet.redis.start().await?;
        Ok(Outcome::Done(format!(
            "{}, {away:?} after Redis",
            names.join(" and ")
        )))
    }

    pub(super) async fn sigterm_postgres_down(
        &mut self,
        dice: &mut Dice,
    ) -> anyhow::Result<Outcome> {
        // What is held then cannot be given back.
        self.held_reply("hold=8").await?;
        // Without Postgres everybody is in trouble, and not its worker alone.
        self.weather.about_everybody();
        self.fleet.postgres.crash().await;
        let away = dice.millis(0..2_000);
        tokio::time::sleep(away).await;
        let mut names = vec![];
        let mut broken = vec![];
        for process in self.leaving(dice) {
            match stop(process).await {
                Ok(code) => names.push(format!("{} ({code})", process.name())),
                Err(what) => broken.push(what),
            }
            process.start()?;
        }
        self.broken.extend(broken);
        self.fleet.postgres.start().await?;
        Ok(Outcome::Done(format!(
            "{}, {away:?} after Postgres",
            names.join(" and ")
        )))
    }

    pub(super) async fn twins(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let held = self.held_reply("hold=8").await?;
        let worker = held.map_or_else(|| dice.worker(), |(worker, _)| worker);
        let mut twin = self.fleet.workers[worker].process.sibling();
        let times = dice.one_of(&[2, 3]);
        for _ in 0..times {
            twin.start()?;
            tokio::time::sleep(dice.millis(500..4_000)).await;
            twin.kill().await;
        }
        twin.start()?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let ended = stop_in_order(&mut twin).await;
        self.keep(ended);
        Ok(Outcome::Done(format!("{} and its twin", twin.name())))
    }
}
