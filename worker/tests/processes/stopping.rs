//! SIGTERM, whatever runs and whatever is down.

use nix::sys::signal::Signal;

use crate::process::{Link, Process, probe};
use crate::{Fleet, LONG};

#[tokio::test(flavor = "multi_thread")]
async fn with_time_everything_is_finished_and_nothing_run_again() {
    let fleet = Fleet::new().await;
    let worker = Process::start(&fleet, "w1", &[LONG, ("DRAIN_GRACE", "3600")]);
    let ids = fleet.held(12).await;
    worker.signal(Signal::SIGTERM);
    fleet.register("w1", "draining").await;
    // Nobody takes what comes now.
    let conversation = fleet.conversation().await;
    let late = fleet.send(conversation, "too late").await;
    fleet.simulator.release();
    assert_eq!(worker.ended().await, Some(0));
    for generation in fleet.all_ended(&ids).await {
        assert_eq!(generation.attempts, 1);
    }
    assert_eq!(fleet.generation(late.id).await.attempts, 0);
    let _next = Process::start(&fleet, "w1", &[LONG]);
    fleet.all_ended(&[late.id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_time_others_continue_and_no_attempt_counts() {
    let fleet = Fleet::new().await;
    let worker = Process::start(&fleet, "w1", &[LONG, ("DRAIN_GRACE", "0.1")]);
    let ids = fleet.held(12).await;
    let _other = Process::start(&fleet, "w2", &[LONG]);
    fleet.register("w2", "true").await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await, Some(0));
    fleet.all_ended(&ids).await;
    assert_eq!(fleet.counted().await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_gives_back_at_once() {
    let fleet = Fleet::new().await;
    let worker = Process::start(&fleet, "w1", &[LONG, ("DRAIN_GRACE", "3600")]);
    let ids = fleet.held(3).await;
    worker.signal(Signal::SIGTERM);
    fleet.register("w1", "draining").await;
    worker.signal(Signal::SIGINT);
    assert_eq!(worker.ended().await, Some(0));
    let _other = Process::start(&fleet, "w2", &[LONG]);
    fleet.all_ended(&ids).await;
    assert_eq!(fleet.counted().await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_stops_in_order() {
    let fleet = Fleet::new().await;
    let worker = Process::start(&fleet, "w1", &[LONG, ("DRAIN_GRACE", "3600")]);
    fleet.register("w1", "true").await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_work_is_given_back_all_the_same() {
    let fleet = Fleet::new().await;
    let redis = fleet.env.redis_config();
    let link = Link::to(secrecy::ExposeSecret::expose_secret(&redis.url)).await;
    let settings = [LONG, ("DRAIN_GRACE", "0.1"), ("REDIS_URL", &*link.url)];
    let worker = Process::start(&fleet, "w1", &settings);
    let ids = fleet.held(3).await;
    link.cut();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await, Some(0));
    let _other = Process::start(&fleet, "w2", &[LONG]);
    fleet.all_ended(&ids).await;
    assert_eq!(fleet.counted().await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_it_leaves_and_says_that_work_is_left_behind() {
    let fleet = Fleet::new().await;
    let link = Link::to(fleet.env.database_url()).await;
    let settings = [LONG, ("DRAIN_GRACE", "0.1"), ("DATABASE_URL", &*link.url)];
    let worker = Process::start(&fleet, "w1", &settings);
    let ids = fleet.held(3).await;
    link.cut();
    // Some have their reply and nowhere to store it.
    fleet.simulator.release();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await, Some(75));
    // Its next start finds what it left behind.
    let _next = Process::start(&fleet, "w1", &[LONG]);
    fleet.all_ended(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_an_idle_worker_leaves_in_order() {
    let fleet = Fleet::new().await;
    let link = Link::to(fleet.env.database_url()).await;
    let settings = [LONG, ("DATABASE_URL", &*link.url)];
    let worker = Process::start(&fleet, "w1", &settings);
    fleet.register("w1", "true").await;
    link.cut();
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_it_starts_is_heard() {
    let fleet = Fleet::new().await;
    let link = Link::to(fleet.env.database_url()).await;
    link.cut();
    let settings = [LONG, ("DATABASE_URL", &*link.url)];
    let worker = Process::start(&fleet, "w1", &settings);
    worker.says(&fleet, "worker starts").await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probes_say_when_it_is_ready_and_when_it_leaves() {
    let fleet = Fleet::new().await;
    let settings = [
        LONG,
        ("DRAIN_GRACE", "3600"),
        ("HEALTH_ADDRESS", "127.0.0.1:0"),
    ];
    let worker = Process::start(&fleet, "w1", &settings);
    let address = worker.said(&fleet, "server.address").await;
    let is_ready = async |wanted: u16| {
        let (status, body) = probe(&address, "/health/ready").await;
        (status == wanted).then_some(body)
    };
    fleet.until(async || is_ready(200).await).await;
    let ids = fleet.held(1).await;
    worker.signal(Signal::SIGTERM);
    let reason = fleet.until(async || is_ready(503).await).await;
    assert!(reason.contains("stopping"), "{reason}");
    assert_eq!(probe(&address, "/health/live").await.0, 200);
    let (status, metrics) = probe(&address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("generations_in_flight"), "{metrics}");
    fleet.simulator.release();
    assert_eq!(worker.ended().await, Some(0));
    fleet.all_ended(&ids).await;
}
