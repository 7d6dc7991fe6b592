//! What becomes of a new message.

use std::collections::HashSet;

use shared::clock::Clock;
use shared::store::generations::{self, Accepted, Concurrency, Regenerated};
use shared::store::messages::Cursor;
use shared::store::{conversations, messages};
use time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::common::{Sent, World, chain, in_time, new_generation, text};

impl World {
    async fn rows(&self) -> [String; 3] {
        [
            self.value("SELECT count(*) FROM chat.messages").await,
            self.value("SELECT count(*) FROM chat.generations").await,
            self.value("SELECT COALESCE(sum(message_count), 0) FROM chat.conversations")
                .await,
        ]
    }

    async fn try_send(
        &self,
        user: Uuid,
        conversation: Uuid,
        parent: Option<Uuid>,
        how: Concurrency,
    ) -> Accepted {
        let chain = chain();
        let mut message = text(conversation, "hello");
        message.parent_message_id = parent;
        self.accept(user, &message, &new_generation(&chain), how)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn what_cannot_be_accepted_stores_nothing() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "first").await;
    let elsewhere = world
        .send(world.conversation().await, "elsewhere")
        .await
        .message
        .id;
    let (archived, deleted) = (world.conversation().await, world.conversation().await);
    let mut tx = world.api.user(world.user).await.unwrap();
    let archive = conversations::Changes {
        status: Some(shared::domain::ConversationStatus::Archived),
        ..Default::default()
    };
    conversations::edit(&mut tx, archived, None, &archive)
        .await
        .unwrap();
    assert!(
        conversations::delete(&mut tx, deleted)
            .await
            .unwrap()
            .is_some()
    );
    tx.commit().await.unwrap();
    let before = world.rows().await;
    let stranger = Uuid::new_v4();
    let enqueue = Concurrency::Enqueue;
    for (what, accepted, expected) in [
        (
            "no such conversation",
            world
                .try_send(world.user, Uuid::new_v4(), None, enqueue)
                .await,
            "ConversationNotFound",
        ),
        (
            "somebody else's",
            world.try_send(stranger, conversation, None, enqueue).await,
            "ConversationNotFound",
        ),
        (
            "deleted",
            world.try_send(world.user, deleted, None, enqueue).await,
            "ConversationNotFound",
        ),
        (
            "archived",
            world.try_send(world.user, archived, None, enqueue).await,
            "NotActive",
        ),
        (
            "no such parent",
            world
                .try_send(world.user, conversation, Some(stranger), enqueue)
                .await,
            "ParentNotFound",
        ),
        (
            "a foreign parent",
            world
                .try_send(world.user, conversation, Some(elsewhere), enqueue)
                .await,
            "ParentNotFound",
        ),
        (
            "busy",
            world
                .try_send(world.user, conversation, None, Concurrency::Reject)
                .await,
            "Busy",
        ),
    ] {
        assert_eq!(format!("{accepted:?}"), expected, "{what}");
    }
    assert_eq!(world.rows().await, before);
    let with_parent = world
        .try_send(world.user, conversation, Some(sent.message.id), enqueue)
        .await;
    assert!(matches!(
        with_parent,
        Accepted::Stored { is_head: false, .. }
    ));
}

#[tokio::test]
async fn a_conversation_is_busy_from_acceptance_to_the_end() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let reject = || world.try_send(world.user, conversation, None, Concurrency::Reject);
    let Accepted::Stored {
        generation,
        is_head: true,
        ..
    } = reject().await
    else {
        panic!("nothing was unfinished");
    };
    assert!(matches!(reject().await, Accepted::Busy));
    let claim = world.claim_one(generation.id).await;
    assert!(matches!(reject().await, Accepted::Busy));
    world.finish(&claim, "done").await;
    // The title that came with the first reply keeps nobody waiting.
    let unfinished = world
        .value("SELECT string_agg(kind, ',') FROM chat.generations WHERE status = 'queued'")
        .await;
    assert_eq!(unfinished, "title");
    assert!(matches!(
        reject().await,
        Accepted::Stored { is_head: true, .. }
    ));
}

/// Whoever rejects must see what another one is just committing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_that_would_not_wait_one_is_stored() {
    let world = World::new().await;
    for round in 0..20 {
        let conversation = world.conversation().await;
        let attempts =
            (0..4).map(|_| world.try_send(world.user, conversation, None, Concurrency::Reject));
        let outcomes = futures::future::join_all(attempts).await;
        let stored = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Accepted::Stored { .. }));
        assert_eq!(stored.count(), 1, "round {round}: {outcomes:?}");
        let busy = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Accepted::Busy));
        assert_eq!(busy.count(), 3, "round {round}");
    }
}

/// The same without luck: the second is certain to have begun before the first has committed.
#[tokio::test]
async fn an_acceptance_that_waited_for_another_sees_it() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let chain = chain();
    for (how, expected) in [
        (Concurrency::Enqueue, "Stored false"),
        (Concurrency::Reject, "Busy"),
        (Concurrency::Interrupt, "Stored false"),
    ] {
        let mut first = world.api.user(world.user).await.unwrap();
        let message = text(conversation, "first");
        generations::accept(
            &mut first,
            &world.clock,
            &message,
            &new_generation(&chain),
            Concurrency::Enqueue,
        )
        .await
        .unwrap();
        let second = world.try_send(world.user, conversation, None, how);
        let committed = async {
            crate::common::until("the second waits for the first", async || {
                let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
                (world.value(waiting).await == "1").then_some(())
            })
            .await;
            first.commit().await.unwrap();
        };
        let (second, ()) = in_time("both are accepted", async {
            tokio::join!(second, committed)
        })
        .await;
        let shown = match second {
            Accepted::Stored { is_head, .. } => format!("Stored {is_head}"),
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected, "{how:?}");
        let mut tx = world.api.user(world.user).await.unwrap();
        generations::cancel_unfinished(&mut tx, conversation, true)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

/// A reply that is being stored while the next message comes, or the wish for another answer, must
/// not leave that one parked: nobody would wake it.
#[tokio::test]
async fn what_waited_for_the_end_of_its_predecessor_is_head() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let first = world.send(conversation, "first").await;
    let answer = world.reply(first.generation.id, "answer").await;
    let chain = chain();
    for regenerate in [false, true] {
        let claim = world
            .claim_one(world.send(conversation, "next").await.generation.id)
            .await;
        let mut tx = world.worker.sweep_async().await.unwrap();
        let finish = world.finishing(claim.id, claim.token, "done", false);
        let finished = generations::finish(&mut tx, &finish).await.unwrap();
        assert!(matches!(
            finished,
            generations::Finished::Stored { next, .. } if next.is_empty()
        ));
        let waiting = async {
            if regenerate {
                let mut tx = world.api.user(world.user).await.unwrap();
                let new = new_generation(&chain);
                let regenerated =
                    generations::regenerate(&mut tx, &world.clock, conversation, answer.id, &new)
                        .await
                        .unwrap();
                tx.commit().await.unwrap();
                matches!(regenerated, Regenerated::Queued { is_head: true, .. })
            } else {
                let second = world
                    .try_send(world.user, conversation, None, Concurrency::Enqueue)
                    .await;
                matches!(second, Accepted::Stored { is_head: true, .. })
            }
        };
        let committed = async {
            crate::common::until("it waits for the reply", async || {
                let waiting = "SELECT count(*) FROM pg_stat_activity
                               WHERE datname = current_database() AND wait_event_type = 'Lock'";
                (world.value(waiting).await == "1").then_some(())
            })
            .await;
            tx.commit().await.unwrap();
        };
        let both = async { tokio::join!(waiting, committed) };
        let (is_head, ()) = in_time("both are stored", both).await;
        assert!(is_head, "regenerate: {regenerate}");
        let mut tx = world.api.user(world.user).await.unwrap();
        generations::cancel_unfinished(&mut tx, conversation, true)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_interrupting_message_takes_the_place_of_the_unfinished_ones() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let (first, second) = (
        world.send(conversation, "1").await,
        world.send(conversation, "2").await,
    );
    world.claim_one(first.generation.id).await;
    let chain = chain();
    let mut tx = world.api.user(world.user).await.unwrap();
    assert!(
        generations::lock_conversation(&mut tx, conversation)
            .await
            .unwrap()
    );
    let cancelled = generations::cancel_unfinished(&mut tx, conversation, false)
        .await
        .unwrap();
    let mut ids: Vec<_> = cancelled.rows.iter().map(|row| row.generation.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [first.generation.id, second.generation.id]);
    assert!(cancelled.next.is_empty(), "nothing is left to wake");
    let message = text(conversation, "3");
    let accepted = generations::accept(
        &mut tx,
        &world.clock,
        &message,
        &new_generation(&chain),
        Concurrency::Interrupt,
    )
    .await;
    tx.commit().await.unwrap();
    assert!(matches!(
        accepted,
        Ok(Accepted::Stored { is_head: true, .. })
    ));
}

/// Two replicas' clocks differ; ids of a conversation order all the same.
#[tokio::test]
async fn ids_go_on_after_a_conversation_that_lies_in_the_future() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let ahead = Clock::manual(world.clock.now() + Duration::minutes(5));
    let behind = Clock::manual(world.clock.now() - Duration::days(1));
    let chain = chain();
    let mut ids = Vec::new();
    for (number, clock) in [&world.clock, &ahead, &behind, &world.clock, &behind]
        .into_iter()
        .enumerate()
    {
        let content = number.to_string();
        let message = text(conversation, &content);
        let mut tx = world.api.user(world.user).await.unwrap();
        let accepted = generations::accept(
            &mut tx,
            clock,
            &message,
            &new_generation(&chain),
            Concurrency::Enqueue,
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let Accepted::Stored {
            user_message,
            generation,
            is_head,
            ..
        } = accepted
        else {
            panic!("{accepted:?}");
        };
        assert_eq!(is_head, number == 0);
        ids.extend([user_message.id, generation.id]);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(ids.iter().all(|id| id.get_version_num() == 7));
    let mut tx = world.api.user(world.user).await.unwrap();
    let (page, _) = messages::list(&mut tx, conversation, Cursor::Newest, 10)
        .await
        .unwrap();
    let contents: Vec<_> = page
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert_eq!(contents, ["0", "1", "2", "3", "4"]);
    assert_eq!(
        world.value("SELECT last_id FROM chat.conversations").await,
        ids[9].to_string()
    );
    drop(tx);
    // A reply by a worker whose clock is behind sorts after its question, and so does what follows.
    let reply = world.reply(ids[1], "answer").await;
    let regenerated = world.regenerate(conversation, reply.id).await;
    assert!(ids[1] < reply.id && ids[9] < regenerated.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_in_one_conversation_keep_an_order() {
    let world = std::sync::Arc::new(World::new().await);
    let conversation = world.conversation().await;
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let world = world.clone();
        callers.spawn(async move {
            let mut sent = Vec::new();
            for number in 0..10 {
                sent.push(
                    world
                        .send(conversation, &format!("{caller}.{number}"))
                        .await,
                );
            }
            sent
        });
    }
    let mut all: Vec<Sent> = Vec::new();
    while let Some(sent) = callers.join_next().await {
        let sent = sent.unwrap();
        let ids: Vec<_> = sent.iter().map(|sent| sent.message.id).collect();
        assert!(
            ids.is_sorted_by(|a, b| a < b),
            "each caller's own order is kept"
        );
        all.extend(sent);
    }
    all.sort_by_key(|sent| sent.message.id);
    let ids: Vec<_> = all
        .iter()
        .flat_map(|sent| [sent.message.id, sent.generation.id])
        .collect();
    assert!(
        ids.is_sorted_by(|a, b| a < b),
        "no message came between another and its generation"
    );
    let heads: Vec<_> = all.iter().map(|sent| sent.is_head).collect();
    assert_eq!(heads.iter().filter(|is_head| **is_head).count(), 1);
    assert!(heads[0], "the oldest is the head");
    let row = world
        .value("SELECT message_count || ' ' || last_id FROM chat.conversations")
        .await;
    assert_eq!(row, format!("80 {}", all[79].generation.id));
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 160);
    // Only the first can be claimed, whichever are asked for.
    let asked: Vec<_> = all.iter().rev().map(|sent| sent.generation.id).collect();
    let claims = world.claim(&asked).await;
    assert_eq!(
        claims.iter().map(|claim| claim.id).collect::<Vec<_>>(),
        [all[0].generation.id]
    );
}

#[tokio::test]
async fn another_answer_is_for_replies_only() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "question").await;
    let reply = world.reply(sent.generation.id, "answer").await;
    let chain = chain();
    let ask = async |user: Uuid, conversation: Uuid, message: Uuid| {
        let mut tx = world.api.user(user).await.unwrap();
        generations::regenerate(
            &mut tx,
            &world.clock,
            conversation,
            message,
            &new_generation(&chain),
        )
        .await
        .unwrap()
    };
    let elsewhere = world.conversation().await;
    for (what, outcome, expected) in [
        (
            "a question",
            ask(world.user, conversation, sent.message.id).await,
            "NotAReply",
        ),
        (
            "nothing",
            ask(world.user, conversation, Uuid::new_v4()).await,
            "NotFound",
        ),
        (
            "in the wrong conversation",
            ask(world.user, elsewhere, reply.id).await,
            "NotFound",
        ),
        (
            "somebody else's",
            ask(Uuid::new_v4(), conversation, reply.id).await,
            "NotFound",
        ),
    ] {
        assert_eq!(format!("{outcome:?}"), expected, "{what}");
    }
    let again = world.regenerate(conversation, reply.id).await;
    assert_eq!(again.user_message_id, Some(sent.message.id));
    // The old reply stays until the new one is stored.
    let old = "SELECT superseded_by IS NULL FROM chat.messages WHERE content = 'answer'";
    assert_eq!(world.value(old).await, "true");
    let better = world.reply(again.id, "better").await;
    let superseded = "SELECT superseded_by FROM chat.messages WHERE content = 'answer'";
    assert_eq!(world.value(superseded).await, better.id.to_string());
    assert_eq!(
        world
            .value("SELECT count(*) FROM chat.messages WHERE superseded_by IS NULL")
            .await,
        "2"
    );
    let mut tx = world.api.user(world.user).await.unwrap();
    let archive = conversations::Changes {
        status: Some(shared::domain::ConversationStatus::Archived),
        ..Default::default()
    };
    conversations::edit(&mut tx, conversation, None, &archive)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let outcome = ask(world.user, conversation, better.id).await;
    assert!(matches!(outcome, Regenerated::NotActive), "{outcome:?}");
}
