//! Which rows are written, by which statements.

use shared::domain::{Destination, FailureCode};
use shared::store::generations::{self, Finished};
use shared::store::{conversations, maintenance, notifications};
use uuid::Uuid;

use crate::common::{World, in_time, text};

const BOTH: [Destination; 2] = [Destination::Http, Destination::Amqp];
const HTTP: [Destination; 1] = [Destination::Http];
const WANTED: &str = "SELECT count(*) FROM chat.notification_destinations WHERE wanted";

#[tokio::test]
async fn nothing_is_written_until_somebody_is_to_be_told() {
    let world = World::new().await;
    world.replied().await;
    assert_eq!(world.rows("id").await, "");
    let told = "SELECT string_agg(destination, ' ' ORDER BY destination) FROM chat.notifications";
    let enabled = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'notify_ended'";
    assert_eq!(world.value(enabled).await, "D");
    assert!(world.switch(&BOTH).await);
    assert!(!world.switch(&BOTH).await, "it is so already");
    world.replied().await;
    assert_eq!(world.value(told).await, "amqp http");
    assert!(world.switch(&HTTP).await);
    world.replied().await;
    assert_eq!(world.value(told).await, "amqp http http");
    assert!(world.switch(&[]).await);
    assert_eq!(world.value(enabled).await, "D");
    world.replied().await;
    assert_eq!(world.value(told).await, "amqp http http");
    assert_eq!(world.value(WANTED).await, "0");
}

#[tokio::test]
async fn both_destinations_get_one_id_and_all_that_is_needed() {
    let world = World::notifying(&BOTH).await;
    let (conversation, generation) = world.replied().await;
    let ids = "SELECT count(DISTINCT id) || ' ' || count(*) FROM chat.notifications";
    assert_eq!(world.value(ids).await, "1 2");
    let id: Uuid = world
        .value("SELECT DISTINCT id FROM chat.notifications")
        .await
        .parse()
        .unwrap();
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
    let age = format!(
        "SELECT chat.uuid7_floor(now() - interval '10 minutes') < '{id}'
           AND '{id}' < chat.uuid7_floor(now() + interval '1 minute')"
    );
    assert_eq!(world.value(&age).await, "true");
    let row = "SELECT user_id || ' ' || conversation_id || ' ' || generation_id || ' ' || type
                 FROM chat.notifications WHERE destination = 'amqp'";
    assert_eq!(
        world.value(row).await,
        format!(
            "{} {conversation} {generation} chat.generation.completed",
            world.user
        )
    );
    let finished = "SELECT bool_and(n.occurred_at = g.finished_at) FROM chat.notifications n
                    JOIN chat.generations g ON g.id = n.generation_id";
    assert_eq!(world.value(finished).await, "true");
}

/// Whichever statement ends it.
#[tokio::test]
async fn every_end_of_a_generation_is_told_once() {
    let world = World::notifying(&HTTP).await;
    let kinds = "type";
    // Cut at the token limit.
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "one").await.generation.id;
    let claim = world.claim_one(sent).await;
    let cut = world.finish_with(claim.id, claim.token, "hi", true).await;
    assert!(matches!(cut, Finished::Stored { .. }));
    assert_eq!(world.rows(kinds).await, "chat.generation.completed");
    // Given up.
    let sent = world.send(conversation, "two").await.generation.id;
    world.fail(sent).await;
    // Cancelled while it runs, while it waits, and with its conversation.
    let runs = world.send(conversation, "three").await.generation.id;
    world.claim_one(runs).await;
    let waits = world.send(conversation, "four").await.generation.id;
    for id in [waits, runs] {
        let mut tx = world.api.user(world.user).await.unwrap();
        generations::cancel(&mut tx, id, None).await.unwrap();
        tx.commit().await.unwrap();
    }
    let last = world.send(conversation, "five").await.generation.id;
    let mut tx = world.api.user(world.user).await.unwrap();
    generations::cancel_unfinished(&mut tx, conversation, true)
        .await
        .unwrap();
    conversations::delete(&mut tx, conversation).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        world.rows("type, generation_id").await,
        [
            format!("chat.generation.completed {}", claim.id),
            format!("chat.generation.failed {sent}"),
            format!("chat.generation.cancelled {waits}"),
            format!("chat.generation.cancelled {runs}"),
            format!("chat.generation.cancelled {last}"),
        ]
        .join(", ")
    );
    // What a canceller did not see is kept later, and told no second time.
    let mut tx = world.worker.user(world.user).await.unwrap();
    assert!(
        generations::keep_partial(&mut tx, runs, 1, "so far")
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    assert_eq!(
        world.value("SELECT count(*) FROM chat.notifications").await,
        "5"
    );
}

#[tokio::test]
async fn what_the_sweeps_end_is_told() {
    let world = World::notifying(&HTTP).await;
    let conversation = world.conversation().await;
    let spent = world.send(conversation, "one").await.generation.id;
    world.claim_one(spent).await;
    let late = world.send(conversation, "two").await.generation.id;
    world
        .execute(&format!(
            "UPDATE chat.generations SET lease_until = now() - interval '1 second', attempt = 5 WHERE id = '{spent}';
             UPDATE chat.generations SET deadline_at = now() - interval '1 second' WHERE id = '{late}'"
        ))
        .await;
    let mut tx = world.worker.sweep_async().await.unwrap();
    assert!(maintenance::try_lock(&mut tx, "reconcile").await.unwrap());
    assert_eq!(
        generations::expired_leases(&mut tx, 10, std::time::Duration::ZERO)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        generations::expired_deadlines(&mut tx, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    tx.commit().await.unwrap();
    assert_eq!(
        world.rows("type, generation_id").await,
        format!("chat.generation.failed {spent}, chat.generation.failed {late}")
    );
    // One that goes back to the queue has not ended.
    let again = world.conversation().await;
    let sent = world.send(again, "three").await.generation.id;
    let claim = world.claim_one(sent).await;
    let mut tx = world.worker.sweep_async().await.unwrap();
    generations::release(&mut tx, &[(claim.id, claim.token)])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        world.value("SELECT count(*) FROM chat.notifications").await,
        "2"
    );
}

#[tokio::test]
async fn titles_are_nobodys_news() {
    let world = World::notifying(&HTTP).await;
    world.replied().await;
    let title = world
        .value("SELECT id FROM chat.generations WHERE kind = 'title'")
        .await
        .parse()
        .unwrap();
    world.fail(title).await;
    assert_eq!(world.rows("type").await, "chat.generation.completed");
}

#[tokio::test]
async fn an_end_that_is_rolled_back_or_fenced_tells_nobody() {
    let world = World::notifying(&HTTP).await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "one").await.generation.id;
    let claim = world.claim_one(sent).await;
    let finish = world.finishing(claim.id, claim.token, "never", false);
    let mut tx = world.worker.sweep_async().await.unwrap();
    let stored = generations::finish_many(&mut tx, &[&finish]).await.unwrap();
    assert!(matches!(stored[..], [Some(Finished::Stored { .. })]));
    drop(tx);
    assert_eq!(world.rows("id").await, "");
    // Somebody else owns it.
    let fenced = world
        .finish_with(claim.id, Uuid::new_v4(), "never", false)
        .await;
    assert!(matches!(fenced, Finished::Fenced));
    let mut tx = world.worker.user(world.user).await.unwrap();
    let code = FailureCode::Internal;
    let fenced = generations::fail(&mut tx, claim.id, Uuid::new_v4(), code, "never").await;
    assert!(matches!(fenced, Ok(generations::Failed::Fenced)));
    tx.commit().await.unwrap();
    assert_eq!(world.rows("id").await, "");
    // And once it really ended, a second end changes nothing.
    assert!(matches!(
        world.finish(&claim, "hi").await,
        Finished::Stored { .. }
    ));
    assert!(matches!(
        world.finish(&claim, "again").await,
        Finished::Fenced
    ));
    let mut tx = world.api.user(world.user).await.unwrap();
    let cancelled = generations::cancel(&mut tx, claim.id, None).await.unwrap();
    assert!(matches!(cancelled, generations::Cancelled::Ended(_)));
    tx.commit().await.unwrap();
    assert_eq!(world.rows("type").await, "chat.generation.completed");
}

#[tokio::test]
async fn many_ends_of_one_statement_are_told_each() {
    let world = World::notifying(&BOTH).await;
    let mut finishes = Vec::new();
    for number in 0..5 {
        let user = Uuid::new_v4();
        let conversation = world.conversation_of(user).await;
        let sent = world.send_as(user, &text(conversation, "hello")).await;
        let claim = world.claim_one(sent.generation.id).await;
        finishes.push(world.finishing(claim.id, claim.token, &number.to_string(), false));
    }
    let all: Vec<_> = finishes.iter().collect();
    let mut tx = world.worker.sweep_async().await.unwrap();
    generations::finish_many(&mut tx, &all).await.unwrap();
    tx.commit().await.unwrap();
    let told = "SELECT count(*) || ' ' || count(DISTINCT id) || ' ' || count(DISTINCT user_id) FROM chat.notifications";
    assert_eq!(world.value(told).await, "10 5 5");
}

/// It gives up instead of keeping everybody from ending generations, and can be called again.
#[tokio::test]
async fn switching_does_not_wait_behind_a_writer_for_long() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "hello").await.generation.id;
    let mut writer = world.env.session().await;
    writer.run("BEGIN").await.unwrap();
    writer
        .run(&format!(
            "UPDATE chat.generations SET pushed_at = now() WHERE id = '{sent}'"
        ))
        .await
        .unwrap();
    let mut tx = world.worker.sweep_async().await.unwrap();
    let refused = in_time("the switch gives up", notifications::switch(&mut tx, &HTTP)).await;
    assert!(refused.unwrap_err().is_conflict());
    drop(tx);
    assert_eq!(world.value(WANTED).await, "0");
    writer.run("ROLLBACK").await.unwrap();
    assert!(world.switch(&HTTP).await);
}

#[tokio::test]
async fn only_workers_switch_and_only_to_what_there_is() {
    let world = World::new().await;
    let mut tx = world.api.sweep().await.unwrap();
    assert!(notifications::switch(&mut tx, &HTTP).await.is_err());
    drop(tx);
    let mut worker = world
        .env
        .session_as(shared::store::ServingRole::Worker)
        .await;
    let refused = worker
        .run("SELECT chat.switch_notifications('{pigeon}')")
        .await
        .unwrap_err();
    assert_eq!(refused.code, "22023");
    // A worker cannot write rows that are not there to be told.
    let refused = worker
        .run("ALTER TABLE chat.generations ENABLE TRIGGER notify_ended")
        .await
        .unwrap_err();
    assert_eq!(refused.code, "42501");
}
