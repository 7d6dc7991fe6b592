//! A message that is accepted in one round trip, and the connection that breaks on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use secrecy::SecretString;
use shared::store::generations::{self, Accepted, Concurrency};
use shared::store::{Db, ServingRole, StoreResult};
use uuid::Uuid;

use crate::common::{World, chain, new_generation, proxy, text};

impl World {
    async fn accept_alone(&self, db: &Db, user: Uuid, into: Uuid) -> StoreResult<Accepted> {
        let (chain, message) = (chain(), text(into, "hello"));
        let generation = new_generation(&chain);
        let clock = &self.clock;
        generations::accept_alone(db, user, clock, &message, &generation, Concurrency::Enqueue)
            .await
    }

    async fn counts(&self) -> String {
        self.value(
            "SELECT (SELECT count(*) FROM chat.messages) || ' ' || (SELECT count(*) FROM chat.generations)
                    || ' ' || (SELECT sum(message_count) FROM chat.conversations)",
        )
        .await
    }
}

#[tokio::test]
async fn a_message_is_stored_in_its_own_conversation_only() {
    let world = World::new().await;
    let (mine, theirs) = (world.conversation().await, Uuid::new_v4());
    let stored = world.accept_alone(&world.api, world.user, mine).await;
    assert!(matches!(stored, Ok(Accepted::Stored { is_head: true, .. })));
    let second = world.accept_alone(&world.api, world.user, mine).await;
    assert!(matches!(
        second,
        Ok(Accepted::Stored { is_head: false, .. })
    ));
    let stranger = world.accept_alone(&world.api, theirs, mine).await;
    assert!(matches!(stranger, Ok(Accepted::ConversationNotFound)));
    assert_eq!(world.counts().await, "2 2 2");
    // The scope has ended with the statement.
    let mut tx = world.api.sweep().await.unwrap();
    let history = [shared::store::generations::HistoryOf {
        user_id: world.user,
        conversation_id: mine,
        user_message_id: Uuid::max(),
    }];
    let seen = shared::store::generations::histories(&mut tx, &history, 1_000).await;
    assert!(seen.unwrap()[0].messages.is_empty());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_again() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let lose_answer = Arc::new(AtomicBool::new(false));
    let mut config = world.env.db_config();
    let direct = world.env.database_url();
    let link = proxy::losing(proxy::server_of(direct), Arc::clone(&lose_answer)).await;
    config.url = SecretString::from(proxy::url_at(direct, link.address));
    config.pool_max = 1;
    let db = Db::connect_lazy(&config, ServingRole::Api).unwrap();
    for messages in 1..=5 {
        // The statement is prepared the first time, so that the lost answer is that of its run.
        let before = world.accept_alone(&db, world.user, conversation).await;
        assert!(matches!(before, Ok(Accepted::Stored { .. })), "{before:?}");
        lose_answer.store(true, Ordering::SeqCst);
        let stored = world.accept_alone(&db, world.user, conversation).await;
        let Ok(Accepted::Stored {
            user_message,
            generation,
            ..
        }) = stored
        else {
            panic!("not stored: {stored:?}");
        };
        assert!(!lose_answer.load(Ordering::SeqCst), "nothing broke");
        let count = messages * 2;
        assert_eq!(world.counts().await, format!("{count} {count} {count}"));
        let row = world.generation(generation.id).await;
        assert_eq!(row.user_message_id, Some(user_message.id));
        assert_eq!(row.timings.queued_at, user_message.created_at);
    }
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_replaced() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    for round in 1..=3 {
        let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                      WHERE datname = current_database() AND application_name = 'balas-api'";
        assert_ne!(world.value(killed).await, "0");
        let stored = world
            .accept_alone(&world.api, world.user, conversation)
            .await;
        assert!(matches!(stored, Ok(Accepted::Stored { .. })), "{stored:?}");
        assert_eq!(world.counts().await, format!("{round} {round} {round}"));
    }
}
