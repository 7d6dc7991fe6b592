//! `chat`: from a message sent to its reply pushed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::estimates::Estimates;
use super::feed::open_all;
use super::http::Connection;
use super::limit;
use super::measure::{Counters, Differences, Latencies, bump, counts, progress, read};
use super::messages::{Accepted, Messages};
use super::options::{Chat, Common, Load};
use super::pace::{Pacer, schedule};
use super::report::Report;
use super::simulator_log::SimulatorLog;
use super::tracker::{Ending, Finished, Posted, Tracker};
use super::world::World;

/// Users when the command line names no number: enough that a conversation rarely has its next
/// message while the reply to the last one is being made.
const USERS: u32 = 500;

/// WebSockets that are opened at the same time.
const OPENING: usize = 64;

struct Run {
    world: World,
    messages: Messages,
    counters: Arc<Counters>,
    accepting: Latencies,
    replying: Arc<Latencies>,
    tracker: Tracker,
}

pub(crate) async fn run(common: &Common, options: &Chat) -> anyhow::Result<Report> {
    let load = &options.load;
    let mut simulator = SimulatorLog::connect(common).await?;
    let model_time = simulator.model_time(&options.marker).await?;
    let run = Arc::new(Run {
        world: World::make(common, load.closed.unwrap_or(USERS)).await?,
        messages: Messages::new(common, &options.marker),
        counters: Arc::default(),
        accepting: Latencies::new(),
        replying: Arc::new(Latencies::new()),
        tracker: Tracker::default(),
    });
    let mut readers = read_feeds(&run).await?;
    let line = counts(&run.counters, &run.replying);
    let watched = Arc::clone(&run);
    let _progress = progress(common.quiet, move || {
        format!("{}  under way {}", line(), watched.tracker.under_way())
    });

    let start = Instant::now();
    let title = match load.closed {
        Some(clients) => {
            closed(&run, load, clients).await;
            format!(
                "chat, closed loop, {clients} clients for {} s",
                load.seconds
            )
        }
        None => {
            open(&run, common, load).await?;
            format!(
                "chat, {} messages/s for {} s ({:?} arrivals)",
                load.rate, load.seconds, load.arrivals
            )
        }
    };
    let drain = Duration::from_secs(u64::from(options.drain));
    // What is still missing then is reported as missing.
    let _ = tokio::time::timeout(drain, run.tracker.wait_for_all()).await;
    readers.shutdown().await;

    let mut report = Report::new(title);
    report.figure(
        "users × conversations",
        format!("{} × {}", run.world.users.len(), common.conversations),
    );
    report.figure(
        "the model's own time",
        format!(
            "{:.0} ms ({})",
            model_time.as_secs_f64() * 1e3,
            options.marker
        ),
    );
    fill(
        &mut report,
        &run,
        &mut simulator,
        (model_time, options.limit),
        start,
    )
    .await?;
    Ok(report)
}

/// Opens one WebSocket per user and has it read.
async fn read_feeds(run: &Arc<Run>) -> anyhow::Result<JoinSet<()>> {
    let mut readers = JoinSet::new();
    for feed in open_all(&run.world.target, &run.world.users, OPENING).await? {
        let run = Arc::clone(run);
        readers.spawn(async move {
            let reader = Arc::clone(&run);
            feed.read(move |event, at| {
                if let (Some(ending), Some(id)) = (Ending::of(event.kind), event.generation_id)
                    && let Some(finished) = reader.tracker.ended(id, ending, at)
                {
                    reader.count(&finished);
                }
            })
            .await;
            run.counters.fail("a WebSocket was closed by the server");
        });
    }
    Ok(readers)
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
    let warm = Instant::now() + Duration::from_secs(u64::from(load.warm_up));
    let end = warm + Duration::from_secs(u64::from(load.seconds));
    let next = Arc::new(AtomicUsize::new(0));
    let most = usize::try_from(load.most).unwrap_or(usize::MAX);
    let mut senders = JoinSet::new();
    for client in 0..clients as usize {
        let (run, next) = (Arc::clone(run), Arc::clone(&next));
        senders.spawn(async move {
            let mut connection = Connection::new(run.world.target.clone());
            while Instant::now() < end {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= most {
                    break;
                }
                let now = Instant::now();
                let Some(generation) = run
                    .send(&mut connection, client, number, now, now >= warm)
                    .await
                else {
                    // A client that is refused does not come back at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                // A reply that is not there at the end of the run is left to the drain.
                let left = end.saturating_duration_since(Instant::now());
                let _ = tokio::time::timeout(left, run.tracker.wait(&generation)).await;
            }
        });
    }
    while senders.join_next().await.is_some() {}
}

impl Run {
    /// Posts a message to conversation `place` and returns its generation.
    async fn send(
        &self,
        connection: &mut Connection,
        place: usize,
        number: usize,
        due: Instant,
        measured: bool,
    ) -> Option<String> {
        let conversations = &self.world.conversations;
        let conversation = &conversations[place % conversations.len()];
        bump(&self.counters.sent);
        match self.messages.post(connection, conversation, number).await {
            Ok(Accepted {
                generation,
                estimated_ms,
                queued_us,
                received_us,
            }) => {
                bump(&self.counters.accepted);
                if measured {
                    self.accepting.record(due.elapsed());
                }
                let posted = Posted {
                    number,
                    due,
                    measured,
                    estimated_ms,
                    queued_us,
                    received_us,
                };
                if let Some(finished) = self.tracker.posted(generation.clone(), posted) {
                    self.count(&finished);
                }
                Some(generation)
            }
            Err(what) => {
                self.counters.fail(what);
                None
            }
        }
    }

    fn count(&self, finished: &Finished) {
        match finished.ending {
            Ending::Completed => {
                bump(&self.counters.completed);
                if finished.posted.measured {
                    self.replying.record(finished.at - finished.posted.due);
                }
            }
            Ending::Failed => self.counters.fail("generation.failed"),
            Ending::Cancelled => self.counters.fail("generation.cancelled"),
        }
    }
}

/// Works out the figures once everything has ended.
async fn fill(
    report: &mut Report,
    run: &Run,
    simulator: &mut SimulatorLog,
    (model_time, kept): (Duration, Option<u64>),
    start: Instant,
) -> anyhow::Result<()> {
    let finished = run.tracker.take_finished();
    let completed: Vec<&Finished> = finished
        .iter()
        .filter(|one| one.ending == Ending::Completed)
        .collect();
    let measured: Vec<&&Finished> = completed.iter().filter(|one| one.posted.measured).collect();
    let missing = run.tracker.missing();
    report.figure("messages sent", read(&run.counters.sent));
    report.figure("messages accepted (202)", read(&run.counters.accepted));
    report.figure("replies completed", completed.len());
    report.figure("replies that did not end in time", missing.len());
    if !missing.is_empty() {
        report.figure(
            "generations of the first of those",
            missing[..missing.len().min(3)].join(" "),
        );
    }
    if let Some(last) = completed.iter().map(|one| one.at).max() {
        let seconds = (last - start).as_secs_f64();
        report.figure(
            "completed per second",
            format!("{:.0}", completed.len() as f64 / seconds),
        );
    }

    let calls = simulator.calls(&run.messages).await?;
    let repeated = calls.values().filter(|calls| calls.len() > 1).count();
    report.figure("messages the model was called for more than once", repeated);

    report.fail(run.counters.failures());
    if let Some(allowed) = kept {
        let stats = simulator.stats().await?;
        limit::fill(report, allowed, &stats, &completed, &calls);
    }
    let mut estimates = Estimates::default();
    let (overhead, overhead_measured) = (Latencies::new(), Latencies::new());
    let (mut from_queued, mut from_answer) = (Differences::default(), Differences::default());
    for one in &measured {
        let whole = one.at - one.posted.due;
        overhead.record(whole.saturating_sub(model_time));
        estimates.record(one.posted.estimated_ms, whole);
        let Some([call]) = calls.get(&one.posted.number).map(Vec::as_slice) else {
            continue;
        };
        let called_us = i64::try_from(call.at_us).unwrap_or(i64::MAX);
        from_queued.record(called_us - one.posted.queued_us);
        from_answer.record(called_us - one.posted.received_us);
        if let Some(ended_us) = call.ended_us {
            overhead_measured.record(
                whole.saturating_sub(Duration::from_micros(ended_us.saturating_sub(call.at_us))),
            );
        }
    }
    estimates.report(report);
    report.latency(
        "POST to 202, from the intended time",
        run.accepting.summary(),
    );
    report.latency(
        "POST to terminal push, from the intended time",
        run.replying.summary(),
    );
    report.latency(
        "the same minus the model's own time (settings)",
        overhead.summary(),
    );
    report.latency(
        "the same minus the model call as it was (simulator's clock)",
        overhead_measured.summary(),
    );
    report.latency(
        "`queued_at` to model call (includes the commit; ± 1 ms)",
        from_queued.summary(),
    );
    report.latency(
        "202 received to model call (negative: the call came first)",
        from_answer.summary(),
    );
    Ok(())
}
