//! A client that comes back gets every event after the last one it saw, once and in order: through
//! another replica, while events are being written, and when Redis has lost them.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::EventType;
use shared::id::EventId;
use shared::push::PushedEvent;
use tokio::task::JoinSet;

use crate::common::{World, in_time, until};
use crate::stage::{Replica, Stage, delta, ids, rest};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_resumed_from_each_event_through_another_replica_while_it_is_written() {
    let stage = Arc::new(Stage::new().await);
    let replicas = Arc::new([Replica::new(&stage.world), Replica::new(&stage.world)]);
    let mut follow = replicas[0].follow(&stage.world, stage.id(), None).await;
    let mut resumed = JoinSet::new();
    let all = async {
        let mut all = Vec::new();
        while let Some(event) = follow.next().await.unwrap() {
            all.push(event.id);
            let (stage, replicas, after) = (stage.clone(), replicas.clone(), event.id);
            let from = all.len();
            resumed.spawn(async move {
                let read = replicas[1]
                    .read(&stage.world, stage.id(), Some(after))
                    .await;
                (from, ids(&read))
            });
        }
        all
    };
    let writing = Box::pin(stage.write_all(40, Duration::from_millis(2)));
    let (all, ()) = in_time("the stream ends", async { tokio::join!(all, writing) }).await;
    assert_eq!(all, stage.log().await);
    assert_eq!(all.len(), 43);
    for (from, read) in resumed.join_all().await {
        assert_eq!(read, all[from..], "resumed after event {from}");
    }
    // And again when all is over.
    for (from, after) in all.iter().enumerate() {
        let read = replicas[from % 2]
            .read(&stage.world, stage.id(), Some(*after))
            .await;
        assert_eq!(ids(&read), all[from + 1..]);
    }
    assert_eq!(
        ids(&replicas[0].read(&stage.world, stage.id(), None).await),
        all
    );
}

/// Redis is wiped in the midst of a reply, again and again, while clients come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_log_leaves_no_gap() {
    let world = Arc::new(World::new().await);
    let replica = Arc::new(Replica::new(&world));
    for round in 0..10 {
        let stage = Arc::new(Stage::of(world.clone()).await);
        let mut watching = replica.follow(&stage.world, stage.id(), None).await;
        let mut writer = stage.writer();
        for number in 0..10 {
            writer.write(EventType::Delta, &delta(number)).await;
        }
        stage.world.env.wipe_redis().await;
        // They find an empty log, and hear of the eleventh event first.
        let mut resumed = JoinSet::new();
        for seq in [1, 5, 10] {
            let (stage, replica) = (stage.clone(), replica.clone());
            let after = stage.event_id(1, seq);
            let mut follow = replica.follow(&stage.world, stage.id(), Some(after)).await;
            resumed.spawn(async move { (seq, ids(&rest(&mut follow).await)) });
        }
        if round % 2 == 0 {
            // So that they are certain to have looked.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for number in 10..20 {
            writer.write(EventType::Delta, &delta(number)).await;
        }
        let terminal = stage.store(&stage.claim, "the reply").await;
        writer.end(&terminal, []).await.unwrap();
        let all: Vec<_> = (1..=20)
            .chain([EventId::TERMINAL_SEQ])
            .map(|seq| stage.event_id(1, seq))
            .collect();
        for (after, read) in resumed.join_all().await {
            assert_eq!(
                read,
                all[after as usize..],
                "round {round}, resumed after event {after}"
            );
        }
        let watched = ids(&rest(&mut watching).await);
        assert_eq!(
            watched[watched.len() - all.len()..],
            all,
            "round {round}, watched all the time"
        );
    }
}

/// Wiped when nothing more was to come but the end: whoever has a hole gets the whole reply with it.
#[tokio::test]
async fn a_log_wiped_before_the_end_ends_all_the_same() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut writer = stage.writer();
    for number in 0..10 {
        writer.write(EventType::Delta, &delta(number)).await;
    }
    stage.world.env.wipe_redis().await;
    let terminal = stage.store(&stage.claim, "the reply").await;
    writer.end(&terminal, []).await.unwrap();
    let after = Some(stage.event_id(1, 3));
    let read = replica.read(&stage.world, stage.id(), after).await;
    assert_eq!(ids(&read), [terminal.id]);
    assert!(read[0].json.contains("the reply"));
}

#[tokio::test]
async fn an_expired_log_ends_with_the_event_that_was_really_sent() {
    let stage = Stage::new().await;
    stage.write_all(3, Duration::ZERO).await;
    let replica = Replica::new(&stage.world);
    let real = replica
        .read(&stage.world, stage.id(), None)
        .await
        .pop()
        .unwrap();
    stage.world.env.wipe_redis().await;
    let afters = [
        None,
        Some(stage.event_id(0, 1)),
        Some(stage.event_id(1, 2)),
        Some(stage.event_id(1, 4)),
    ];
    for after in afters {
        let read = replica.read(&stage.world, stage.id(), after).await;
        assert_eq!(ids(&read), [real.id], "{after:?}");
        assert_eq!(read[0].kind, EventType::Completed);
        let data = |event: &PushedEvent| {
            serde_json::from_str::<serde_json::Value>(&event.json).unwrap()["data"].clone()
        };
        let mut synthesised = data(&read[0]);
        let mut sent = data(&real);
        // The row knows the moment a little better than the worker did.
        for data in [&mut synthesised, &mut sent] {
            data["assistant_message"]
                .as_object_mut()
                .unwrap()
                .remove("created_at");
        }
        assert_eq!(synthesised, sent);
    }
    // Who has seen the end gets nothing.
    assert!(
        replica
            .read(&stage.world, stage.id(), Some(real.id))
            .await
            .is_empty()
    );
}

/// Each kind of end has one name, whoever tells of it.
#[tokio::test]
async fn every_end_is_named_alike_by_row_and_log() {
    let shared_world = Arc::new(World::new().await);
    for end in ["cancelled", "failed", "expired", "cancelled in the queue"] {
        let stage = Stage::of(shared_world.clone()).await;
        let world = &stage.world;
        let told = match end {
            "cancelled" => Some(stage.cancel().await.id),
            "failed" => {
                let mut tx = world.worker.user(world.user).await.unwrap();
                let code = shared::domain::FailureCode::UpstreamExhausted;
                let failed = shared::store::generations::fail(
                    &mut tx,
                    stage.id(),
                    stage.claim.token,
                    code,
                    "why",
                )
                .await;
                assert!(failed.is_ok());
                tx.commit().await.unwrap();
                Some(EventId::terminal(stage.id(), 1))
            }
            "expired" => {
                let spent = format!(
                    "UPDATE chat.generations SET attempt = 5, lease_until = now() - interval '1 second' WHERE id = '{}'",
                    stage.id()
                );
                world.execute(&spent).await;
                let mut tx = world.worker.sweep().await.unwrap();
                let expired = shared::store::generations::expired_leases(
                    &mut tx,
                    10,
                    std::time::Duration::ZERO,
                )
                .await
                .unwrap();
                tx.commit().await.unwrap();
                Some(EventId::terminal(
                    expired[0].id,
                    u32::try_from(expired[0].attempt).unwrap(),
                ))
            }
            _ => {
                let mut tx = world.worker.sweep().await.unwrap();
                let mine = [(stage.id(), stage.claim.token)];
                shared::store::generations::release(&mut tx, &mine)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                Some(stage.cancel().await.id)
            }
        };
        world.env.wipe_redis().await;
        let read = Replica::new(world).read(world, stage.id(), None).await;
        assert_eq!(ids(&read).last().copied(), told, "{end}");
        assert_eq!(read.len(), 1, "{end}");
    }
}

/// The end was committed, and the worker died before it could tell anybody.
#[tokio::test]
async fn an_end_that_nobody_told_is_found_in_the_row() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut writer = stage.writer();
    writer.write(EventType::Delta, &delta(0)).await;
    let mut follow = replica.follow(&stage.world, stage.id(), None).await;
    let started = in_time("the first events come", async {
        [
            follow.next().await.unwrap().unwrap().id,
            follow.next().await.unwrap().unwrap().id,
        ]
    });
    assert_eq!(started.await, [stage.event_id(0, 1), stage.event_id(1, 1)]);
    let terminal = stage.store(&stage.claim, "the reply").await;
    assert_eq!(ids(&rest(&mut follow).await), [terminal.id]);
}

#[tokio::test]
async fn a_new_attempt_goes_on_in_the_same_stream() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut follow = replica.follow(&stage.world, stage.id(), None).await;
    let mut first = stage.writer();
    first.write(EventType::InProgress, &delta(0)).await;
    first.write(EventType::Delta, &delta(1)).await;
    let claim = stage.next_attempt().await;
    let mut second = stage.writer_of(&claim);
    second.write(EventType::Retrying, &delta(0)).await;
    first.write(EventType::Delta, &delta(2)).await;
    second.write(EventType::Delta, &delta(1)).await;
    let terminal = stage.store(&claim, "the reply").await;
    second.end(&terminal, []).await.unwrap();
    let numbers = [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
        (2, EventId::TERMINAL_SEQ),
    ];
    let expected = numbers.map(|(attempt, seq)| stage.event_id(attempt, seq));
    assert_eq!(ids(&rest(&mut follow).await), expected);
    // A client that saw the first attempt before it lost its connection.
    let read = replica
        .read(&stage.world, stage.id(), Some(expected[2]))
        .await;
    assert_eq!(ids(&read), expected[3..]);
}

/// A client that reads nothing for a while falls behind by more than is kept for it.
#[tokio::test]
async fn a_slow_client_catches_up_from_the_log() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut slow = replica.follow(&stage.world, stage.id(), None).await;
    let first = in_time("it begins", slow.next()).await.unwrap().unwrap();
    assert_eq!(first.id, stage.event_id(0, 1));
    let mut writer = stage.writer();
    for number in 0..700 {
        writer.write(EventType::Delta, &delta(number)).await;
    }
    let mut read = Vec::new();
    in_time("it catches up", async {
        while read.len() < 700 {
            read.push(slow.next().await.unwrap().unwrap().id);
        }
    })
    .await;
    assert_eq!(
        read,
        (1..=700)
            .map(|seq| stage.event_id(1, seq))
            .collect::<Vec<_>>()
    );
    let terminal = stage.store(&stage.claim, "the reply").await;
    writer.end(&terminal, []).await.unwrap();
    assert_eq!(ids(&rest(&mut slow).await), [terminal.id]);
}

/// Somebody else's generation, or one of a deleted conversation, has nothing to follow.
#[tokio::test]
async fn what_is_not_there_ends_at_once() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    assert!(
        replica
            .read(&stage.world, uuid::Uuid::new_v4(), None)
            .await
            .is_empty()
    );
    assert_eq!(replica.hub.listeners(), 0);
    let follow = replica.follow(&stage.world, stage.id(), None).await;
    assert_eq!(replica.hub.listeners(), 1);
    drop(follow);
    until("nobody listens", async || {
        (replica.hub.listeners() == 0).then_some(())
    })
    .await;
}

/// The subscription is there and the log cannot be read: what was missed comes before what is new.
#[tokio::test]
async fn a_log_that_cannot_be_read_for_a_while_leaves_no_gap() {
    let stage = Stage::new().await;
    let (replica, barred) = Replica::barred_from_logs(&stage.world).await;
    let mut follow = replica.follow(&stage.world, stage.id(), None).await;
    let mut writer = stage.writer();
    for number in 0..5 {
        writer.write(EventType::Delta, &delta(number)).await;
    }
    let early = tokio::time::timeout(Duration::from_millis(300), follow.next()).await;
    assert!(early.is_err(), "{early:?}");
    barred.set(&["+xrange"]).await;
    for number in 5..10 {
        writer.write(EventType::Delta, &delta(number)).await;
    }
    let expected = stage.log().await;
    assert_eq!(expected.len(), 11);
    let read = in_time("the stream goes on", async {
        let mut read = Vec::new();
        while read.len() < expected.len() {
            read.push(follow.next().await.unwrap().unwrap().id);
        }
        read
    });
    assert_eq!(read.await, expected);
}
