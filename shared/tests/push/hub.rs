//! The fan-out of live events in one process.

use std::time::Duration;

use redis::cmd;
use shared::domain::{Event, EventType};
use shared::id::EventId;
use shared::push::{Feed, Subscription, publish};
use tokio::sync::watch;
use uuid::Uuid;

use crate::common::{World, in_time};
use crate::stage::{Replica, Stage, delta, ids, rest};

fn event(number: u32) -> Event {
    let id = EventId {
        generation_id: Uuid::nil(),
        attempt: 1,
        seq: number,
    };
    let now = shared::clock::Clock::system().now();
    Event::of_generation(
        id,
        EventType::Delta,
        Uuid::nil(),
        now,
        &delta(number as usize),
    )
}

async fn tell(world: &World, user: Uuid, number: u32) {
    publish(&world.redis, user, &event(number)).await.unwrap();
}

/// The next event's number; a gap is none.
async fn hear(subscription: &mut Subscription) -> Option<u32> {
    in_time("something is heard", async {
        match subscription.next().await {
            Feed::Event(event) => Some(event.id.seq),
            Feed::Gap => None,
        }
    })
    .await
}

/// A replica whose subscription connection is up.
async fn connected(world: &World, database: u8) -> Replica {
    let replica = Replica::marked(world, database);
    listening(world, &replica).await;
    replica
}

/// Waits until the replica's subscription connection is up.
async fn listening(world: &World, replica: &Replica) {
    let user = Uuid::new_v4();
    let mut probe = replica.hub.subscribe(user).await;
    in_time("the hub is connected", async {
        loop {
            tell(world, user, 1).await;
            let heard = tokio::time::timeout(Duration::from_millis(100), probe.next()).await;
            if matches!(heard, Ok(Feed::Event(_))) {
                return;
            }
        }
    })
    .await;
}

/// Ends the subscription connections of one replica, as `CLIENT KILL TYPE pubsub` ends all.
async fn kill_subscriptions(world: &World, database: u8) -> usize {
    let clients: String = world
        .redis
        .command(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub"))
        .await
        .unwrap();
    let marked = clients
        .lines()
        .filter(|client| client.contains(&format!(" db={database} ")));
    let ids: Vec<&str> = marked
        .filter_map(|client| {
            client
                .split(' ')
                .find_map(|field| field.strip_prefix("id="))
        })
        .collect();
    for id in &ids {
        world
            .redis
            .command::<i64>(cmd("CLIENT").arg("KILL").arg("ID").arg(id))
            .await
            .unwrap();
    }
    ids.len()
}

#[tokio::test]
async fn every_listener_of_a_user_hears_everything_and_nobody_else_does() {
    let world = World::new().await;
    let replica = connected(&world, 0).await;
    let (ana, budi) = (Uuid::new_v4(), Uuid::new_v4());
    let mut listeners = [
        replica.hub.subscribe(ana).await,
        replica.hub.subscribe(ana).await,
    ];
    let mut other = replica.hub.subscribe(budi).await;
    for number in 1..=3 {
        tell(&world, ana, number).await;
    }
    tell(&world, budi, 9).await;
    for listener in &mut listeners {
        assert_eq!(listener.user_id(), ana);
        for number in 1..=3 {
            assert_eq!(hear(listener).await, Some(number));
        }
    }
    assert_eq!(hear(&mut other).await, Some(9));
    // One goes, the other goes on hearing.
    let [first, mut second] = listeners;
    drop(first);
    tell(&world, ana, 4).await;
    assert_eq!(hear(&mut second).await, Some(4));
    // The last goes and somebody comes back at once.
    drop(second);
    let mut again = replica.hub.subscribe(ana).await;
    tell(&world, ana, 5).await;
    assert_eq!(hear(&mut again).await, Some(5));
    assert_eq!(replica.hub.listeners(), 2);
}

#[tokio::test]
async fn what_is_not_an_event_is_not_heard() {
    let world = World::new().await;
    let replica = connected(&world, 0).await;
    let user = Uuid::new_v4();
    let mut listener = replica.hub.subscribe(user).await;
    let channel = world.redis.key(format_args!("user:{user}"));
    for garbage in [&b"{}"[..], b"\xff\xfe", b"", b"{\"id\":\"1\"}"] {
        world
            .redis
            .command::<i64>(cmd("PUBLISH").arg(&channel).arg(garbage))
            .await
            .unwrap();
    }
    tell(&world, user, 7).await;
    assert_eq!(hear(&mut listener).await, Some(7));
}

#[tokio::test]
async fn a_listener_that_falls_behind_is_told_of_the_gap_after_what_it_has() {
    let world = World::new().await;
    let replica = connected(&world, 0).await;
    let user = Uuid::new_v4();
    let mut slow = replica.hub.subscribe(user).await;
    let mut quick = replica.hub.subscribe(user).await;
    for number in 1..=300 {
        tell(&world, user, number).await;
        assert_eq!(hear(&mut quick).await, Some(number));
    }
    for number in 1..=256 {
        assert_eq!(hear(&mut slow).await, Some(number));
    }
    assert_eq!(hear(&mut slow).await, None, "a gap");
    tell(&world, user, 301).await;
    assert_eq!(hear(&mut slow).await, Some(301));
    assert_eq!(hear(&mut quick).await, Some(301), "who keeps up has no gap");
}

#[tokio::test]
async fn a_killed_connection_is_a_gap_and_comes_back() {
    let world = World::new().await;
    let replica = connected(&world, 11).await;
    let users = [Uuid::new_v4(), Uuid::new_v4()];
    let mut listeners = [
        replica.hub.subscribe(users[0]).await,
        replica.hub.subscribe(users[1]).await,
    ];
    for round in 1..=3 {
        assert_eq!(
            kill_subscriptions(&world, 11).await,
            1,
            "one connection whatever the listeners"
        );
        for listener in &mut listeners {
            assert_eq!(hear(listener).await, None, "round {round}");
        }
        // The gap is told when the users are subscribed to again.
        for (listener, user) in listeners.iter_mut().zip(users) {
            tell(&world, user, round).await;
            assert_eq!(hear(listener).await, Some(round));
        }
    }
    // Somebody who comes while the connection is away.
    kill_subscriptions(&world, 11).await;
    let late = Uuid::new_v4();
    let mut listener = replica.hub.subscribe(late).await;
    in_time("the newcomer hears", async {
        loop {
            tell(&world, late, 4).await;
            let heard = tokio::time::timeout(Duration::from_millis(100), listener.next()).await;
            if matches!(heard, Ok(Feed::Event(_))) {
                return;
            }
        }
    })
    .await;
}

/// Events are written on while the connection is killed: the follower misses none.
#[tokio::test]
async fn a_follower_misses_nothing_while_its_connection_is_killed() {
    let stage = Stage::new().await;
    let replica = connected(&stage.world, 12).await;
    let mut follow = replica.follow(&stage.world, stage.id(), None).await;
    let mut writer = stage.writer();
    let mut killed = 0;
    for number in 0..60 {
        if number % 10 == 5 {
            killed += kill_subscriptions(&stage.world, 12).await;
        }
        writer.write(EventType::Delta, &delta(number)).await;
        if number % 7 == 0 {
            in_time("an event comes", follow.next())
                .await
                .unwrap()
                .unwrap();
        }
    }
    assert!(killed > 0);
    // Read in between: after every seventh event.
    let seen = 9;
    let terminal = stage.store(&stage.claim, "the reply").await;
    writer.end(&terminal, []).await.unwrap();
    let rest = ids(&rest(&mut follow).await);
    let all: Vec<_> = [stage.event_id(0, 1)]
        .into_iter()
        .chain((1..=60).map(|seq| stage.event_id(1, seq)))
        .chain([terminal.id])
        .collect();
    assert_eq!(rest, all[seen..]);
}

/// Without Redis the row still tells how it ended.
#[tokio::test]
async fn a_follower_without_redis_learns_the_end_from_the_row() {
    let stage = Stage::new().await;
    let nobody = crate::common::proxy::nobody().await;
    let config = shared::redis::RedisConfig {
        url: format!("redis://{nobody}").into(),
        prefix: "away".to_owned(),
        authorities: None,
    };
    let redis = shared::redis::Redis::connect_lazy(&config).unwrap();
    let (hub, run) = shared::push::Hub::new(redis.clone());
    let mut task = tokio::task::JoinSet::new();
    task.spawn(run);
    let world = &stage.world;
    let mut follow =
        shared::push::Follow::new(world.api.clone(), redis, &hub, world.user, stage.id(), None)
            .await;
    let ended = async {
        let terminal = stage.store(&stage.claim, "the reply").await;
        terminal.id
    };
    let (read, terminal) = tokio::join!(rest(&mut follow), ended);
    assert_eq!(ids(&read), [terminal]);
}

/// Many come at once, or Redis is slow: a listener does not wait for ever, and what is published before it
/// is subscribed to must not be missing without a word.
#[tokio::test]
async fn whoever_is_subscribed_to_late_is_told_of_the_gap() {
    let world = World::new().await;
    let (hold, held) = watch::channel(false);
    let (replica, _link) = Replica::behind(&world, held).await;
    listening(&world, &replica).await;

    hold.send(true).unwrap();
    let users: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    let mut listeners =
        futures::future::join_all(users.iter().map(|user| replica.hub.subscribe(*user))).await;
    // Who comes and goes meanwhile leaves nothing behind.
    drop(replica.hub.subscribe(Uuid::new_v4()).await);
    for user in &users {
        tell(&world, *user, 1).await;
    }
    hold.send(false).unwrap();
    for (listener, user) in listeners.iter_mut().zip(&users) {
        assert_eq!(hear(listener).await, None, "a gap");
        tell(&world, *user, 2).await;
        assert_eq!(hear(listener).await, Some(2));
    }
    let subscribed = in_time("the subscriptions are counted", async {
        let mut count = cmd("PUBSUB");
        count.arg("NUMSUB");
        for user in &users {
            count.arg(world.redis.key(format_args!("user:{user}")));
        }
        world
            .redis
            .command::<Vec<(String, u32)>>(&count)
            .await
            .unwrap()
    })
    .await;
    assert!(
        subscribed.iter().all(|(_, count)| *count == 1),
        "{subscribed:?}"
    );
}
