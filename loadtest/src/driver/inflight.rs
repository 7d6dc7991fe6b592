//! `inflight`: the worker's memory with many generations in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::http::Connection;
use super::measure::{Counters, bump, progress, read};
use super::messages::Messages;
use super::options::{Arrivals, Common, Inflight, Load};
use super::pace::{Pacer, schedule};
use super::process::{Memory, megabytes, memory};
use super::report::Report;
use super::simulator_log::SimulatorLog;
use super::world::World;

/// How often the memory and the simulator are looked at.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) async fn run(common: &Common, options: &Inflight) -> anyhow::Result<Report> {
    let mut simulator = SimulatorLog::connect(common).await?;
    let before = memory(options.pid)?;
    let world = Arc::new(World::make(common, options.count).await?);
    let messages = Arc::new(Messages::new(common, &options.marker));
    let counters: Arc<Counters> = Arc::default();
    let load = Load {
        rate: options.rate,
        seconds: options.seconds,
        arrivals: Arrivals::Even,
        closed: None,
        most: options.count,
        warm_up: 0,
    };
    let pacer = Arc::new(Pacer::start(schedule(&load, common.seed))?);
    let mut senders = JoinSet::new();
    for _ in 0..common.connections {
        let (world, messages) = (Arc::clone(&world), Arc::clone(&messages));
        let (counters, pacer) = (Arc::clone(&counters), Arc::clone(&pacer));
        senders.spawn(async move {
            let mut connection = Connection::new(world.target.clone());
            while let Some((number, _)) = pacer.next().await {
                let conversation = &world.conversations[number % world.conversations.len()];
                bump(&counters.sent);
                match messages.post(&mut connection, conversation, number).await {
                    Ok(_) => _ = bump(&counters.accepted),
                    Err(what) => counters.fail(what),
                }
            }
        });
    }

    let shown = Arc::new(std::sync::Mutex::new(String::new()));
    let line = Arc::clone(&shown);
    let _progress = progress(common.quiet, move || {
        line.lock()
            .map_or_else(|_| String::new(), |line| line.clone())
    });
    let end = Instant::now() + Duration::from_secs(u64::from(options.seconds));
    let (mut most, mut at_most, mut peak) = (0, before, before);
    let mut enough = None;
    while Instant::now() < end && enough.is_none_or(|enough| Instant::now() < enough) {
        tokio::time::sleep(LOOK).await;
        let in_flight = simulator.stats().await?.in_flight;
        let now = memory(options.pid)?;
        if in_flight >= most {
            (most, at_most) = (in_flight, now);
        }
        if let Some(hold) = options
            .hold
            .filter(|_| in_flight >= u64::from(options.count))
        {
            enough.get_or_insert_with(|| Instant::now() + Duration::from_secs(u64::from(hold)));
        }
        if now.now_kib >= peak.now_kib {
            peak = now;
        }
        if let Ok(mut line) = shown.lock() {
            *line = format!(
                "accepted {}  failed {}  in flight {in_flight}  worker {}",
                read(&counters.accepted),
                read(&counters.failed),
                megabytes(now.now_kib)
            );
        }
        let all_sent = read(&counters.sent) >= u64::from(options.count);
        if all_sent && in_flight == 0 {
            break;
        }
    }
    senders.shutdown().await;

    let Memory { peak_kib, .. } = memory(options.pid)?;
    let mut report = Report::new(format!(
        "inflight, {} generations in one worker",
        options.count
    ));
    report.figure("marker", &options.marker);
    report.figure("messages accepted (202)", read(&counters.accepted));
    report.figure("most generations in flight at once", most);
    report.figure("worker's RSS before", megabytes(before.now_kib));
    report.figure(
        "worker's RSS at the most in flight",
        megabytes(at_most.now_kib),
    );
    report.figure("worker's highest RSS seen", megabytes(peak.now_kib));
    report.figure(
        "worker's peak RSS since its start (VmHWM)",
        megabytes(peak_kib),
    );
    if most < u64::from(options.count) {
        report.note(format!(
            "Only {most} of {} were in flight at once: raise WORKER_CONCURRENCY, --rate, or the length of the reply.",
            options.count
        ));
    }
    report.fail(counters.failures());
    Ok(report)
}
