//! The register of workers.

use shared::domain::{FleetWorker, WorkerStatus};
use shared::store::fleet::{self, Beat};
use uuid::Uuid;

use super::queues::beat;
use super::{look, view};
use crate::common::World;

impl World {
    async fn workers(&self) -> Vec<FleetWorker> {
        fleet::list(&mut look(&view(self)).await).await.unwrap()
    }

    async fn forgotten(&self) -> u64 {
        let mut tx = self.worker.sweep().await.unwrap();
        let forgotten = fleet::forget(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        forgotten
    }
}

#[tokio::test]
async fn a_worker_is_known_from_its_first_sign_of_life() {
    let world = World::new().await;
    let first = beat("w1");
    world.beat(&first).await;
    let started_at = world.workers().await[0].started_at;
    let again = Beat {
        in_flight: 7,
        rates: [(shared::domain::Priority::Premium, 1.5)].into(),
        ..first.clone()
    };
    world.beat(&again).await;
    let workers = world.workers().await;
    let [worker] = &workers[..] else {
        panic!("{workers:?}");
    };
    assert_eq!((&*worker.name, worker.boot), ("w1", first.boot));
    assert_eq!(&*worker.version, "1.2.3");
    assert_eq!(worker.status, WorkerStatus::Running);
    assert_eq!(worker.started_at, started_at);
    assert!((100..200).contains(&worker.age_seconds), "{worker:?}");
    assert!(
        (0.0..60.0).contains(&worker.last_seen_seconds),
        "{worker:?}"
    );
    assert_eq!((worker.concurrency, worker.in_flight), (10, 7));
    assert!((worker.rate_per_second - 1.5).abs() < 1e-9);
    assert_eq!((worker.leases, worker.leases_overdue), (0, 0));
    assert_eq!(worker.lease_expires_in_seconds, None);
}

#[tokio::test]
async fn the_health_of_its_leases_is_that_of_the_rows() {
    let world = World::new().await;
    let worker = beat("w1");
    world.beat(&worker).await;
    world.beat(&beat("w2")).await;
    let worker_id = format!("w1/{}", worker.boot);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let sent = world.send(world.conversation().await, "hello").await;
        world.claim_for(&worker_id, &[sent.generation.id]).await;
        ids.push(sent.generation.id);
    }
    let overdue = format!(
        "UPDATE chat.generations SET lease_until = now() - interval '5 seconds' WHERE id = '{}'",
        ids[0]
    );
    world.execute(&overdue).await;
    let workers = world.workers().await;
    let health: Vec<_> = workers
        .iter()
        .map(|worker| (&*worker.name, worker.leases, worker.leases_overdue))
        .collect();
    assert_eq!(health, [("w1", 2, 1), ("w2", 0, 0)]);
    let left = workers[0].lease_expires_in_seconds.unwrap();
    assert!((-65.0..=-5.0).contains(&left), "{left}");
}

#[tokio::test]
async fn the_register_tells_who_works_who_ends_and_who_is_lost() {
    let world = World::new().await;
    let (ended, lost) = (beat("ended"), beat("lost"));
    let draining = Beat {
        draining: true,
        ..beat("draining")
    };
    for beat in [&ended, &lost, &draining, &beat("running")] {
        world.beat(beat).await;
    }
    let mut tx = world.worker.sweep().await.unwrap();
    fleet::stopped(&mut tx, ended.boot).await.unwrap();
    tx.commit().await.unwrap();
    world
        .execute("UPDATE chat.workers SET last_seen_at = now() - interval '31 seconds' WHERE name = 'lost'")
        .await;
    let statuses = async || -> Vec<(String, WorkerStatus)> {
        let workers = world.workers().await;
        workers
            .into_iter()
            .map(|worker| (worker.name, worker.status))
            .collect()
    };
    let of = |name: &str, status| (name.to_owned(), status);
    assert_eq!(
        statuses().await,
        [
            of("draining", WorkerStatus::Draining),
            of("lost", WorkerStatus::Lost),
            of("running", WorkerStatus::Running),
            of("ended", WorkerStatus::Stopped),
        ]
    );
    // One that was only frozen is back with its next sign of life.
    world.beat(&lost).await;
    assert!(
        statuses()
            .await
            .contains(&of("lost", WorkerStatus::Running))
    );
}

#[tokio::test]
async fn a_new_start_takes_the_place_of_the_old_one() {
    let world = World::new().await;
    let (old, other) = (beat("w1"), beat("w2"));
    world.beat(&old).await;
    world.beat(&other).await;
    let new = Beat {
        boot: Uuid::new_v4(),
        ..old.clone()
    };
    world.beat(&new).await;
    let mut tx = world.worker.sweep().await.unwrap();
    let called_at = fleet::call(&mut tx, new.boot).await.unwrap();
    let wait = std::time::Duration::ZERO;
    fleet::succeed(&mut tx, "w1", new.boot, called_at, wait)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let workers = world.workers().await;
    let status = |boot| {
        let of = |worker: &&FleetWorker| worker.boot == boot;
        workers.iter().find(of).unwrap().status
    };
    assert_eq!(status(old.boot), WorkerStatus::Stopped);
    assert_eq!(status(new.boot), WorkerStatus::Running);
    assert_eq!(status(other.boot), WorkerStatus::Running);
}

#[tokio::test]
async fn who_was_not_heard_of_for_a_day_is_forgotten() {
    let world = World::new().await;
    world.beat(&beat("w1")).await;
    world.beat(&beat("w2")).await;
    assert_eq!(world.forgotten().await, 0);
    world
        .execute(
            "UPDATE chat.workers SET last_seen_at = now() - interval '25 hours' WHERE name = 'w1'",
        )
        .await;
    assert_eq!(world.forgotten().await, 1);
    assert_eq!(world.workers().await[0].name, "w2");
}
