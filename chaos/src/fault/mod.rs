//! The faults: what each is called, what may be seen while it goes on, and how it is done.

mod links;
mod model;
mod processes;
mod receiver;
mod servers;
mod stops;
mod table;

use std::sync::Arc;
use std::time::Duration;

use loadtest::simulator::Simulator;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) use self::table::{Fault, Mark};
use crate::fleet::{APIS, Fleet, WORKERS};
use crate::load::Load;
use crate::proxy::Sprung;
use crate::receiver::{Mood, Receiver};
use crate::schedule::Planned;
use crate::weather::Weather;

/// How a fault went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was done; what happened to whom.
    Done(String),
    /// The moment for it did not come.
    Missed(String),
    /// It cannot be done here.
    Skipped(&'static str),
}

/// Everything that faults are done to.
pub(crate) struct Stage {
    pub(crate) fleet: Fleet,
    pub(crate) load: Arc<Load>,
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) receiver: Receiver,
    pub(crate) weather: Arc<Weather>,
    /// Messages that the faults for crowds send.
    pub(crate) crowd: usize,
    /// Promises that a fault itself has seen broken.
    pub(crate) broken: Vec<String>,
}

/// The random decisions of one fault.
pub(crate) struct Dice(StdRng);

impl Dice {
    fn new(planned: &Planned) -> Self {
        Self(StdRng::seed_from_u64(planned.dice))
    }

    fn worker(&mut self) -> usize {
        self.0.random_range(0..WORKERS)
    }

    fn api(&mut self) -> usize {
        self.0.random_range(0..APIS)
    }

    fn yes(&mut self) -> bool {
        self.0.random()
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.0.random_range(range))
    }

    fn one_of<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.0.random_range(0..options.len())]
    }
}

/// How long a moment is waited for: the load makes most of them many times a second.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until a trap springs and returns the name of the process whose link it was.
async fn sprung(mut sprung: Sprung) -> Option<String> {
    tokio::time::timeout(PATIENCE, sprung.recv())
        .await
        .ok()
        .flatten()
}

impl Stage {
    /// Does a fault, from its beginning until the cause is gone; the links are healed by the caller.
    pub(crate) async fn inflict(&mut self, planned: &Planned) -> anyhow::Result<Outcome> {
        let dice = &mut Dice::new(planned);
        match planned.fault {
            Fault::WorkerKill => self.kill_worker(dice).await,
            Fault::WorkerKillClaimed => self.kill_worker_claimed(dice).await,
            Fault::WorkerKillBeforeFirstToken => self.kill_worker_at(dice, "hold=0").await,
            Fault::WorkerKillMidstream => self.kill_worker_at(dice, "hold=8").await,
            Fault::WorkerKillAnswered => self.kill_worker_answered(dice).await,
            Fault::WorkerKillFinished => self.kill_worker_finished(dice).await,
            Fault::WorkerFreezeShort => self.freeze_worker_short(dice).await,
            Fault::WorkerFreeze => self.freeze_worker(dice).await,
            Fault::WorkerFreezeSweeping => self.freeze_worker_sweeping(dice).await,
            Fault::FleetKill => self.kill_fleet(dice).await,
            Fault::ApiKill => self.kill_api(dice).await,
            Fault::ApiKillBeforeCommit => self.kill_api_before_commit(dice).await,
            Fault::ApiKillAfterCommit => self.kill_api_after_commit(dice).await,
            Fault::ApiKillAfterHint => self.kill_api_after_hint(dice).await,
            Fault::ApiFreeze => self.freeze_api(dice).await,
            Fault::RollWorkers => self.roll_workers().await,
            Fault::RollApis => self.roll_apis().await,
            Fault::RollingRestart => self.roll_everybody().await,
            Fault::DoubleSigterm => self.double_sigterm(dice).await,
            Fault::SigtermRedisDown => self.sigterm_redis_down(dice).await,
            Fault::SigtermPostgresDown => self.sigterm_postgres_down(dice).await,
            Fault::Twins => self.twins(dice).await,
            Fault::RedisKill => self.kill_redis(dice).await,
            Fault::RedisEmpty => self.empty_redis(dice).await,
            Fault::RedisTruncated => self.truncate_redis(dice).await,
            Fault::RedisFlush => self.flush_redis(dice).await,
            Fault::RedisPause => self.pause_redis(dice).await,
            Fault::RedisDown => self.redis_down().await,
            Fault::RedisFull => self.fill_redis(dice).await,
            Fault::PostgresCrash => self.crash_postgres(dice).await,
            Fault::PostgresRestart => self.restart_postgres().await,
            Fault::PostgresDown => self.postgres_down(dice).await,
            Fault::PostgresReadOnly => self.postgres_read_only(dice).await,
            Fault::PostgresFull => self.fill_postgres(dice).await,
            Fault::SlowDatabase => self.slow(dice, links::Which::Database).await,
            Fault::SlowRedis => self.slow(dice, links::Which::Redis).await,
            Fault::SlowModel => self.slow(dice, links::Which::Model).await,
            Fault::CutDatabase => self.cut(dice, links::Which::Database).await,
            Fault::CutRedis => self.cut(dice, links::Which::Redis).await,
            Fault::CutModel => self.cut(dice, links::Which::Model).await,
            Fault::CutClients => self.cut(dice, links::Which::Clients).await,
            Fault::DeafDatabase => self.deafen(dice, links::Which::Database).await,
            Fault::DeafRedis => self.deafen(dice, links::Which::Redis).await,
            Fault::DeafModel => self.deafen(dice, links::Which::Model).await,
            Fault::CommitAmbiguous => self.ambiguous_commits(dice).await,
            Fault::ModelLimits => self.model_rule(dice, "429,retry_after=1").await,
            Fault::ModelFails => self.model_rule(dice, "503").await,
            Fault::ModelHangs => self.model_rule(dice, "hang").await,
            Fault::ModelCuts => self.model_rule(dice, "cut=6").await,
            Fault::ModelGone => self.model_gone(dice).await,
            Fault::ReceiverDown => self.receiver_down(dice).await,
            Fault::ReceiverRefuses => self.receiver_is(dice, Mood::Refusing).await,
            Fault::ReceiverAmbiguous => self.receiver_is(dice, Mood::Ambiguous).await,
            Fault::CutReceiver => self.cut(dice, links::Which::Receiver).await,
            Fault::DeafReceiver => self.deafen(dice, links::Which::Receiver).await,
        }
    }
}
