//! Workers that are stuck, and some that only look like it.

use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use shared::clock::Clock;
use shared::lifecycle::Lifecycle;

use crate::process::{Process, command};
use crate::{Fleet, LONG};

/// The shortest there may be.
const WATCHDOG: (&str, &str) = ("WATCHDOG_TIMEOUT", "15");

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_log_nobody_reads_is_stuck_and_ends_itself() {
    let fleet = Fleet::new().await;
    let settings = [LONG, WATCHDOG, ("LOG_LEVEL", "trace")];
    let child = command(fleet.settings("w1", &settings)).spawn().unwrap();
    // A full pipe stops every thread that has something to say.
    let pipe = child.stderr.as_ref().unwrap().as_fd();
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let worker = Process::of(child);
    assert_eq!(worker.ended().await, Some(70));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_goes_on_after_it_wakes_up() {
    let fleet = Fleet::new().await;
    let mut worker = Process::start(&fleet, "w1", &[LONG, WATCHDOG]);
    let ids = fleet.held(1).await;
    worker.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(17)).await;
    worker.signal(Signal::SIGCONT);
    // By now every loop has turned.
    fleet
        .register("w1", "last_seen_at > now() - interval '1 second'")
        .await;
    fleet.simulator.release();
    for generation in fleet.all_ended(&ids).await {
        assert_eq!(generation.attempts, 1);
    }
    assert!(worker.runs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stands_still_while_leases_are_renewed_ends_the_worker_and_goes_elsewhere() {
    let mut fleet = Fleet::new().await;
    // A job asks for the time when it begins, and gets no answer.
    let clock = Clock::manual(fleet.clock.now());
    let mut config = fleet.config("w1", &[LONG]);
    config.watchdog = Duration::from_secs(2);
    let conversation = fleet.conversation().await;
    let generation = fleet.send(conversation, "hello").await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (holds, holding) = std::sync::mpsc::channel();
    let stopped = clock.clone();
    std::thread::spawn(move || {
        let _held = stopped.hold();
        holds.send(()).unwrap();
        let _ = released.recv();
    });
    holding.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let (left, mut leaves) = tokio::sync::mpsc::unbounded_channel();
    let leave = move |code| left.send(code).unwrap();
    let running = worker::run::run_watched(config, clock.clone(), Lifecycle::new(), leave);
    runtime.spawn(running);
    let code = tokio::time::timeout(Duration::from_secs(120), leaves.recv()).await;
    assert_eq!(code.unwrap(), Some(70));
    fleet.clock = Clock::system();
    let _other = fleet.worker_with("w2", &[LONG]);
    fleet.all_ended(&[generation.id]).await;
    assert_eq!(fleet.counted().await, "1");
    drop(release);
    runtime.shutdown_background();
}
