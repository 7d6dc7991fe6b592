//! The hints: what a worker waits for, and what a client is told about its place.

use std::collections::HashMap;
use std::time::Duration;

use shared::domain::{EventType, Generation, Parked, Priority, WaitsFor};
use shared::push::{Feed, PushedEvent, read_log};
use shared::queue::{self, LIST_CAP, Line, QueuePace, Waited, Waiter};
use uuid::Uuid;

use crate::common::{World, in_time, until};
use crate::stage::Replica;

impl World {
    async fn announce(&self, generation: &mut Generation, parked: Option<Parked>) {
        let (user, standard) = (self.user, Priority::Standard);
        queue::announce(&self.redis, &self.clock, user, standard, generation, parked)
            .await
            .unwrap();
    }

    async fn depths(&self) -> HashMap<Priority, u64> {
        queue::depths(&self.redis)
            .await
            .unwrap()
            .into_iter()
            .collect()
    }

    fn waiter(&self) -> Waiter {
        Waiter::new(self.env.redis(), Uuid::new_v4(), Duration::from_millis(50))
    }
}

/// The ids of one wait; none where none came in time.
async fn take(waiter: &mut Waiter, count: usize) -> Vec<Uuid> {
    match waiter.wait(count, Priority::ALL).await.unwrap() {
        Waited::Ids(_, ids) => ids,
        Waited::Nudged | Waited::Nothing => Vec::new(),
    }
}

fn pace(drain: Option<f64>, paused: bool) -> [QueuePace; 1] {
    [QueuePace {
        queue: Priority::Standard,
        depth: 12_345,
        drain,
        paused,
    }]
}

fn data(event: &PushedEvent) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(&event.json).unwrap()["data"].clone()
}

#[tokio::test]
async fn an_announcement_tells_the_place_and_the_time_it_may_take() {
    let world = World::new().await;
    let replica = Replica::new(&world);
    let mut feed = replica.hub.subscribe(world.user).await;
    let mut sent = Vec::new();
    for number in 0..3 {
        sent.push(
            world
                .send(world.conversation().await, &number.to_string())
                .await
                .generation,
        );
    }
    // Nothing is known of the pace yet.
    world.announce(&mut sent[0], None).await;
    assert_eq!(
        (sent[0].queue_position, sent[0].estimated_response_time_ms),
        (Some(0), None)
    );
    let models = [
        ("test/first:free".to_owned(), 1_500.4),
        ("other".to_owned(), 9.0),
    ];
    queue::report_pace(&world.redis, &models, &pace(Some(4.0), false))
        .await
        .unwrap();
    world.announce(&mut sent[1], None).await;
    assert_eq!(
        (sent[1].queue_position, sent[1].estimated_response_time_ms),
        (Some(1), Some(1_750))
    );
    // One that is parked takes no place in the list, and is told of those before it elsewhere, too.
    let parked = Parked {
        waits_for: WaitsFor::Turn,
        ahead: 5,
        rounds: 2.5,
    };
    world.announce(&mut sent[2], Some(parked)).await;
    assert_eq!(
        (sent[2].queue_position, sent[2].estimated_response_time_ms),
        (Some(7), Some(5_000))
    );
    assert_eq!(world.depths().await[&Priority::Standard], 2);
    for (number, generation) in sent.iter().enumerate() {
        let heard = in_time("the announcement is heard", async {
            loop {
                if let Feed::Event(event) = feed.next().await {
                    return event;
                }
            }
        })
        .await;
        let log = read_log(&world.redis, generation.id, None).await.unwrap();
        assert_eq!(log.len(), 1);
        assert_eq!(log[0].json, heard.json);
        assert_eq!(
            (heard.kind, heard.id.attempt, heard.id.seq),
            (EventType::Queued, 0, 1)
        );
        assert_eq!(heard.generation_id, Some(generation.id));
        let estimate = generation.estimated_response_time_ms;
        let position = [0, 1, 7][number];
        let expected =
            serde_json::json!({ "position": position, "estimated_response_time_ms": estimate });
        assert_eq!(data(&heard), expected);
    }
    for (number, generation) in sent.iter().enumerate() {
        let place = queue::position(
            &world.redis,
            Priority::Standard,
            generation.id,
            &generation.model,
            (number == 2).then_some(parked),
        )
        .await
        .unwrap();
        let expected = match number {
            0 => (Some(0), Some(1_500)),
            1 => (Some(1), Some(1_750)),
            _ => (Some(7), Some(5_000)),
        };
        assert_eq!(place, expected);
    }
    let unknown = queue::position(
        &world.redis,
        Priority::Premium,
        Uuid::new_v4(),
        "unknown",
        None,
    )
    .await
    .unwrap();
    assert_eq!(unknown, (None, None));
}

#[tokio::test]
async fn a_full_list_takes_no_more_and_says_how_long_it_is() {
    let world = World::new().await;
    let many = || (0..LIST_CAP).map(|_| (Uuid::new_v4(), Priority::Standard));
    queue::push_back(&world.redis, many()).await.unwrap();
    let mut generation = world
        .send(world.conversation().await, "hello")
        .await
        .generation;
    world.announce(&mut generation, None).await;
    assert_eq!(generation.queue_position, Some(i64::from(LIST_CAP)));
    assert_eq!(
        world.depths().await[&Priority::Standard],
        u64::from(LIST_CAP)
    );
    let place = queue::position(&world.redis, Priority::Standard, generation.id, "m", None)
        .await
        .unwrap();
    assert_eq!(place.0, None);
    // One goes, and the next finds room.
    assert_eq!(take(&mut world.waiter(), 1).await.len(), 1);
    let mut next = world
        .send(world.conversation().await, "hello")
        .await
        .generation;
    world.announce(&mut next, None).await;
    assert_eq!(next.queue_position, Some(i64::from(LIST_CAP) - 1));
    assert_eq!(
        world.depths().await[&Priority::Standard],
        u64::from(LIST_CAP)
    );
}

#[tokio::test]
async fn the_first_queue_that_has_any_gives_its_oldest() {
    use Priority::{Background, Premium, Standard};
    let world = World::new().await;
    let mut ids = HashMap::new();
    for queue in Priority::ALL {
        for _ in 0..3 {
            let id = Uuid::new_v4();
            ids.entry(*queue).or_insert_with(Vec::new).push(id);
            queue::push_back(&world.redis, [(id, *queue)])
                .await
                .unwrap();
        }
    }
    let mut waiter = world.waiter();
    for (order, queue, taken) in [
        ([Premium, Standard, Background], Premium, 0..2),
        ([Background, Premium, Standard], Background, 0..2),
        ([Premium, Standard, Background], Premium, 2..3),
        ([Premium, Standard, Background], Standard, 0..2),
    ] {
        let expected = Waited::Ids(queue, ids[&queue][taken].to_vec());
        assert_eq!(waiter.wait(2, &order).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_nudge_ends_one_wait_of_its_name_and_takes_no_ids() {
    let world = World::new().await;
    let name = Uuid::new_v4();
    let mut waiter = Waiter::new(world.env.redis(), name, Duration::from_secs(60));
    let standard = &[Priority::Standard][..];
    // A busy machine may answer too late; a second nudge is as good as the first.
    let nudge = async || {
        until("redis answers", async || {
            queue::nudge(&world.redis, name).await.ok()
        })
        .await;
    };
    nudge().await;
    nudge().await;
    let nudged = in_time("it ends the next wait", waiter.wait(5, standard)).await;
    assert_eq!(nudged.unwrap(), Waited::Nudged);
    let (nudged, ()) = in_time("it ends a wait", async {
        tokio::join!(waiter.wait(5, standard), nudge())
    })
    .await;
    assert_eq!(nudged.unwrap(), Waited::Nudged);
    // What waits comes first.
    nudge().await;
    let id = Uuid::new_v4();
    queue::push_back(&world.redis, [(id, Priority::Standard)])
        .await
        .unwrap();
    let ids = in_time("ids come", waiter.wait(5, standard)).await;
    assert_eq!(ids.unwrap(), Waited::Ids(Priority::Standard, vec![id]));
}

#[tokio::test]
async fn ids_come_in_the_order_they_were_pushed_and_freed_ones_first() {
    let world = World::new().await;
    let ids: Vec<Uuid> = (0..5).map(|_| Uuid::new_v4()).collect();
    queue::push_back(
        &world.redis,
        ids[..4].iter().map(|id| (*id, Priority::Standard)),
    )
    .await
    .unwrap();
    queue::push_front(&world.redis, [(ids[4], Priority::Standard)])
        .await
        .unwrap();
    queue::push_front(&world.redis, []).await.unwrap();
    queue::push_back(&world.redis, []).await.unwrap();
    let mut waiter = world.waiter();
    assert_eq!(take(&mut waiter, 3).await, [ids[4], ids[0], ids[1]]);
    assert_eq!(take(&mut waiter, 9).await, [ids[2], ids[3]]);
    assert!(
        take(&mut waiter, 9).await.is_empty(),
        "nothing came in time"
    );
    // A wake that comes while the waiter waits.
    let wait = async {
        loop {
            let ids = take(&mut waiter, 1).await;
            if !ids.is_empty() {
                return ids;
            }
        }
    };
    let wake = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        queue::push_back(&world.redis, [(ids[0], Priority::Background)])
            .await
            .unwrap();
    };
    let (woken, ()) = in_time("the waiter wakes", async { tokio::join!(wait, wake) }).await;
    assert_eq!(woken, [ids[0]]);
}

#[tokio::test]
async fn what_is_not_an_id_is_dropped_and_a_lost_connection_is_made_again() {
    let world = World::new().await;
    let id = Uuid::new_v4();
    let list = world.redis.key("ready:standard");
    let garbage = || redis::cmd("RPUSH").arg(&list).arg("garbage").to_owned();
    world.redis.command::<i64>(&garbage()).await.unwrap();
    queue::push_back(&world.redis, [(id, Priority::Standard)])
        .await
        .unwrap();
    let mut waiter = world.waiter();
    assert_eq!(take(&mut waiter, 5).await, [id]);
    // A list of another type is an error, and the next wait is a new start.
    world
        .redis
        .command::<()>(redis::cmd("SET").arg(&list).arg("not a list"))
        .await
        .unwrap();
    assert!(waiter.wait(1, Priority::ALL).await.is_err());
    world
        .redis
        .command::<i64>(redis::cmd("DEL").arg(&list))
        .await
        .unwrap();
    queue::push_back(&world.redis, [(id, Priority::Standard)])
        .await
        .unwrap();
    assert_eq!(take(&mut waiter, 1).await, [id]);
}

#[tokio::test]
async fn what_is_woken_goes_behind_what_waits() {
    let stage = crate::stage::Stage::new().await;
    let conversation = stage.claim.conversation_id;
    let next = stage.world.send(conversation, "next").await.generation.id;
    let writer = stage.writer();
    let terminal = stage.store(&stage.claim, "the reply").await;
    // The worker's announced id is still in the list.
    writer
        .end(&terminal, [(next, Priority::Standard)])
        .await
        .unwrap();
    assert_eq!(take(&mut stage.world.waiter(), 5).await, [stage.id(), next]);
}

#[tokio::test]
async fn an_estimate_is_only_given_where_there_is_something_to_estimate_from() {
    let world = World::new().await;
    let models = [("test/first:free".to_owned(), 1_000.0)];
    // Two before it, and how quickly the queue empties is not known, or it does not at all.
    for (drain, paused, expected) in [
        (None, false, [Some(1_000), None, None]),
        (Some(0.0), false, [Some(1_000), None, None]),
        (Some(2.0), false, [Some(1_000), Some(1_500), Some(2_000)]),
        (Some(2.0), true, [None, None, None]),
        // What was known is forgotten when it is no longer true.
        (None, false, [Some(1_000), None, None]),
    ] {
        let list = world.redis.key("ready:standard");
        let empty = redis::cmd("DEL").arg(&list).to_owned();
        world.redis.command::<i64>(&empty).await.unwrap();
        queue::report_pace(&world.redis, &models, &pace(drain, paused))
            .await
            .unwrap();
        for (position, expected) in expected.into_iter().enumerate() {
            let conversation = world.conversation().await;
            let mut sent = world.send(conversation, "hello").await.generation;
            world.announce(&mut sent, None).await;
            let position = i64::try_from(position).unwrap();
            assert_eq!(
                (sent.queue_position, sent.estimated_response_time_ms),
                (Some(position), expected),
                "{drain:?} {paused}"
            );
            let read =
                queue::position(&world.redis, Priority::Standard, sent.id, &sent.model, None);
            assert_eq!(read.await.unwrap(), (Some(position), expected));
        }
    }
    queue::report_pace(&world.redis, &[], &[]).await.unwrap();
}

#[tokio::test]
async fn a_list_never_grows_beyond_its_bound_and_then_the_table_says_how_long_the_queue_is() {
    let world = World::new().await;
    let many = || (0..LIST_CAP).map(|_| (Uuid::new_v4(), Priority::Standard));
    for _ in 0..2 {
        queue::push_back(&world.redis, many()).await.unwrap();
    }
    assert_eq!(
        world.depths().await[&Priority::Standard],
        u64::from(LIST_CAP)
    );
    queue::report_pace(&world.redis, &[], &pace(None, false))
        .await
        .unwrap();
    let conversation = world.conversation().await;
    let mut sent = world.send(conversation, "hello").await.generation;
    world.announce(&mut sent, None).await;
    assert_eq!(sent.queue_position, Some(12_345));
}

#[tokio::test]
async fn a_waiter_leaves_closed_queues_alone() {
    let world = World::new().await;
    let (premium, standard) = (Uuid::new_v4(), Uuid::new_v4());
    queue::push_back(
        &world.redis,
        [(premium, Priority::Premium), (standard, Priority::Standard)],
    )
    .await
    .unwrap();
    let mut waiter = world.waiter();
    for (open, expected) in [
        (vec![], Waited::Nothing),
        (vec![Priority::Background], Waited::Nothing),
        (
            vec![Priority::Background, Priority::Standard],
            Waited::Ids(Priority::Standard, vec![standard]),
        ),
        (vec![Priority::Standard], Waited::Nothing),
        (
            vec![Priority::Premium],
            Waited::Ids(Priority::Premium, vec![premium]),
        ),
    ] {
        assert_eq!(waiter.wait(9, &open).await.unwrap(), expected, "{open:?}");
    }
}

#[tokio::test]
async fn who_waits_for_the_limit_of_the_account_is_told_how_long() {
    let world = World::new().await;
    let models = [("test/first:free".to_owned(), 1_000.0)];
    queue::report_pace(&world.redis, &models, &pace(Some(100.0), false))
        .await
        .unwrap();
    let keys = (world.redis.key("bucket"), world.redis.key("waiting"));
    let line = |longest: Option<Duration>| {
        let line = Line {
            bucket: keys.0.clone(),
            line: keys.1.clone(),
            gap: Duration::from_secs(30),
            slack: Duration::from_secs(30),
            longest,
        };
        [("test/first:free".to_owned(), Some(line))]
    };
    queue::report_lines(&world.redis, &line(None))
        .await
        .unwrap();
    // An empty bucket keeps nobody waiting; what is full for a minute does, and so do those who wait already.
    let now = world.clock.now().unix_timestamp_nanos() / 1_000;
    let set = async |key: &str, args: &[String]| {
        let mut command = redis::cmd(key);
        command.arg(args);
        world.redis.command::<i64>(&command).await.unwrap();
    };
    let announced = async |priority: Priority| {
        let empty = redis::cmd("DEL")
            .arg(world.redis.key(format!("ready:{priority}")))
            .to_owned();
        world.redis.command::<i64>(&empty).await.unwrap();
        let conversation = world.conversation().await;
        let mut sent = world.send(conversation, "hello").await.generation;
        queue::announce(
            &world.redis,
            &world.clock,
            world.user,
            priority,
            &mut sent,
            None,
        )
        .await
        .unwrap();
        let estimate = sent.estimated_response_time_ms.unwrap();
        (sent.queue_position.unwrap(), estimate)
    };
    assert_eq!(announced(Priority::Standard).await, (0, 1_000));
    let in_minutes = |minutes: i128| (now + minutes * 60_000_000).to_string();
    set(
        "HSET",
        &[keys.0.clone(), "arrival".to_owned(), in_minutes(10)],
    )
    .await;
    // Nine and a half minutes, and its own second; the test may take minutes and not see it.
    let within = |told: i64, expected_s: i64| {
        assert!(
            ((expected_s - 240) * 1_000..=expected_s * 1_000 + 1_000).contains(&told),
            "{told} ms"
        );
    };
    let (position, told) = announced(Priority::Standard).await;
    assert_eq!(position, 0);
    within(told, 570);
    // Those before count, those that come later (their work is of less importance) do not.
    let older = (now / 1_000 - 1_000).to_string();
    let newer = (now / 1_000 + 3_600_000).to_string();
    for (order, name) in [(&older, "a"), (&older, "b"), (&newer, "c")] {
        set("ZADD", &[keys.1.clone(), order.clone(), name.to_owned()]).await;
    }
    let (position, told) = announced(Priority::Standard).await;
    assert_eq!(position, 2);
    within(told, 630);
    set(
        "HSET",
        &[keys.0.clone(), "closed".to_owned(), in_minutes(30)],
    )
    .await;
    within(announced(Priority::Standard).await.1, 1_830);
    // Premium work goes to another model where there is one.
    queue::report_pace(&world.redis, &models, &[])
        .await
        .unwrap();
    within(announced(Priority::Premium).await.1, 1_830);
    queue::report_lines(&world.redis, &line(Some(Duration::from_secs(15))))
        .await
        .unwrap();
    assert_eq!(announced(Priority::Premium).await, (0, 1_000));
    // Without a limit there is no line.
    let none = [("test/first:free".to_owned(), None)];
    queue::report_lines(&world.redis, &none).await.unwrap();
    assert_eq!(announced(Priority::Standard).await, (0, 1_000));
}
