//! Who gets a generation, and what a token is good for.

use std::collections::HashSet;
use std::time::Duration;

use shared::domain::{FailureCode, GenerationKind, Priority};
use shared::id;
use shared::store::fleet;
use shared::store::generations::{
    self, Accepted, Concurrency, Failed, Finished, Handover, TitleFinished,
};
use uuid::Uuid;

use crate::common::{HANDOVER, LEASE, World, chain, claimer, new_generation, text, usage};

impl World {
    async fn set(&self, id: Uuid, what: &str) {
        self.execute(&format!(
            "UPDATE chat.generations SET {what} WHERE id = '{id}'"
        ))
        .await;
    }

    async fn whole(&self, id: Uuid) -> String {
        self.value(&format!(
            "SELECT to_jsonb(g) FROM chat.generations g WHERE id = '{id}'"
        ))
        .await
    }

    async fn claim_ready(&self, limit: u32) -> Vec<Uuid> {
        let mut tx = self.worker.sweep_async().await.unwrap();
        let claims = generations::claim_ready(
            &mut tx,
            &generations::Room::for_any(limit),
            &claimer("w/1", LEASE),
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        claims.iter().map(|claim| claim.id).collect()
    }
}

#[tokio::test]
async fn only_the_head_of_a_conversation_is_claimed() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(
            world
                .send(conversation, &number.to_string())
                .await
                .generation
                .id,
        );
    }
    assert!(world.claim(&ids[1..]).await.is_empty());
    let all_backwards: Vec<_> = ids.iter().rev().copied().chain([Uuid::new_v4()]).collect();
    let claims = world.claim(&all_backwards).await;
    let [claim] = &claims[..] else {
        panic!("{claims:?}")
    };
    assert_eq!(
        (
            claim.id,
            claim.attempt,
            claim.counted_attempts,
            claim.max_attempts
        ),
        (ids[0], 1, 1, 5)
    );
    assert_eq!(
        (claim.user_id, claim.kind),
        (world.user, GenerationKind::Reply)
    );
    assert_eq!(claim.chain, chain());
    // Not the next one, while the first runs, waits for a retry, or is taken away.
    assert!(world.claim(&ids).await.is_empty());
    assert!(world.claim_ready(10).await.is_empty());
    let mut tx = world.worker.sweep().await.unwrap();
    generations::retry_later(
        &mut tx,
        claim.id,
        claim.token,
        Duration::from_secs(60),
        false,
        "busy",
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert!(world.claim(&ids).await.is_empty());
    assert!(world.claim_ready(10).await.is_empty());
    world.set(ids[0], "run_at = now()").await;
    let Finished::Stored { next, title, .. } =
        world.finish(&world.claim_one(ids[0]).await, "reply").await
    else {
        panic!("ours");
    };
    assert_eq!(
        next.iter()
            .map(|next| (next.id, next.priority))
            .collect::<Vec<_>>(),
        [(ids[1], Priority::Standard)]
    );
    // A title runs beside its conversation's replies.
    let title = title.unwrap();
    let both = world.claim(&[ids[2], title.id, ids[1]]).await;
    assert_eq!(
        both.iter().map(|claim| claim.id).collect::<HashSet<_>>(),
        HashSet::from([ids[1], title.id])
    );
}

#[tokio::test]
async fn what_is_not_due_or_overdue_is_not_claimed() {
    let world = World::new().await;
    let id = world
        .send(world.conversation().await, "hello")
        .await
        .generation
        .id;
    for (what, claimable) in [
        ("run_at = now() + interval '1 minute'", false),
        (
            "run_at = now(), deadline_at = now() - interval '1 millisecond'",
            false,
        ),
        ("deadline_at = now() + interval '1 minute'", true),
    ] {
        world.set(id, what).await;
        assert_eq!(
            world.claim(&[id]).await.len(),
            usize::from(claimable),
            "{what}"
        );
    }
    let left = world
        .value("SELECT lease_until > now() + interval '9 minutes' FROM chat.generations")
        .await;
    assert_eq!(left, "true");
}

#[tokio::test]
async fn a_wrong_token_is_refused_everywhere() {
    let world = World::new().await;
    let id = world
        .send(world.conversation().await, "hello")
        .await
        .generation
        .id;
    let stale = world.claim_one(id).await.token;
    // The lease runs out, and another worker has it.
    world
        .set(id, "lease_until = now() - interval '1 second'")
        .await;
    let mut tx = world.worker.sweep().await.unwrap();
    assert_eq!(
        generations::expired_leases(&mut tx, 10, std::time::Duration::ZERO)
            .await
            .unwrap()
            .len(),
        1
    );
    tx.commit().await.unwrap();
    let owner = world.claim_one(id).await;
    assert_eq!((owner.attempt, owner.counted_attempts), (2, 2));
    let before = world.whole(id).await;
    for token in [stale, Uuid::new_v4(), Uuid::nil()] {
        let mine = [(id, token)];
        let mut tx = world.worker.sweep().await.unwrap();
        assert!(
            generations::renew(&mut tx, &mine, LEASE)
                .await
                .unwrap()
                .is_empty()
        );
        assert!(
            generations::release(&mut tx, &mine)
                .await
                .unwrap()
                .is_empty()
        );
        let minute = Duration::from_secs(60);
        assert!(
            !generations::retry_later(&mut tx, id, token, minute, false, "why")
                .await
                .unwrap()
        );
        tx.commit().await.unwrap();
        let mut tx = world.worker.user(world.user).await.unwrap();
        let failed = generations::fail(&mut tx, id, token, FailureCode::Internal, "why")
            .await
            .unwrap();
        assert!(matches!(failed, Failed::Fenced));
        let usage_id = id::new(world.clock.now());
        let titled =
            generations::finish_title(&mut tx, id, token, usage_id, &usage(), Some("title"))
                .await
                .unwrap();
        assert!(matches!(titled, TitleFinished::Fenced));
        assert!(
            !generations::keep_partial(&mut tx, id, 1, "text")
                .await
                .unwrap()
        );
        tx.commit().await.unwrap();
        let finished = world.finish_with(id, token, "reply", false).await;
        assert!(matches!(finished, Finished::Fenced));
        assert!(!world.generation(id).await.status.is_terminal());
    }
    assert_eq!(world.whole(id).await, before);
    assert_eq!(world.value("SELECT count(*) FROM chat.messages").await, "1");
    assert_eq!(
        world
            .value("SELECT count(*) FROM chat.usage_tracking")
            .await,
        "0"
    );
    assert!(matches!(
        world.finish(&owner, "reply").await,
        Finished::Stored { .. }
    ));
    // The owner's own token is worth nothing any more either.
    assert!(matches!(
        world.finish(&owner, "again").await,
        Finished::Fenced
    ));
}

/// The index holds whatever the code does.
#[tokio::test]
async fn a_hand_written_update_cannot_run_two_of_a_conversation() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let first = world.send(conversation, "1").await.generation.id;
    let second = world.send(conversation, "2").await.generation.id;
    let elsewhere = world
        .send(world.conversation().await, "3")
        .await
        .generation
        .id;
    world.claim_one(first).await;
    let by_hand = async |id: Uuid| {
        let sql = format!(
            "UPDATE chat.generations SET status = 'in_progress', claim_token = gen_random_uuid(), lease_until = now(),
                                         parked = NULL, run_at = now()
             WHERE id = '{id}'"
        );
        world
            .env
            .session()
            .await
            .run(&sql)
            .await
            .map_err(|refused| refused.constraint)
    };
    assert_eq!(
        by_hand(second).await,
        Err(Some("generations_one_in_progress".to_owned()))
    );
    assert_eq!(by_hand(elsewhere).await, Ok(1));
    world.set(second, "kind = 'title'").await;
    assert_eq!(by_hand(second).await, Ok(1), "a title runs beside a reply");
}

#[tokio::test]
async fn ready_work_is_taken_best_first_and_oldest_first() {
    let world = World::new().await;
    let chain = chain();
    let mut expected = Vec::new();
    for priority in [
        Priority::Background,
        Priority::Standard,
        Priority::Premium,
        Priority::Standard,
    ] {
        let mut new = new_generation(&chain);
        new.priority = priority;
        let message = text(world.conversation().await, "hello");
        let Accepted::Stored { generation, .. } = world
            .accept(world.user, &message, &new, Concurrency::Enqueue)
            .await
            .unwrap()
        else {
            panic!("accepted");
        };
        expected.push((priority, generation.id));
    }
    expected.sort();
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
    let mut taken = Vec::new();
    for _ in 0..expected.len() {
        taken.extend(world.claim_ready(1).await);
    }
    assert_eq!(taken, expected);
    assert!(world.claim_ready(1).await.is_empty());
}

#[tokio::test]
async fn the_reconciler_finds_heads_whose_push_was_lost_once() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let head = world.send(conversation, "1").await.generation.id;
    let parked = world.send(conversation, "2").await.generation.id;
    let later = world
        .send(world.conversation().await, "3")
        .await
        .generation
        .id;
    let find = async || {
        let mut tx = world.worker.sweep().await.unwrap();
        let ready = generations::ready_unpushed(&mut tx, Priority::ALL, 15.0, 10)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        ready.iter().map(|ready| ready.id).collect::<Vec<_>>()
    };
    // Whoever accepted them is just about to push them.
    assert!(find().await.is_empty());
    world
        .execute(
            "UPDATE chat.generations SET run_at = now() - interval '1 second' WHERE parked IS NULL",
        )
        .await;
    world
        .set(later, "run_at = now() + interval '1 minute'")
        .await;
    assert_eq!(find().await, [head]);
    assert!(find().await.is_empty(), "it was pushed a moment ago");
    world
        .set(head, "pushed_at = now() - interval '16 seconds'")
        .await;
    assert_eq!(find().await, [head]);
    // A retry that came due after the last push.
    world
        .set(
            later,
            "pushed_at = now() - interval '3 seconds', run_at = now() - interval '2 seconds'",
        )
        .await;
    assert_eq!(find().await, [later]);
    world.fail(head).await;
    // Its turn came with the end; whoever brought that pushes it, and may fail to.
    world
        .set(parked, "run_at = run_at - interval '1 second'")
        .await;
    assert_eq!(find().await, [parked]);
}

#[tokio::test]
async fn a_lease_that_is_kept_does_not_run_out() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(
            world
                .send(world.conversation().await, &number.to_string())
                .await
                .generation
                .id,
        );
    }
    let claims = world.claim(&ids).await;
    world
        .execute("UPDATE chat.generations SET lease_until = now() - interval '1 second'")
        .await;
    let mut kept: Vec<_> = claims.iter().map(|claim| (claim.id, claim.token)).collect();
    kept[1].1 = Uuid::new_v4();
    let mut tx = world.worker.sweep_async().await.unwrap();
    let renewed: HashSet<_> = generations::renew(&mut tx, &kept, LEASE)
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(renewed, HashSet::from([kept[0].0, kept[2].0]));
    assert!(
        generations::renew(&mut tx, &[], LEASE)
            .await
            .unwrap()
            .is_empty()
    );
    tx.commit().await.unwrap();
    let mut tx = world.worker.sweep().await.unwrap();
    let expired = generations::expired_leases(&mut tx, 10, std::time::Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(
        expired.iter().map(|expired| expired.id).collect::<Vec<_>>(),
        [kept[1].0]
    );
}

/// A pod that starts again frees what its earlier life held, and nobody else's work.
#[tokio::test]
async fn a_restarted_worker_frees_what_its_earlier_life_held() {
    let world = World::new().await;
    let mut held = Vec::new();
    for worker in [
        "worker-1/a",
        "worker-1/b",
        "worker-1/now",
        "worker-10/a",
        "worker/a",
        "worker-1",
    ] {
        let id = world
            .send(world.conversation().await, worker)
            .await
            .generation
            .id;
        assert_eq!(world.claim_for(worker, &[id]).await.len(), 1);
        held.push(id);
    }
    let mut tx = world.worker.sweep().await.unwrap();
    let freed = generations::free_predecessor(&mut tx, "worker-1", "worker-1/now", &HANDOVER)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let freed: HashSet<_> = freed.into_iter().map(|(id, _)| id).collect();
    assert_eq!(freed, HashSet::from([held[0], held[1], held[5]]));
    assert_eq!(
        world.claim(&held).await.len(),
        3,
        "they can be claimed at once"
    );
}

#[tokio::test]
async fn what_a_living_namesake_runs_is_left_alone() {
    let world = World::new().await;
    let boots: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
    let [mine, living, silent, ended] = boots[..] else {
        unreachable!("four of them")
    };
    let mut held = Vec::new();
    for boot in [living, silent, ended] {
        let id = world
            .send(world.conversation().await, "hello")
            .await
            .generation
            .id;
        world.claim_for(&format!("w/{boot}"), &[id]).await;
        held.push(id);
    }
    for boot in &boots {
        let sign = format!(
            "INSERT INTO chat.workers (boot, name, version, started_at, last_seen_at, concurrency, lease, in_flight)
             VALUES ('{boot}', 'w', '1', now(), now(), 1, '30 s', 0)"
        );
        world.execute(&sign).await;
    }
    let mut tx = world.worker.sweep().await.unwrap();
    fleet::stopped(&mut tx, ended).await.unwrap();
    let called_at = fleet::call(&mut tx, mine).await.unwrap();
    tx.commit().await.unwrap();
    let free = async |wait| {
        let handover = Handover {
            called_at,
            wait,
            stagger: Duration::ZERO,
        };
        let mut tx = world.worker.sweep().await.unwrap();
        let freed = generations::free_predecessor(&mut tx, "w", &format!("w/{mine}"), &handover)
            .await
            .unwrap();
        fleet::succeed(&mut tx, "w", mine, called_at, wait)
            .await
            .unwrap();
        let namesakes = fleet::namesakes(&mut tx, "w", mine, called_at)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let freed: Vec<Uuid> = freed.into_iter().map(|(id, _)| id).collect();
        (freed, namesakes.living, namesakes.silent)
    };
    // One that has ended in order has no use for it; the others have time to answer.
    let long = Duration::from_hours(1);
    assert_eq!(free(long).await, (vec![held[2]], 0, 2));
    let called = async |boot| {
        let mut tx = world.worker.sweep().await.unwrap();
        fleet::is_called(&mut tx, boot).await.unwrap()
    };
    assert!(called(living).await && called(silent).await && !called(mine).await);
    let sign = format!("UPDATE chat.workers SET last_seen_at = now() WHERE boot = '{living}'");
    world.execute(&sign).await;
    assert!(!called(living).await);
    assert_eq!(free(long).await, (vec![], 1, 1));
    // The time to answer is over.
    assert_eq!(free(Duration::ZERO).await, (vec![held[1]], 1, 0));
    assert_eq!(free(Duration::ZERO).await, (vec![], 1, 0));
}

#[tokio::test]
async fn what_was_lost_before_comes_back_at_random_moments_and_in_the_end_not_at_all() {
    const COUNT: usize = 12;
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        let conversation = world.conversation().await;
        ids.push(world.send(conversation, "hello").await.generation.id);
    }
    let handover = Handover {
        stagger: Duration::from_hours(1),
        ..HANDOVER
    };
    // Between two crashes everything is due again.
    let due = "UPDATE chat.generations SET run_at = now() WHERE status = 'queued'";
    let spread = "SELECT count(DISTINCT run_at) FILTER (WHERE run_at > now()) || ' ' ||
        bool_and(run_at <= now() + interval '1 hour' * power(2, attempt - 2)) FROM chat.generations";
    for crash in 1..=5 {
        world.execute(due).await;
        assert_eq!(world.claim_for("w/1", &ids).await.len(), COUNT);
        let mut tx = world.worker.sweep().await.unwrap();
        let freed = generations::free_predecessor(&mut tx, "w", "w/2", &handover)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        match crash {
            // A crash is mostly nobody's fault: at once.
            1 => assert_eq!(
                (freed.len(), &*world.value(spread).await),
                (COUNT, "0 true")
            ),
            2..5 => assert_eq!(
                (freed.len(), world.value(spread).await),
                (COUNT, format!("{COUNT} true"))
            ),
            _ => assert!(freed.is_empty()),
        }
    }
    let mut tx = world.worker.sweep().await.unwrap();
    let given_up = generations::expired_leases(&mut tx, 100, Duration::ZERO)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(given_up.len(), COUNT);
    assert!(
        given_up
            .iter()
            .all(|one| one.failed == Some(FailureCode::AttemptsExhausted))
    );
}
