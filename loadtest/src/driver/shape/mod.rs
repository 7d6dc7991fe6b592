//! Scenarios that follow a shape over time: what operators run before and after a change, and look
//! at.

mod board;
mod compare;
mod draw;
mod listen;
mod options;
mod page;
mod plan;
mod record;
mod sums;
mod terminal;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::board::{Board, Event, Sent};
use self::listen::{Accepted, Listener};
use self::plan::{Plan, Who};
use super::feed::open_all;
use super::http::Connection;
use super::measure::{Counters, bump};
use super::messages::Messages;
use super::options::Common;
use super::pace::Pacer;
use super::report::Report;
use super::simulator_log::SimulatorLog;
use super::tracker::Ending;
use super::world::{Conversation, World};

pub use compare::{Compare, Comparison, Verdict, compare};
pub use options::Shape;
pub use record::{Bucket, Counts, Curve, FORMAT, Mark, Rate, Record};

/// People when the command line names no number.
const PEOPLE: u32 = 200;

/// WebSockets that are opened at the same time.
const OPENING: usize = 64;

/// Everything of a run that its tasks share.
pub(crate) struct Run {
    plan: Plan,
    people: World,
    neighbour: Option<World>,
    messages: Messages,
    counters: Counters,
    board: Board,
    /// When each 202 came and each end, and each failure: for the rates over time.
    accepted: Mutex<Vec<Instant>>,
    failed: Mutex<Vec<Instant>>,
    /// When each cut socket was missed, and when it was there again.
    returns: Mutex<Vec<(Instant, Instant)>>,
    /// Tries to come back that failed.
    turned_away: AtomicU64,
    /// Latencies of the last moments, for the line of progress.
    recent: Mutex<Vec<Duration>>,
    /// One for each socket: people in order, then the neighbour.
    ears: Vec<mpsc::UnboundedSender<Accepted>>,
    /// Which of the people each conversation belongs to.
    owners: Vec<usize>,
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    list.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(item);
}

fn take<T>(list: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
}

fn plan_of(shape: &Shape) -> Plan {
    match shape {
        Shape::Steady(options) => plan::steady(options),
        Shape::Ramp(options) => plan::ramp(options),
        Shape::Burst(options) => plan::burst(options),
        Shape::ReconnectStorm(options) => plan::reconnect_storm(options),
        Shape::LongStreams(options) => plan::long_streams(options),
        Shape::NoisyNeighbour(options) => plan::noisy_neighbour(options),
    }
}

pub(crate) async fn run(common: &Common, shape: &Shape) -> anyhow::Result<Report> {
    let shared = shape.common();
    let plan = plan_of(shape);
    let marker = match (&shared.marker, shared.real_model) {
        (_, true) => "",
        (Some(marker), _) => marker,
        (None, _) => plan.marker,
    };
    let mut simulator = match shared.real_model {
        true => None,
        false => {
            let mut simulator = SimulatorLog::connect(common).await?;
            // A marker that nobody understands would be found out by every message.
            simulator.model_time(marker).await?;
            Some(simulator)
        }
    };
    let (run, listeners) = prepare(common, shape, plan, marker).await?;
    let (cutter, _) = watch::channel(0);
    let mut ears = listen(&run, listeners, &cutter).await?;
    let progress = terminal::start(common.quiet, Arc::clone(&run));

    let start = Instant::now();
    let began_us = crate::clock::unix_micros();
    let cutting = cut(Arc::clone(&run), start, cutter);
    let (sent, ()) = tokio::join!(send(&run, common, shared.arrivals), cutting);
    let drain = Duration::from_secs(u64::from(shared.drain));
    // What is still missing then is reported as missing.
    let _ = tokio::time::timeout(drain, run.board.wait_for_all()).await;
    drop(progress);
    ears.shutdown().await;

    let repeated = match &mut simulator {
        Some(simulator) => {
            let calls = simulator.calls(&run.messages).await?;
            Some(calls.values().filter(|calls| calls.len() > 1).count())
        }
        None => None,
    };
    let found = sums::Found {
        start: sent?,
        began_us,
        warm_up: f64::from(shared.warm_up),
        within_ms: f64::from(shared.within),
        marker,
        missing: run.board.missing(),
        repeated,
    };
    Ok(sums::report(&run, &found))
}

/// Makes users, conversations and what hears of them.
async fn prepare(
    common: &Common,
    shape: &Shape,
    plan: Plan,
    marker: &str,
) -> anyhow::Result<(Arc<Run>, Vec<mpsc::UnboundedReceiver<Accepted>>)> {
    let people = World::make(common, PEOPLE).await?;
    let neighbour = match shape {
        Shape::NoisyNeighbour(options) => {
            let mut alone = common.clone();
            alone.users = Some(1);
            alone.conversations = options.neighbour_conversations;
            Some(World::make(&alone, 1).await?)
        }
        _ => None,
    };
    let sockets = people.users.len() + usize::from(neighbour.is_some());
    let owner = |conversation: &Conversation| {
        let mut users = people.users.iter();
        users.position(|user| *user == conversation.authorization)
    };
    let owners = people.conversations.iter().filter_map(owner).collect();
    let (ears, listeners) = (0..sockets).map(|_| mpsc::unbounded_channel()).unzip();
    let run = Run {
        board: Board::new(plan.compares_text),
        plan,
        people,
        neighbour,
        messages: Messages::new(common, marker),
        counters: Counters::default(),
        accepted: Mutex::default(),
        failed: Mutex::default(),
        returns: Mutex::default(),
        turned_away: AtomicU64::default(),
        recent: Mutex::default(),
        ears,
        owners,
    };
    Ok((Arc::new(run), listeners))
}

/// Opens one WebSocket per user and has it read.
async fn listen(
    run: &Arc<Run>,
    listeners: Vec<mpsc::UnboundedReceiver<Accepted>>,
    cutter: &watch::Sender<u32>,
) -> anyhow::Result<JoinSet<()>> {
    let users = run
        .people
        .users
        .iter()
        .chain(run.neighbour.iter().flat_map(|neighbour| &neighbour.users));
    let users: Vec<Arc<str>> = users.cloned().collect();
    let feeds = open_all(&run.people.target, &users, OPENING).await?;
    let mut ears = JoinSet::new();
    for ((user, (authorization, feed)), accepted) in
        users.into_iter().zip(feeds).enumerate().zip(listeners)
    {
        let listener = Listener {
            run: Arc::clone(run),
            user,
            authorization,
            accepted,
            cut: cutter.subscribe(),
        };
        ears.spawn(listener.listen(feed));
    }
    Ok(ears)
}

/// Cuts all sockets whenever the plan says so.
async fn cut(run: Arc<Run>, start: Instant, cutter: watch::Sender<u32>) {
    for second in &run.plan.cuts {
        tokio::time::sleep_until((start + Duration::from_secs_f64(*second)).into()).await;
        cutter.send_modify(|cuts| *cuts += 1);
    }
}

/// Sends everything by the plan, and returns when its clock began.
async fn send(
    run: &Arc<Run>,
    common: &Common,
    arrivals: super::options::Arrivals,
) -> anyhow::Result<Instant> {
    let arrivals = Arc::new(run.plan.arrivals(arrivals, common.seed));
    let pacer = Arc::new(Pacer::start(arrivals.iter().map(|(at, _)| *at).collect())?);
    let mut senders = JoinSet::new();
    for _ in 0..common.connections {
        let (run, pacer) = (Arc::clone(run), Arc::clone(&pacer));
        let arrivals = Arc::clone(&arrivals);
        senders.spawn(async move {
            let mut connection = Connection::new(run.people.target.clone());
            while let Some((number, due)) = pacer.next().await {
                run.post(&mut connection, number, arrivals[number].1, due)
                    .await;
            }
        });
    }
    while senders.join_next().await.is_some() {}
    Ok(pacer.started())
}

impl Run {
    async fn post(&self, connection: &mut Connection, number: usize, who: Who, due: Instant) {
        let place = |world: &World| number % world.conversations.len();
        let (conversation, user) = match (who, &self.neighbour) {
            (Who::Neighbour, Some(neighbour)) => (
                &neighbour.conversations[place(neighbour)],
                self.people.users.len(),
            ),
            _ => {
                let place = place(&self.people);
                (&self.people.conversations[place], self.owners[place])
            }
        };
        bump(&self.counters.sent);
        let began = Instant::now();
        match self.messages.post(connection, conversation, number).await {
            Ok(accepted) => {
                let now = Instant::now();
                bump(&self.counters.accepted);
                push(&self.accepted, now);
                let sent = Sent {
                    who,
                    user,
                    due,
                    accepted: now,
                };
                if let Some((ending, at)) = self.board.sent(&accepted.generation, sent) {
                    self.ended(ending, at.saturating_duration_since(due));
                }
                // Its listener lives as long as the run.
                let _ = self.ears[user].send(Accepted {
                    generation: accepted.generation,
                    began,
                });
            }
            // That a limit stops the one who is too loud is what limits are for.
            Err(what) if who == Who::Neighbour => {
                self.counters.note(format!("the neighbour's {what}"))
            }
            Err(what) => {
                push(&self.failed, Instant::now());
                self.counters.fail(what);
            }
        }
    }

    fn hear(&self, event: &Event, at: Instant) {
        if let Some((ending, took)) = self.board.heard(event, at) {
            self.ended(ending, took);
        }
    }

    fn ended(&self, ending: Ending, took: Duration) {
        match ending {
            Ending::Completed => {
                bump(&self.counters.completed);
                push(&self.recent, took);
                return;
            }
            Ending::Failed => self.counters.fail("generation.failed"),
            Ending::Cancelled => self.counters.fail("generation.cancelled"),
        }
        push(&self.failed, Instant::now());
    }

    fn came_back(&self, since: Instant, opened: Instant) {
        push(&self.returns, (since, opened));
    }
}
