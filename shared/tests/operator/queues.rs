//! Queues: pausing, and what is measured of them.

use std::collections::HashMap;
use std::time::Duration;

use shared::domain::{GenerationStatus, Priority, Queue};
use shared::store::fleet::{self, Beat};
use shared::store::generations::{self, Cancelled};
use shared::store::queues::{self, Load};
use shared::{id, store};
use uuid::Uuid;

use super::{actor, look, view};
use crate::common::{LEASE, World, claimer};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn beat(name: &str) -> Beat<'_> {
    Beat {
        boot: Uuid::new_v4(),
        name,
        version: "1.2.3",
        up: Duration::from_secs(100),
        draining: false,
        concurrency: 10,
        lease: Duration::from_secs(30),
        in_flight: 3,
        rates: HashMap::from([(Priority::Standard, 0.5)]),
        capacity: Some(4.0),
    }
}

impl World {
    pub(crate) async fn beat(&self, beat: &Beat<'_>) {
        let mut tx = self.worker.sweep().await.unwrap();
        fleet::beat(&mut tx, beat).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn pause(&self, queue: Priority, reason: Option<&str>) -> bool {
        let mut tx = look(&view(self)).await;
        let line = id::new(self.clock.now());
        let changed = queues::pause(&mut tx, line, queue, reason, &actor())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        changed
    }

    async fn resume(&self, queue: Priority) -> bool {
        let mut tx = look(&view(self)).await;
        let line = id::new(self.clock.now());
        let changed = queues::resume(&mut tx, line, queue, &actor())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        changed
    }

    async fn paused(&self) -> Vec<Priority> {
        let mut tx = self.worker.sweep().await.unwrap();
        let seen = queues::seen(&mut tx).await.unwrap().into_iter();
        seen.filter(|load| load.paused)
            .map(|load| load.queue)
            .collect()
    }

    async fn measure(&self) -> HashMap<Priority, Load> {
        let mut tx = self.worker.sweep().await.unwrap();
        let loads = queues::measure(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        loads.into_iter().map(|load| (load.queue, load)).collect()
    }

    async fn queues(&self) -> Vec<Queue> {
        let mut tx = look(&view(self)).await;
        let queues = queues::list(&mut tx).await.unwrap();
        // Dropped, it would keep the rows locked for a moment more, and the next measurement passes
        // over what is locked.
        tx.commit().await.unwrap();
        queues
    }

    async fn waiting(&self) -> Uuid {
        let conversation = self.conversation().await;
        self.send(conversation, "hello").await.generation.id
    }
}

#[tokio::test]
async fn a_pause_is_kept_with_its_reason_and_leaves_a_trail() {
    let world = World::new().await;
    assert!(world.paused().await.is_empty());
    assert!(
        world
            .pause(Priority::Standard, Some("the upstream is down"))
            .await
    );
    assert!(
        !world
            .pause(Priority::Standard, Some("another reason"))
            .await
    );
    assert!(!world.resume(Priority::Premium).await);
    assert_eq!(world.paused().await, [Priority::Standard]);
    let queues = world.queues().await;
    let names: Vec<_> = queues.iter().map(|queue| queue.name).collect();
    assert_eq!(names, Priority::ALL);
    let standard = &queues[1];
    assert!(standard.paused && standard.paused_at.is_some() && !queues[0].paused);
    assert_eq!(standard.paused_by.as_deref(), Some("an operator"));
    assert_eq!(standard.reason.as_deref(), Some("the upstream is down"));
    assert!(world.resume(Priority::Standard).await);
    assert!(!world.resume(Priority::Standard).await);
    assert!(world.paused().await.is_empty());
    let trail = "SELECT string_agg(concat_ws(' ', actor, action, subject, user_id, request_id, details), ', ' ORDER BY id)
                 FROM chat.audit_log";
    assert_eq!(
        world.value(trail).await,
        r#"an operator queue.pause standard request-1 {"reason": "the upstream is down"}, an operator queue.resume standard request-1 {}"#
    );
}

#[tokio::test]
async fn what_waits_in_a_paused_queue_is_neither_pushed_nor_taken_and_can_be_cancelled() {
    let world = World::new().await;
    let (first, second) = (world.waiting().await, world.waiting().await);
    world
        .execute("UPDATE chat.generations SET run_at = now() - interval '1 minute'")
        .await;
    world.pause(Priority::Standard, None).await;
    let take = async || {
        let mut tx = world.worker.sweep().await.unwrap();
        let ready = generations::ready_unpushed(&mut tx, Priority::ALL, 15.0, 10)
            .await
            .unwrap();
        let claims = generations::claim_ready(
            &mut tx,
            &generations::Room::for_any(10),
            &claimer("w/1", LEASE),
        )
        .await
        .unwrap();
        (ready.len(), claims.len())
    };
    assert_eq!(take().await, (0, 0));
    let mut tx = world.api.user(world.user).await.unwrap();
    let cancelled = generations::cancel(&mut tx, first, None).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done(..)));
    tx.commit().await.unwrap();
    // Another queue goes on.
    let background = format!(
        "UPDATE chat.generations SET priority = 'background' WHERE id = '{}'",
        world.waiting().await
    );
    world.execute(&background).await;
    assert_eq!(take().await.1, 1);
    world.resume(Priority::Standard).await;
    let (ready, claims) = take().await;
    assert_eq!((ready, claims), (1, 2));
    let status = world.generation(second).await.status;
    assert_eq!(status, GenerationStatus::Queued, "only looked at");
}

#[tokio::test]
async fn only_the_named_queues_are_pushed_again() {
    let world = World::new().await;
    let id = world.waiting().await;
    world
        .execute("UPDATE chat.generations SET run_at = now() - interval '1 minute'")
        .await;
    for (queues, expected) in [
        (&[][..], vec![]),
        (&[Priority::Premium, Priority::Background], vec![]),
        (&[Priority::Standard], vec![id]),
    ] {
        let mut tx = world.worker.sweep().await.unwrap();
        let ready = generations::ready_unpushed(&mut tx, queues, 15.0, 10)
            .await
            .unwrap();
        let ids: Vec<_> = ready.iter().map(|ready| ready.id).collect();
        assert_eq!(ids, expected, "{queues:?}");
    }
}

#[tokio::test]
async fn depth_and_wait_are_those_of_the_rows() {
    let world = World::new().await;
    let empty = world.measure().await;
    let standard = empty[&Priority::Standard];
    assert_eq!((standard.depth, standard.oldest_wait_seconds), (0, None));
    assert_eq!((standard.drain, standard.workers), (None, 0));
    let conversation = world.conversation().await;
    let head = world.send(conversation, "head").await.generation.id;
    world.send(conversation, "waits for the head").await;
    let retry = world.waiting().await;
    for (id, run_at) in [
        (head, "- interval '90 seconds'"),
        (retry, "+ interval '1 hour'"),
    ] {
        let sql = format!("UPDATE chat.generations SET run_at = now() {run_at} WHERE id = '{id}'");
        world.execute(&sql).await;
    }
    let standard = world.measure().await[&Priority::Standard];
    assert_eq!((standard.depth, standard.parked), (2, 1));
    let oldest = standard.oldest_wait_seconds.unwrap();
    assert!((90.0..150.0).contains(&oldest), "{oldest}");
    world.reply(head, "hello").await;
    let loads = world.measure().await;
    let standard = loads[&Priority::Standard];
    assert_eq!((standard.depth, standard.parked), (2, 0));
    assert_eq!(loads[&Priority::Background].depth, 1, "the title");
    assert_eq!(loads[&Priority::Premium].depth, 0);
    let claim = world.claim_one(world.waiting().await).await;
    let standard = &world.queues().await[1];
    assert_eq!((standard.depth, standard.in_flight), (2, 1));
    world.finish(&claim, "hello").await;
    assert_eq!(world.queues().await[1].in_flight, 0);
}

/// While nothing waits for long, the fleet could do more than was asked of it; where something does,
/// it does what it can.
#[tokio::test]
async fn the_drain_is_what_was_measured_and_never_a_guess() {
    let world = World::new().await;
    let waiting = world.waiting().await;
    let drain = async || world.measure().await[&Priority::Standard].drain;
    let fresh = Beat {
        capacity: None,
        rates: HashMap::new(),
        ..beat("fresh")
    };
    world.beat(&fresh).await;
    assert_eq!(drain().await, None, "nobody knows yet how long it takes");
    let busy = beat("busy");
    world.beat(&busy).await;
    // The fresh one has as many places and is taken to be as quick.
    assert_eq!(drain().await, Some(8.0));
    let standard = &world.queues().await[1];
    assert_eq!(
        (
            standard.depth,
            standard.rate_per_second,
            standard.eta_seconds
        ),
        (1, 0.5, Some(0.125))
    );
    let old = format!(
        "UPDATE chat.generations SET run_at = now() - interval '2 minutes' WHERE id = '{waiting}'"
    );
    world.execute(&old).await;
    assert_eq!(drain().await, Some(0.5), "it was never empty");
    assert_eq!(world.queues().await[1].eta_seconds, Some(2.0));
    world.pause(Priority::Standard, None).await;
    assert_eq!(world.queues().await[1].eta_seconds, None);
    // Who drains, has stopped or is not heard of takes nothing.
    world
        .execute("UPDATE chat.generations SET run_at = now()")
        .await;
    for ending in [
        "draining = true",
        "stopped_at = now()",
        "last_seen_at = now() - interval '31 seconds'",
    ] {
        world.execute("BEGIN").await;
        world
            .execute(&format!(
                "UPDATE chat.workers SET {ending} WHERE name = 'fresh'"
            ))
            .await;
        world.execute("COMMIT").await;
        let load = world.measure().await[&Priority::Standard];
        assert_eq!((load.drain, load.workers), (Some(4.0), 1), "{ending}");
        world.beat(&fresh).await;
    }
}

#[tokio::test]
async fn a_measurement_serves_everybody_until_it_is_old() {
    let world = World::new().await;
    let view = view(&world);
    let depth = async |at_most| {
        let mut tx = look(&view).await;
        let loads = queues::loads(&mut tx, at_most).await.unwrap();
        tx.commit().await.unwrap();
        let of = |queue| loads.iter().find(|load| load.queue == queue).unwrap().depth;
        (loads.len(), of(Priority::Standard))
    };
    world.waiting().await;
    assert_eq!(depth(MINUTE).await, (3, 1), "nobody had measured");
    world.waiting().await;
    assert_eq!(depth(MINUTE).await, (3, 1), "it is fresh enough");
    world.measure().await;
    assert_eq!(depth(MINUTE).await, (3, 2));
    world.waiting().await;
    world
        .execute("UPDATE chat.queues SET measured_at = now() - interval '2 minutes'")
        .await;
    assert_eq!(depth(MINUTE).await, (3, 3), "no worker lives");
}

/// The queues are the fleet's: people's scopes have no way to them.
#[tokio::test]
async fn the_api_role_reaches_neither_queues_nor_workers() {
    let world = World::new().await;
    let mut session = world.env.session_as(store::ServingRole::Api).await;
    for statement in [
        "SELECT FROM chat.queues",
        "UPDATE chat.queues SET paused_at = NULL",
        "SELECT FROM chat.workers",
        "DELETE FROM chat.workers",
        "SELECT FROM chat.audit_log",
    ] {
        let refused = session.run(statement).await.unwrap_err();
        assert_eq!(refused.code, "42501", "{statement}");
    }
    let mut operator = world.env.session_as(store::ServingRole::Operator).await;
    for statement in [
        "UPDATE chat.generations SET status = 'queued'",
        "DELETE FROM chat.queues",
        "UPDATE chat.workers SET stopped_at = now()",
        "UPDATE chat.audit_log SET actor = 'nobody'",
        "DELETE FROM chat.audit_log",
    ] {
        let refused = operator.run(statement).await.unwrap_err();
        assert_eq!(refused.code, "42501", "{statement}");
    }
}

/// Replicas and workers measure when they please, and none waits for another.
#[tokio::test]
async fn a_queue_that_somebody_else_measures_is_left_to_them() {
    let world = World::new().await;
    world.measure().await;
    world.waiting().await;
    let mut other = world.env.session().await;
    other
        .run("BEGIN; UPDATE chat.queues SET depth = 7 WHERE name = 'standard'")
        .await
        .unwrap();
    let loads = world.measure().await;
    assert_eq!(loads.len(), 2);
    assert!(!loads.contains_key(&Priority::Standard));
    other.run("UPDATE chat.queues SET depth = 7").await.unwrap();
    let view = view(&world);
    let mut tx = look(&view).await;
    let old = queues::loads(&mut tx, Duration::ZERO).await.unwrap();
    assert_eq!(
        old.len(),
        3,
        "what was measured last is better than nothing"
    );
    assert!(old.iter().all(|load| load.depth == 0), "{old:?}");
    drop(tx);
    other.run("COMMIT").await.unwrap();
    assert_eq!(world.measure().await[&Priority::Standard].depth, 1);
}
