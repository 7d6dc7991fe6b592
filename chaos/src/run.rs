//! One run: start, warm up, break things, heal, wait, judge.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use loadtest::simulator::{Settings, Simulator};
use nix::sys::signal::Signal;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::check::{self, Baseline, Facts, Verdict};
use crate::fault::{Fault, Stage};
use crate::fleet::{Fleet, Parts, receiver_port, simulator_port};
use crate::load::Load;
use crate::monitor::Monitor;
use crate::receiver::{Mood, Receiver};
use crate::report::{self, Faults};
use crate::schedule::{Planned, schedule};
use crate::weather::Weather;

/// I6: how long the last reply may take once everything is healed. A retry that was put off waits at
/// most a minute.
const DRAIN_WITHIN: Duration = Duration::from_secs(120);
/// A run of at least so many minutes has crowds of thousands.
const LONG: f64 = 10.0;
const CROWD: usize = 2_000;
const SMALL_CROWD: usize = 150;
/// Before memory is measured, so that what was freed is given back.
const SETTLE: Duration = Duration::from_secs(3);
/// Conversations that are read through the API in the end.
const READ: usize = 100;

/// What the run was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) minutes: f64,
    pub(crate) only: Option<Fault>,
    /// Messages of a crowd, where that is not decided by the minutes.
    pub(crate) crowd: Option<usize>,
    pub(crate) api: PathBuf,
    pub(crate) worker: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) children: PathBuf,
    pub(crate) postgres: PathBuf,
    pub(crate) redis: PathBuf,
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    pub(crate) jwt_secret: String,
}

/// Runs until the end or until `stop`. Returns whether every promise was kept; none when stopped.
pub(crate) async fn run(
    options: &Options,
    stop: &CancellationToken,
) -> anyhow::Result<Option<bool>> {
    let port = simulator_port()?;
    let settings = Settings {
        ttft_ms: 80,
        rate: 60.0,
        tokens_min: 10,
        tokens_max: 60,
        chunk: 2,
        // The ledger of calls is complete, or it proves nothing.
        remembered_calls: 10_000_000,
        remembered_bytes: 2 * 1024 * 1024 * 1024,
        ..Settings::default()
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let simulator = Simulator::start_with(address, settings).await;
    let simulator = Arc::new(simulator.context("failed to start the simulator")?);
    let address_of_receiver = SocketAddr::from((Ipv4Addr::LOCALHOST, receiver_port()?));
    let receiver = Receiver::start(address_of_receiver, options.seed).await?;
    let parts = Parts {
        api: &options.api,
        worker: &options.worker,
        logs: &options.logs,
        children: &options.children,
        postgres: (&options.postgres, &options.database_url),
        redis: (&options.redis, &options.redis_url),
        simulator: address,
        receiver: receiver.address(),
        jwt_secret: &options.jwt_secret,
        seed: options.seed,
    };
    let Some(fleet) = stop.run_until_cancelled(Fleet::start(&parts)).await else {
        return Ok(None);
    };
    let fleet = fleet?;
    let load = Load::new(
        fleet.fronts(),
        &options.jwt_secret,
        Arc::clone(&simulator),
        options.seed,
    )?;
    let weather = Arc::<Weather>::default();
    let watching = CancellationToken::new();
    let monitor = Monitor::watch(
        fleet.postgres.url().to_owned(),
        Arc::clone(&weather),
        watching.clone(),
    );
    let mut run = Run {
        stage: Stage {
            fleet,
            load,
            simulator,
            receiver,
            weather,
            crowd: options.crowd.unwrap_or(if options.minutes >= LONG {
                CROWD
            } else {
                SMALL_CROWD
            }),
            broken: Vec::new(),
        },
        monitor,
        faults: Faults::default(),
        began: Instant::now(),
        _watching: watching.drop_guard(),
    };
    let outcome = stop.run_until_cancelled(run.go(options)).await;
    run.stage.fleet.kill().await;
    outcome.transpose()
}

struct Run {
    stage: Stage,
    monitor: Arc<Monitor>,
    faults: Faults,
    began: Instant,
    _watching: DropGuard,
}

impl Run {
    async fn go(&mut self, options: &Options) -> anyhow::Result<bool> {
        report::line(&format!(
            "seed {}, {} minutes; 2 api, 3 workers, Postgres, Redis, the doubles of the model and of the notification service",
            options.seed, options.minutes
        ));
        let baseline = self.warm_up().await?;
        self.stage.receiver.set(Mood::Usual);
        self.stage.load.begin().await?;
        self.began = Instant::now();
        let until = self.began + Duration::from_secs_f64(options.minutes * 60.0);
        for planned in schedule(options.seed, options.only) {
            tokio::time::sleep(planned.pause).await;
            if Instant::now() >= until {
                break;
            }
            self.one(&planned).await?;
        }
        self.stage.receiver.set(Mood::Good);
        report::line("everything is healed; the rest of the work has to be done now");
        let refused = self.stage.load.end().await;
        let drained = self.drain().await;
        self.judge(&baseline, refused, drained).await
    }

    /// Serves a crowd as large as any that comes, and measures what is left of it.
    async fn warm_up(&mut self) -> anyhow::Result<Baseline> {
        let served = self.serve_crowd().await?;
        let baseline = check::measure(&mut self.stage.fleet).await?;
        report::line(&format!(
            "warmed up with {served} replies at the same time; faults begin"
        ));
        Ok(baseline)
    }

    /// Has a crowd in flight at the same time, lets it go, and waits until all is quiet.
    async fn serve_crowd(&mut self) -> anyhow::Result<u64> {
        let served = self.stage.gather_crowd().await?;
        // Seen only once the monitor has looked after the last message.
        let looks = self.monitor.looks();
        while self.monitor.looks() < looks + 2 || !self.monitor.is_quiet() {
            self.pause_and_release().await;
        }
        tokio::time::sleep(SETTLE).await;
        Ok(served)
    }

    /// A reply that was to stand still may begin after everything was released.
    async fn pause_and_release(&self) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.stage.simulator.release();
    }

    async fn one(&mut self, planned: &Planned) -> anyhow::Result<()> {
        let stage = &mut self.stage;
        let (at, began) = (self.began.elapsed(), Instant::now());
        stage.weather.begin(planned.fault);
        let outcome = stage
            .inflict(planned)
            .await
            .with_context(|| format!("{} could not be done", planned.fault.name()))?;
        stage.simulator.release();
        for (name, status) in stage.fleet.heal()? {
            stage.broken.push(format!(
                "{name} ended by itself under {}: {status}",
                planned.fault.name()
            ));
        }
        stage.weather.end();
        self.faults.note(planned.fault, &outcome);
        report::fault(
            at,
            planned.fault,
            &outcome,
            began.elapsed(),
            stage.load.ledger.acknowledged(),
            self.monitor.replies_left(),
        );
        Ok(())
    }

    /// I6: waits until nothing is left to do.
    async fn drain(&self) -> Verdict {
        let began = Instant::now();
        let looks = self.monitor.looks();
        let mut breaches = Vec::new();
        while self.monitor.looks() < looks + 2 || !self.monitor.is_quiet() {
            if began.elapsed() >= DRAIN_WITHIN {
                breaches.push(format!(
                    "{} generations and {} notifications are left after {DRAIN_WITHIN:?}",
                    self.monitor.backlog(),
                    self.monitor.untold()
                ));
                break;
            }
            self.pause_and_release().await;
        }
        Verdict {
            name: "I6",
            promise: "the backlog is worked off",
            counts: format!("nothing left after {:.1} s", began.elapsed().as_secs_f64()),
            breaches,
        }
    }

    async fn judge(
        &mut self,
        baseline: &Baseline,
        refused: Vec<String>,
        drained: Verdict,
    ) -> anyhow::Result<bool> {
        // The streams of what has just ended are still read; new messages come from nobody.
        self.serve_crowd().await?;
        let memory = baseline.judge(&check::measure(&mut self.stage.fleet).await?);
        let stage = &mut self.stage;
        let facts = Facts::read(
            stage.fleet.postgres.url(),
            stage.load.ledger.read(),
            &stage.simulator.calls(),
            stage.receiver.told(),
        )
        .await?;
        let load = Arc::clone(&stage.load);
        let mut verdicts = check::judge(&facts, &stage.weather, refused, |question| {
            load.expected(question)
        });
        verdicts.push(self.leases());
        verdicts.push(drained);
        verdicts.push(check::judge_told(&facts));
        verdicts.push(memory);
        verdicts.push(check::judge_streams(&self.stage.load.streams()));
        verdicts.push(check::judge_logs(&self.stage.load, &facts).await);
        verdicts.push(check::judge_reading(&self.stage.load, &facts, READ).await);
        let answers = self.stage.load.api.answers();
        verdicts.push(check::judge_answers(&answers, &self.stage.weather));
        verdicts.push(self.exits().await);
        verdicts.push(self.faults.judge());
        // I1 to I8 in their order, then the rest.
        verdicts.sort_by_key(|verdict| (!verdict.name.starts_with('I'), verdict.name));
        let tally = &self.stage.fleet.tally;
        report::line(&format!(
            "\ncommits without an answer: {} of unknown fate, {} that took place ({:?}); connections cut by bytes: {}",
            tally.commits_unknown.load(Ordering::Relaxed),
            tally.commits_untold.load(Ordering::Relaxed),
            tally.by_kind(),
            tally.cut.load(Ordering::Relaxed),
        ));
        Ok(report::verdicts(&answers, &verdicts))
    }

    /// I5.
    fn leases(&self) -> Verdict {
        Verdict {
            name: "I5",
            promise: "no claim outlives its lease by more than 2 s",
            counts: format!("looked {} times", self.monitor.looks()),
            breaches: self.monitor.breaches(),
        }
    }

    /// Everybody stops when asked to, and nobody has died of a fault.
    async fn exits(&mut self) -> Verdict {
        let stage = &mut self.stage;
        let mut breaches = std::mem::take(&mut stage.broken);
        for member in stage.fleet.members() {
            member.process.signal(Signal::SIGTERM);
        }
        let mut stopped = 0;
        for member in stage.fleet.members() {
            match crate::fleet::stop_in_order(&mut member.process).await {
                Ok(()) => stopped += 1,
                Err(broken) => breaches.push(broken),
            }
        }
        Verdict {
            name: "exits",
            promise: "processes end only when asked to, and in order",
            counts: format!("{stopped} processes stopped in the end"),
            breaches,
        }
    }
}
