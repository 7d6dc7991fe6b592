//! `sockets`: the API's memory with many idle WebSockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::feed::Feed;
use super::measure::{Counters, Latencies, bump, progress, read};
use super::options::{Arrivals, Common, Load, Sockets};
use super::pace::{Pacer, schedule};
use super::process::{megabytes, memory};
use super::report::Report;
use super::target::Target;
use super::world::sign;

/// Sockets that are being opened at the same time.
const OPENING: usize = 256;

pub(crate) async fn run(common: &Common, options: &Sockets) -> anyhow::Result<Report> {
    let target = Target::resolve(&common.api, common.allow_remote).await?;
    let users = Arc::new(sign(common, options.count)?);
    let before = memory(options.pid)?;
    let counters: Arc<Counters> = Arc::default();
    let open = Arc::new(AtomicU64::new(0));
    let latencies = Arc::new(Latencies::new());
    let (shown, pid) = (Arc::clone(&open), options.pid);
    let _progress = progress(common.quiet, move || {
        let rss = memory(pid).map_or_else(
            |error| error.to_string(),
            |memory| megabytes(memory.now_kib),
        );
        format!("open {}  api {rss}", read(&shown))
    });

    let load = Load {
        rate: options.rate,
        seconds: 3_600,
        arrivals: Arrivals::Even,
        closed: None,
        most: options.count,
        warm_up: 0,
    };
    let start = Instant::now();
    let pacer = Arc::new(Pacer::start(schedule(&load, common.seed))?);
    let mut openers = JoinSet::new();
    let (holders, mut handed) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..OPENING {
        let (target, users, pacer) = (target.clone(), Arc::clone(&users), Arc::clone(&pacer));
        let (counters, latencies, holders) = (
            Arc::clone(&counters),
            Arc::clone(&latencies),
            holders.clone(),
        );
        openers.spawn(async move {
            while let Some((number, due)) = pacer.next().await {
                match Feed::open(&target, &users[number]).await {
                    Ok(feed) => {
                        latencies.record(due.elapsed());
                        // The receiver lives until the openers are done.
                        _ = holders.send(feed);
                    }
                    Err(error) => counters.fail(format!("open: {}", error.root_cause())),
                }
            }
        });
    }
    drop(holders);
    let mut held = JoinSet::new();
    while let Some(feed) = handed.recv().await {
        let (open, counters) = (Arc::clone(&open), Arc::clone(&counters));
        bump(&open);
        held.spawn(async move {
            feed.read(|_, _| {}).await;
            open.fetch_sub(1, Ordering::Relaxed);
            counters.fail("a WebSocket was closed by the server");
        });
    }
    let opening = start.elapsed();
    let opened = read(&open);
    let after = memory(options.pid)?;
    tokio::time::sleep(Duration::from_secs(u64::from(options.seconds))).await;
    let still = read(&open);
    let last = memory(options.pid)?;
    held.shutdown().await;

    let mut report = Report::new(format!(
        "sockets, {} idle WebSockets on one API",
        options.count
    ));
    report.figure(
        "WebSockets opened",
        format!("{opened} in {:.1} s", opening.as_secs_f64()),
    );
    report.figure(
        format!("WebSockets still open after {} s", options.seconds),
        still,
    );
    report.figure("API's RSS before", megabytes(before.now_kib));
    report.figure("API's RSS when all were open", megabytes(after.now_kib));
    report.figure(
        format!("API's RSS after {} s", options.seconds),
        megabytes(last.now_kib),
    );
    report.figure(
        "API's peak RSS since its start (VmHWM)",
        megabytes(last.peak_kib),
    );
    if let Some(each) = (last.now_kib.saturating_sub(before.now_kib) * 1_024).checked_div(still) {
        report.figure("memory per WebSocket", format!("{each} bytes"));
    }
    report.latency(
        "connect and upgrade, from the intended time",
        latencies.summary(),
    );
    report.fail(counters.failures());
    Ok(report)
}
