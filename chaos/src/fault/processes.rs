//! Faults of our own processes: killed, frozen, replaced.

use std::time::Duration;

use loadtest::simulator::{CallRecord, Outcome as CallOutcome};
use nix::sys::signal::Signal;

use super::{Dice, Outcome, PATIENCE, Stage, sprung};
use crate::fleet::{LEASE, stop_in_order};
use crate::load::Books;
use crate::proxy::postgres::Writes;
use crate::proxy::{Hold, Point, Trap};

/// How long after its death a worker is started again: at once, as a supervisor does; later; when
/// others have taken over.
const AWAY: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(LEASE.as_secs() + 2),
];
/// How long a killed replica of the API is away.
const API_AWAY: Duration = Duration::from_secs(1);

impl Stage {
    /// Kills a worker and starts it again some time later.
    async fn kill_and_restart(
        &mut self,
        dice: &mut Dice,
        worker: usize,
        when: &str,
    ) -> anyhow::Result<Outcome> {
        let away = dice.one_of(&AWAY);
        let process = &mut self.fleet.workers[worker].process;
        process.kill().await;
        tokio::time::sleep(away).await;
        process.start()?;
        let name = process.name();
        Ok(Outcome::Done(format!("{name} {when}, away for {away:?}")))
    }

    pub(super) async fn kill_worker(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let worker = dice.worker();
        self.kill_and_restart(dice, worker, "at any moment").await
    }

    pub(super) async fn kill_worker_claimed(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let commit = Point::Commit(Writes::CLAIM);
        self.kill_worker_trapped(
            dice,
            commit,
            Hold::Answer,
            "with a claim it does not know of",
        )
        .await
    }

    pub(super) async fn kill_worker_answered(
        &mut self,
        dice: &mut Dice,
    ) -> anyhow::Result<Outcome> {
        let commit = Point::Commit(Writes::FINISH);
        self.kill_worker_trapped(
            dice,
            commit,
            Hold::Request,
            "with a reply it had not stored",
        )
        .await
    }

    pub(super) async fn kill_worker_finished(
        &mut self,
        dice: &mut Dice,
    ) -> anyhow::Result<Outcome> {
        let commit = Point::Commit(Writes::FINISH);
        self.kill_worker_trapped(
            dice,
            commit,
            Hold::Answer,
            "with a reply it had not published",
        )
        .await
    }

    async fn kill_worker_trapped(
        &mut self,
        dice: &mut Dice,
        point: Point,
        hold: Hold,
        when: &str,
    ) -> anyhow::Result<Outcome> {
        let Some(worker) = self.trap_worker(point, hold).await else {
            return Ok(Outcome::Missed("no worker came by".to_owned()));
        };
        self.kill_and_restart(dice, worker, when).await
    }

    /// Stops the database connection of whichever worker first comes to this point.
    async fn trap_worker(&mut self, point: Point, hold: Hold) -> Option<usize> {
        let (trap, told) = Trap::new(point, hold);
        for worker in &self.fleet.workers {
            worker.database.arm(trap.clone());
        }
        let name = sprung(told).await?;
        self.weather.about(&name);
        self.fleet.worker_named(&name)
    }

    /// Kills whoever makes a reply that the model holds back as `marker` says.
    pub(super) async fn kill_worker_at(
        &mut self,
        dice: &mut Dice,
        marker: &str,
    ) -> anyhow::Result<Outcome> {
        let Some((worker, _)) = self.held_reply(marker).await? else {
            return Ok(Outcome::Missed("the model was not asked".to_owned()));
        };
        self.kill_and_restart(dice, worker, &format!("at {marker}"))
            .await
    }

    /// Has a reply made that stands still, once, at the point that `marker` says; returns the worker
    /// that makes it, and the message's number.
    pub(super) async fn held_reply(
        &mut self,
        marker: &str,
    ) -> anyhow::Result<Option<(usize, usize)>> {
        let number = self
            .load
            .probe(&format!("[[sim:{marker},times=1]]"))
            .await?;
        let tokens: u32 = marker
            .split_once('=')
            .and_then(|(_, tokens)| tokens.parse().ok())
            .unwrap_or(0);
        let held = |call: &CallRecord| {
            Books::number(&call.last_user_message) == Some(number)
                && call.outcome == CallOutcome::InProgress
                && call.status == 200
                && call.tokens_sent >= tokens
        };
        let call = tokio::time::timeout(PATIENCE, self.simulator.wait_for_call(held)).await;
        let worker = call
            .ok()
            .and_then(|call| self.fleet.worker_named(&call.key));
        if let Some(worker) = worker {
            self.weather
                .about(self.fleet.workers[worker].process.name());
        }
        Ok(worker.map(|worker| (worker, number)))
    }

    pub(super) async fn freeze_worker_short(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let worker = dice.worker();
        self.weather
            .about(self.fleet.workers[worker].process.name());
        self.freeze(worker, LEASE / 2).await
    }

    pub(super) async fn freeze_worker(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let Some((worker, _)) = self.held_reply("hold=8").await? else {
            return Ok(Outcome::Missed("the model was not asked".to_owned()));
        };
        let time = dice.one_of(&[LEASE + Duration::from_secs(1), LEASE * 2]);
        let outcome = self.freeze(worker, time).await;
        // The rest of the reply comes when the frozen worker wakes up, too late to be stored.
        self.simulator.release();
        outcome
    }

    pub(super) async fn freeze_worker_sweeping(
        &mut self,
        dice: &mut Dice,
    ) -> anyhow::Result<Outcome> {
        // Something must be lost for the sweeps to be missed: the leases of a second worker.
        let Some(worker) = self
            .trap_worker(Point::Commit(Writes::SWEEP), Hold::Request)
            .await
        else {
            return Ok(Outcome::Missed("no worker swept".to_owned()));
        };
        let workers = self.fleet.workers.len();
        let other = (worker + 1 + usize::from(dice.yes())) % workers;
        let other = if other == worker {
            (worker + 1) % workers
        } else {
            other
        };
        self.fleet.workers[other].process.kill().await;
        let outcome = self
            .freeze(worker, LEASE * 2 + Duration::from_secs(4))
            .await;
        self.fleet.workers[other].process.start()?;
        outcome
    }

    async fn freeze(&mut self, worker: usize, time: Duration) -> anyhow::Result<Outcome> {
        let process = &self.fleet.workers[worker].process;
        process.signal(Signal::SIGSTOP);
        tokio::time::sleep(time).await;
        process.signal(Signal::SIGCONT);
        let name = process.name();
        Ok(Outcome::Done(format!("{name} stood still for {time:?}")))
    }

    pub(super) async fn kill_fleet(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let in_flight = self.gather_crowd().await?;
        for worker in &mut self.fleet.workers {
            worker.process.signal(Signal::SIGKILL);
        }
        for worker in &mut self.fleet.workers {
            worker.process.kill().await;
        }
        tokio::time::sleep(dice.millis(0..1_500)).await;
        for worker in &mut self.fleet.workers {
            worker.process.start()?;
        }
        Ok(Outcome::Done(format!(
            "all workers, {in_flight} replies in flight"
        )))
    }

    /// Sends a crowd of messages whose replies stand still after some words, the first time they are
    /// made, until the simulator releases them. Returns how many calls are in flight then.
    pub(crate) async fn gather_crowd(&self) -> anyhow::Result<u64> {
        // The comments keep the workers from giving up.
        let marker = "[[sim:hold=2,processing=1000,times=1]]";
        self.load.burst(self.crowd, marker).await?;
        let crowd = self.crowd as u64;
        let all = self
            .simulator
            .wait_for_stats(|stats| stats.in_flight >= crowd);
        // One that was cancelled, or failed for another reason, is not waited for.
        let _ = tokio::time::timeout(PATIENCE, all).await;
        Ok(self.simulator.stats().in_flight)
    }

    pub(super) async fn kill_api(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let api = dice.api();
        self.kill_api_now(api, "at any moment").await
    }

    async fn kill_api_now(&mut self, api: usize, when: &str) -> anyhow::Result<Outcome> {
        let process = &mut self.fleet.apis[api].process;
        process.kill().await;
        tokio::time::sleep(API_AWAY).await;
        process.start()?;
        Ok(Outcome::Done(format!("{} {when}", process.name())))
    }

    pub(super) async fn kill_api_before_commit(
        &mut self,
        dice: &mut Dice,
    ) -> anyhow::Result<Outcome> {
        self.kill_api_trapped(dice, Hold::Request, "before the commit")
            .await
    }

    pub(super) async fn kill_api_after_commit(
        &mut self,
        dice: &mut Dice,
    ) -> anyhow::Result<Outcome> {
        self.kill_api_trapped(dice, Hold::Answer, "after the commit")
            .await
    }

    async fn kill_api_trapped(
        &mut self,
        dice: &mut Dice,
        hold: Hold,
        when: &str,
    ) -> anyhow::Result<Outcome> {
        let api = dice.api();
        let (trap, told) = Trap::new(Point::Commit(Writes::ACCEPT), hold);
        self.fleet.apis[api].database.arm(trap);
        if sprung(told).await.is_none() {
            return Ok(Outcome::Missed("no message was accepted".to_owned()));
        }
        self.kill_api_now(api, when).await
    }

    pub(super) async fn kill_api_after_hint(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let api = dice.api();
        let (trap, told) = Trap::new(Point::Post, Hold::Answer);
        if let Some(front) = &self.fleet.apis[api].front {
            front.arm(trap);
        }
        if sprung(told).await.is_none() {
            return Ok(Outcome::Missed("no message was posted".to_owned()));
        }
        self.kill_api_now(api, "before its client heard of it")
            .await
    }

    pub(super) async fn freeze_api(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let api = dice.api();
        // Its transaction is open, so the conversation is locked.
        let (trap, told) = Trap::new(Point::Commit(Writes::ACCEPT), Hold::Request);
        self.fleet.apis[api].database.arm(trap);
        if sprung(told).await.is_none() {
            return Ok(Outcome::Missed("no message was accepted".to_owned()));
        }
        let time = dice.millis(3_000..9_000);
        let process = &self.fleet.apis[api].process;
        process.signal(Signal::SIGSTOP);
        tokio::time::sleep(time).await;
        process.signal(Signal::SIGCONT);
        Ok(Outcome::Done(format!(
            "{} stood still for {time:?}",
            process.name()
        )))
    }

    pub(super) async fn roll_workers(&mut self) -> anyhow::Result<Outcome> {
        // Outlasts every grace, so it is handed over, and again.
        let held = self.held_reply("hold=8").await?;
        for worker in &mut self.fleet.workers {
            if let Err(broken) = stop_in_order(&mut worker.process).await {
                self.broken.push(broken);
            }
            worker.process.start()?;
        }
        let handed = held.map_or("nothing", |_| "a held reply");
        Ok(Outcome::Done(format!(
            "all workers in turn, {handed} handed over"
        )))
    }

    pub(super) async fn roll_apis(&mut self) -> anyhow::Result<Outcome> {
        for place in 0..self.fleet.apis.len() {
            let process = &mut self.fleet.apis[place].process;
            if let Err(broken) = stop_in_order(process).await {
                self.broken.push(broken);
            }
            process.start()?;
            self.fleet.wait_ready().await?;
        }
        Ok(Outcome::Done("both replicas in turn".to_owned()))
    }
}
