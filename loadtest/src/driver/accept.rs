//! `accept`: how fast messages are accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::http::Connection;
use super::measure::{Counters, Latencies, bump, counts, progress, read};
use super::messages::Messages;
use super::options::{Accept, Common, Load};
use super::pace::{Pacer, schedule};
use super::report::Report;
use super::world::World;

/// Users when the command line names no number.
const USERS: u32 = 200;

struct Run {
    world: World,
    messages: Messages,
    counters: Arc<Counters>,
    latencies: Arc<Latencies>,
}

pub(crate) async fn run(common: &Common, options: &Accept) -> anyhow::Result<Report> {
    let load = &options.load;
    let run = Arc::new(Run {
        world: World::make(common, USERS).await?,
        messages: Messages::new(common, ""),
        counters: Arc::default(),
        latencies: Arc::new(Latencies::new()),
    });
    let _progress = progress(common.quiet, counts(&run.counters, &run.latencies));
    let start = Instant::now();
    let mut report = match load.closed {
        Some(clients) => {
            closed(&run, load, clients).await;
            Report::new(format!(
                "accept, closed loop, {clients} clients for {} s",
                load.seconds
            ))
        }
        None => {
            open(&run, common, load).await?;
            Report::new(format!(
                "accept, {} messages/s for {} s ({:?} arrivals)",
                load.rate, load.seconds, load.arrivals
            ))
        }
    };
    let elapsed = start.elapsed().as_secs_f64();
    let accepted = read(&run.counters.accepted);
    report.figure(
        "users × conversations",
        format!("{} × {}", run.world.users.len(), common.conversations),
    );
    report.figure("messages sent", read(&run.counters.sent));
    report.figure("messages accepted (202)", accepted);
    report.figure(
        "accepted per second",
        format!("{:.0}", accepted as f64 / elapsed),
    );
    let name = if load.closed.is_some() {
        "POST to 202"
    } else {
        "POST to 202, from the intended time"
    };
    report.latency(name, run.latencies.summary());
    report.fail(run.counters.failures());
    Ok(report)
}

async fn open(run: &Arc<Run>, common: &Common, load: &Load) -> anyhow::Result<()> {
    let pacer = Arc::new(Pacer::start(schedule(load, common.seed))?);
    let mut senders = JoinSet::new();
    for _ in 0..common.connections {
        let (run, pacer, warm_up) = (Arc::clone(run), Arc::clone(&pacer), load.warm_up);
        senders.spawn(async move {
            let mut connection = Connection::new(run.world.target.clone());
            while let Some((number, due)) = pacer.next().await {
                run.send(
                    &mut connection,
                    number,
                    due,
                    pacer.is_measured(due, warm_up),
                )
                .await;
            }
        });
    }
    while senders.join_next().await.is_some() {}
    Ok(())
}

async fn closed(run: &Arc<Run>, load: &Load, clients: u32) {
    let start = Instant::now();
    let warm = start + Duration::from_secs(u64::from(load.warm_up));
    let end = warm + Duration::from_secs(u64::from(load.seconds));
    let next = Arc::new(AtomicUsize::new(0));
    let most = usize::try_from(load.most).unwrap_or(usize::MAX);
    let mut senders = JoinSet::new();
    for _ in 0..clients {
        let (run, next) = (Arc::clone(run), Arc::clone(&next));
        senders.spawn(async move {
            let mut connection = Connection::new(run.world.target.clone());
            while Instant::now() < end {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= most {
                    break;
                }
                let now = Instant::now();
                run.send(&mut connection, number, now, now >= warm).await;
            }
        });
    }
    while senders.join_next().await.is_some() {}
}

impl Run {
    async fn send(&self, connection: &mut Connection, number: usize, due: Instant, measured: bool) {
        let conversations = &self.world.conversations;
        let conversation = &conversations[number % conversations.len()];
        bump(&self.counters.sent);
        match self.messages.post(connection, conversation, number).await {
            Ok(_) => {
                bump(&self.counters.accepted);
                if measured {
                    self.latencies.record(due.elapsed());
                }
            }
            Err(what) => self.counters.fail(what),
        }
    }
}
