//! Notifications that were given up: what operators see and do.

use shared::domain::{DeadNotification, DeadReason, Destination};
use shared::store::audit::Actor;
use shared::store::notifications::{self, Filter, Which};
use shared::store::{Db, ServingRole};
use uuid::Uuid;

use crate::common::World;
use crate::gone;

const BOTH: [Destination; 2] = [Destination::Amqp, Destination::Http];
const ALL: Filter = Filter {
    destination: None,
    reason: None,
    user_id: None,
    before: None,
    limit: 100,
};
const EVERYWHERE: Which = Which {
    destination: None,
    reason: None,
};

fn actor() -> Actor {
    Actor {
        name: "an operator".to_owned(),
        request_id: Some("request-1".to_owned()),
    }
}

impl World {
    /// So many notifications, dead at both destinations. Newest first.
    async fn dead(&self, count: usize) -> Vec<Uuid> {
        for _ in 0..count {
            self.replied().await;
        }
        for destination in BOTH {
            self.execute("UPDATE chat.notification_destinations SET failures = 0, paused_until = '-infinity'")
                .await;
            let taken = self.take(destination).await;
            assert_eq!(taken.len(), count);
            let ended: Vec<_> = taken.iter().map(|taken| (taken.held, gone())).collect();
            let settled = self.settle(destination, &ended).await;
            assert_eq!(settled.dead, count as u64);
        }
        let ids = self
            .value("SELECT string_agg(id::text, ' ' ORDER BY id DESC) FROM chat.notifications WHERE destination = 'http'")
            .await;
        ids.split(' ').map(|id| id.parse().unwrap()).collect()
    }

    async fn list(&self, filter: &Filter) -> (Vec<DeadNotification>, bool) {
        let view: Db = self.env.db(ServingRole::Operator);
        let mut tx = view.operator().await.unwrap();
        notifications::list(&mut tx, filter).await.unwrap()
    }

    async fn again(&self, id: Uuid, which: Which) -> Vec<Destination> {
        let mut tx = self.api.user(self.user).await.unwrap();
        let again = notifications::replay(&mut tx, &self.clock, id, which, &actor())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        again
    }

    async fn away(&self, id: Uuid, which: Which) -> Vec<Destination> {
        let mut tx = self.api.user(self.user).await.unwrap();
        let gone = notifications::discard(&mut tx, &self.clock, id, which, &actor())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        gone
    }
}

/// Whatever the size of a page, every delivery is on exactly one.
#[tokio::test]
async fn a_page_never_parts_the_destinations_of_one() {
    let world = World::notifying(&BOTH).await;
    let ids = world.dead(3).await;
    for limit in 1..=4 {
        let (mut before, mut seen) = (None, Vec::new());
        loop {
            let filter = Filter {
                before,
                limit,
                ..ALL
            };
            let (page, has_more) = world.list(&filter).await;
            assert!(i64::try_from(page.len()).unwrap() <= limit);
            for dead in &page {
                let destinations: Vec<_> = dead
                    .deliveries
                    .iter()
                    .map(|delivery| delivery.destination)
                    .collect();
                assert_eq!(destinations, BOTH, "page of {limit}");
            }
            seen.extend(page.iter().map(|dead| dead.id));
            before = seen.last().copied();
            if !has_more {
                break;
            }
        }
        assert_eq!(seen, ids, "page of {limit}");
    }
}

#[tokio::test]
async fn a_dead_notification_tells_why_and_nothing_of_what_was_said() {
    let world = World::notifying(&[Destination::Http]).await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "the secret of a person").await;
    world
        .reply(sent.generation.id, "the secret of a reply")
        .await;
    let taken = world.take_one(Destination::Http).await;
    world
        .settle(Destination::Http, &[(taken.held, gone())])
        .await;
    let (dead, has_more) = world.list(&ALL).await;
    assert!(!has_more);
    let [dead] = &dead[..] else {
        panic!("{dead:?}");
    };
    assert_eq!(dead.generation_id, Some(sent.generation.id));
    assert_eq!(
        (dead.user_id, dead.conversation_id),
        (world.user, conversation)
    );
    let [delivery] = &dead.deliveries[..] else {
        panic!("{dead:?}");
    };
    assert_eq!(delivery.reason, DeadReason::Gone);
    assert_eq!(delivery.last_error.as_deref(), Some("status 410"));
    assert_eq!(delivery.attempts, 1);
    assert!(!serde_json::to_string(dead).unwrap().contains("secret"));
    let view = world.env.db(ServingRole::Operator);
    let mut tx = view.operator().await.unwrap();
    let counts = notifications::counts(&mut tx).await.unwrap();
    assert_eq!(counts.len(), 1);
    assert_eq!(
        (counts[0].destination, counts[0].count),
        (Destination::Http, 1)
    );
    for filter in [
        Filter {
            destination: Some(Destination::Amqp),
            ..ALL
        },
        Filter {
            reason: Some(DeadReason::TriesExhausted),
            ..ALL
        },
        Filter {
            user_id: Some(Uuid::new_v4()),
            ..ALL
        },
        Filter {
            before: Some(dead.id),
            ..ALL
        },
    ] {
        assert!(world.list(&filter).await.0.is_empty(), "{filter:?}");
    }
}

#[tokio::test]
async fn a_replay_is_tried_for_another_day_and_noted() {
    let world = World::notifying(&BOTH).await;
    let id = world.dead(1).await[0];
    let only_http = Which {
        destination: Some(Destination::Http),
        ..EVERYWHERE
    };
    assert_eq!(world.again(id, only_http).await, [Destination::Http]);
    assert_eq!(world.again(id, only_http).await, [], "it is not dead there");
    let taken = world.take_one(Destination::Http).await;
    assert_eq!((taken.held.id, taken.attempts), (id, 2));
    world
        .execute(
            "UPDATE chat.notification_destinations SET failures = 0, paused_until = '-infinity'",
        )
        .await;
    assert!(world.take(Destination::Amqp).await.is_empty());
    let (dead, _) = world.list(&ALL).await;
    assert_eq!(dead[0].deliveries.len(), 1);
    assert_eq!(world.away(id, EVERYWHERE).await, [Destination::Amqp]);
    assert!(world.list(&ALL).await.0.is_empty());
    assert_eq!(world.rows("destination").await, "http");
    let trail = "SELECT string_agg(concat_ws(' ', actor, action, subject, user_id, request_id, details), E'\\n' ORDER BY at)
                 FROM chat.audit_log";
    let user = world.user;
    assert_eq!(
        world.value(trail).await,
        format!(
            "an operator dead_notification.replay {id} {user} request-1 {{\"destinations\": [\"http\"]}}\n\
             an operator dead_notification.discard {id} {user} request-1 {{\"destinations\": [\"amqp\"]}}"
        )
    );
}

#[tokio::test]
async fn a_neighbours_is_nobodys_to_replay() {
    let world = World::notifying(&BOTH).await;
    let id = world.dead(1).await[0];
    let mut tx = world.api.user(Uuid::new_v4()).await.unwrap();
    for _ in 0..2 {
        let again = notifications::replay(&mut tx, &world.clock, id, EVERYWHERE, &actor())
            .await
            .unwrap();
        assert!(again.is_empty());
    }
    let gone = notifications::discard(&mut tx, &world.clock, id, EVERYWHERE, &actor())
        .await
        .unwrap();
    assert!(gone.is_empty());
    tx.commit().await.unwrap();
    assert_eq!(world.list(&ALL).await.0.len(), 1);
    assert_eq!(
        world.value("SELECT count(*) FROM chat.audit_log").await,
        "0"
    );
}

#[tokio::test]
async fn those_alike_are_found_with_their_owners() {
    let world = World::notifying(&BOTH).await;
    let mut ids = world.dead(3).await;
    ids.reverse();
    let view = world.env.db(ServingRole::Operator);
    let like = async |which: Which, after: Option<Uuid>, limit: i64| -> Vec<Uuid> {
        let mut tx = view.operator().await.unwrap();
        let found = notifications::like(&mut tx, which, after, limit)
            .await
            .unwrap();
        assert!(found.iter().all(|(_, owner)| *owner == world.user));
        found.into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(like(EVERYWHERE, None, 2).await, ids[..2]);
    assert_eq!(like(EVERYWHERE, Some(ids[1]), 2).await, ids[2..]);
    let exhausted = Which {
        reason: Some(DeadReason::TriesExhausted),
        ..EVERYWHERE
    };
    assert!(like(exhausted, None, 2).await.is_empty());
    let mut tx = view.operator().await.unwrap();
    let owners = notifications::owners(&mut tx, &[ids[2], Uuid::new_v4(), ids[0]])
        .await
        .unwrap();
    assert_eq!(owners, [(ids[0], world.user), (ids[2], world.user)]);
}
