//! Who may take which notification, and when.

use std::collections::HashSet;
use std::time::Duration;

use shared::domain::{Destination, GenerationStatus};
use shared::store::conversations;
use shared::store::notifications::{self, Settlement};
use uuid::Uuid;

use crate::common::World;
use crate::{LEASE, MANY, failure, gone};

const HTTP: Destination = Destination::Http;
const AMQP: Destination = Destination::Amqp;
const HOUR: Duration = Duration::from_hours(1);

/// Replies to `count` messages of one conversation. Returns their generations, oldest first.
async fn replies(world: &World, count: usize) -> Vec<Uuid> {
    let conversation = world.conversation().await;
    let mut generations = Vec::new();
    for number in 0..count {
        let sent = world.send(conversation, &number.to_string()).await;
        world.reply(sent.generation.id, "hi").await;
        generations.push(sent.generation.id);
    }
    generations
}

#[tokio::test]
async fn a_conversation_is_told_in_order_at_each_destination() {
    let world = World::notifying(&[HTTP, AMQP]).await;
    let generations = replies(&world, 3).await;
    for generation in &generations {
        let taken = world.take_one(HTTP).await;
        assert_eq!(
            (taken.generation_id, taken.attempts),
            (Some(*generation), 1)
        );
        assert!(world.take(HTTP).await.is_empty(), "one at a time");
        world.delivered(HTTP, &taken).await;
    }
    assert!(world.take(HTTP).await.is_empty());
    // The other destination has seen nothing of that.
    assert_eq!(
        world.take_one(AMQP).await.generation_id,
        Some(generations[0])
    );
    assert_eq!(
        world.rows("destination").await,
        "amqp, amqp, amqp",
        "what was delivered is gone"
    );
}

#[tokio::test]
async fn what_failed_holds_up_its_conversation_and_no_other() {
    let world = World::notifying(&[HTTP]).await;
    let generations = replies(&world, 3).await;
    let first = world.take_one(HTTP).await;
    world.failed(HTTP, &first, HOUR).await;
    assert!(world.take(HTTP).await.is_empty());
    let (_, other) = world.replied().await;
    assert_eq!(world.take_one(HTTP).await.generation_id, Some(other));
    // Those behind it wait as long, and nobody looks at them meanwhile.
    let waiting =
        "SELECT count(*) FROM chat.notifications WHERE next_try_at > now() + interval '50 minutes'
                     AND claim_token IS NULL";
    assert_eq!(world.value(waiting).await, "3");
    let come = format!(
        "UPDATE chat.notifications SET next_try_at = now() WHERE generation_id = '{}'",
        generations[0]
    );
    world.execute(&come).await;
    let again = world.take_one(HTTP).await;
    assert_eq!((again.held.id, again.attempts), (first.held.id, 2));
    world.delivered(HTTP, &again).await;
    // They go at once and one after another.
    for generation in &generations[1..] {
        let next = world.take_one(HTTP).await;
        assert_eq!(next.generation_id, Some(*generation));
        world.delivered(HTTP, &next).await;
    }
}

#[tokio::test]
async fn a_dead_one_lets_the_next_go() {
    let world = World::notifying(&[HTTP]).await;
    let generations = replies(&world, 2).await;
    let first = world.take_one(HTTP).await;
    world.failed(HTTP, &first, HOUR).await;
    world
        .execute("UPDATE chat.notifications SET next_try_at = now() WHERE attempts = 1")
        .await;
    let again = world.take_one(HTTP).await;
    let settled = world.settle(HTTP, &[(again.held, gone())]).await;
    assert_eq!((settled.dead, settled.retried), (1, 0));
    assert_eq!(
        world.take_one(HTTP).await.generation_id,
        Some(generations[1])
    );
    assert_eq!(
        world.rows("attempts, dead_reason, last_error").await,
        "2 gone status 410, 1"
    );
}

#[tokio::test]
async fn a_day_of_tries_is_enough() {
    let world = World::notifying(&[HTTP]).await;
    world.replied().await;
    let taken = world.take_one(HTTP).await;
    world
        .execute(
            "UPDATE chat.notifications SET first_try_at = now() - interval '23 hours 50 minutes'",
        )
        .await;
    world.failed(HTTP, &taken, Duration::ZERO).await;
    let taken = world.take_one(HTTP).await;
    world
        .execute("UPDATE chat.notifications SET first_try_at = now() - interval '24 hours'")
        .await;
    let settled = world
        .settle(HTTP, &[(taken.held, failure(Duration::ZERO))])
        .await;
    assert_eq!((settled.dead, settled.retried), (1, 0));
    assert!(world.take(HTTP).await.is_empty());
    assert_eq!(world.rows("dead_reason").await, "tries_exhausted");
}

/// Many workers at once: nobody gets what another has, and the fleet has no more than it may.
#[tokio::test(flavor = "multi_thread")]
async fn workers_never_have_the_same_one_nor_too_many() {
    let world = World::notifying(&[HTTP]).await;
    for _ in 0..40 {
        world.replied().await;
    }
    let some: Vec<_> = (0..8).map(|_| world.take_some(HTTP, 4, 10)).collect();
    let taken: Vec<_> = futures::future::join_all(some)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(taken.len(), 10, "no more than the fleet may have");
    assert!(world.take_some(HTTP, 4, 10).await.is_empty());
    let rest: Vec<_> = (0..8).map(|_| world.take_some(HTTP, 7, MANY)).collect();
    let rest = futures::future::join_all(rest).await;
    let ids: HashSet<Uuid> = rest
        .iter()
        .flatten()
        .chain(&taken)
        .map(|one| one.held.id)
        .collect();
    assert_eq!(ids.len(), 40);
    assert_eq!(rest.iter().flatten().count(), 30);
}

#[tokio::test]
async fn a_claim_that_ran_out_is_taken_by_another_and_settled_by_it_alone() {
    let world = World::notifying(&[HTTP]).await;
    world.replied().await;
    let lost = world.take_for(HTTP, 1, 1, Duration::ZERO).await.remove(0);
    let taken = world.take_for(HTTP, 1, 1, LEASE).await.remove(0);
    assert_eq!(taken.held.id, lost.held.id);
    assert_ne!(taken.held.token, lost.held.token);
    assert_eq!((lost.attempts, taken.attempts), (1, 2));
    for how in [
        Settlement::Delivered,
        Settlement::Void,
        Settlement::Untried,
        failure(HOUR),
        gone(),
    ] {
        let settled = world.settle(HTTP, &[(lost.held, how)]).await;
        assert_eq!(settled.lost, 1, "{settled:?}");
    }
    assert!(world.take(HTTP).await.is_empty());
    world
        .execute("UPDATE chat.notification_destinations SET failures = 0")
        .await;
    world.delivered(HTTP, &taken).await;
    assert_eq!(world.rows("id").await, "");
}

#[tokio::test]
async fn what_was_not_tried_after_all_goes_back_as_it_was() {
    let world = World::notifying(&[HTTP]).await;
    world.replied().await;
    let taken = world.take_one(HTTP).await;
    let settled = world
        .settle(HTTP, &[(taken.held, Settlement::Untried)])
        .await;
    assert_eq!(settled.lost, 0);
    assert_eq!(
        world
            .rows("attempts, first_try_at IS NULL, claim_token IS NULL")
            .await,
        "0 t t"
    );
    assert_eq!(world.take_one(HTTP).await.attempts, 1);
}

#[tokio::test]
async fn the_content_is_read_when_it_is_told() {
    let world = World::notifying(&[HTTP]).await;
    let (conversation, generation) = world.replied().await;
    let contents = async || {
        let mut tx = world.worker.sweep_async().await.unwrap();
        notifications::contents(&mut tx, &[Uuid::new_v4(), generation])
            .await
            .unwrap()
    };
    let both = contents().await;
    assert!(both[0].is_none(), "of an erased one there is nothing");
    let content = both[1].as_ref().unwrap();
    assert_eq!(content.status, GenerationStatus::Completed);
    assert_eq!(content.reply.as_ref().unwrap().content, "hi");
    assert_eq!(content.usage.as_ref().unwrap().total_tokens, 30);
    // The reply alone was erased.
    let mut session = world.env.session().await;
    session.run("BEGIN").await.unwrap();
    let erase = "DELETE FROM chat.messages WHERE sender_type = 'assistant'";
    assert_eq!(session.run(erase).await.unwrap(), 1);
    let sql = "SELECT count(*)::text FROM chat.messages";
    assert_eq!(session.rows(sql).await.unwrap()[0][0].as_deref(), Some("1"));
    session.run("COMMIT").await.unwrap();
    assert!(contents().await[1].is_none());
    // So is what a deleted conversation held.
    let (other, told) = world.replied().await;
    assert_ne!(other, conversation);
    let mut tx = world.api.user(world.user).await.unwrap();
    conversations::delete(&mut tx, other).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = world.worker.sweep_async().await.unwrap();
    let read = notifications::contents(&mut tx, &[told]).await.unwrap();
    assert!(read[0].is_none());
}

#[tokio::test]
async fn what_is_a_month_old_is_forgotten() {
    let world = World::notifying(&[HTTP]).await;
    for _ in 0..3 {
        world.replied().await;
    }
    let taken = world.take_some(HTTP, 1, MANY).await.remove(0);
    world.settle(HTTP, &[(taken.held, gone())]).await;
    let forget = async || {
        let mut tx = world.worker.sweep_async().await.unwrap();
        let forgotten = notifications::forget(&mut tx, 10).await.unwrap();
        tx.commit().await.unwrap();
        forgotten
    };
    assert_eq!(forget().await, 0);
    // All but the youngest are of last month.
    world
        .execute(
            "UPDATE chat.notifications n SET id = o.id FROM (
                 SELECT place, (left(chat.uuid7_floor(now() - interval '31 days')::text, 24)
                                || right(id::text, 12))::uuid AS id
                 FROM chat.notifications ORDER BY place LIMIT 2) o WHERE o.place = n.place",
        )
        .await;
    assert_eq!(forget().await, 2);
    assert_eq!(
        world.value("SELECT count(*) FROM chat.notifications").await,
        "1"
    );
}
