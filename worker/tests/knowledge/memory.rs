//! How much memory a large ingestion takes, by the clock of the machine; the figures are in docs/evaluation.md.

use crate::common::Fleet;
use crate::killed::until;
use crate::process::Process;
use crate::rig::{SETTINGS, file, staged_upload};

/// The most a process has held of memory so far, in MiB.
fn most_held(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes: cargo xtask test --run-ignored only how_much_memory"]
async fn how_much_memory_rows_take() {
    let fleet = Fleet::new().await;
    let url = fleet.simulator.base_url();
    let more = [
        ("NEBIUS_BASE_URL", url.as_str()),
        ("EMBEDDING_BATCH_SIZE", "100"),
    ];
    let settings: Vec<_> = SETTINGS.iter().chain(&more).copied().collect();
    let worker = Process::start(&fleet, "w1", &settings);
    let mut held = Vec::new();
    for (from, to) in [(0, 2_000), (2_000, 20_000), (20_000, 200_000)] {
        let began = std::time::Instant::now();
        let id = staged_upload(&fleet, &file(from..to, "Muat ulang")).await;
        let done = until(&fleet, id, |now| now.status.is_terminal()).await;
        let most = most_held(&worker);
        held.push(most);
        println!(
            "{} rows, {} texts: the worker held at most {most} MiB, {:.0} s",
            to - from,
            done.chunks_embedded,
            began.elapsed().as_secs_f64()
        );
        // The books of the simulator are this process's memory.
        fleet.simulator.clear_calls();
    }
    // Ten times as many rows may not take more than what an allocator keeps.
    let [_, some, many] = held[..] else {
        panic!("{held:?}")
    };
    assert!(many <= some + 16, "{held:?}");
}
