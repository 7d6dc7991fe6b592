//! Replies of many people are stored in one statement, and read for prompts in one.

use shared::store::generations::{self, Finish, Finished, HistoryOf};
use uuid::Uuid;

use crate::common::{World, text};

impl World {
    async fn owner_of(&self, message: Uuid) -> String {
        self.value(&format!(
            "SELECT user_id FROM chat.messages WHERE id = '{message}'"
        ))
        .await
    }
}

/// A reply that is locked or lost is left out, and holds up nobody else's.
#[tokio::test]
async fn what_cannot_be_stored_with_the_others_is_left_out() {
    let world = World::new().await;
    let stranger = Uuid::new_v4();
    let mut finishes = Vec::new();
    let mut conversations = Vec::new();
    for user in [world.user, stranger, world.user, stranger, world.user] {
        let conversation = world.conversation_of(user).await;
        let sent = world.send_as(user, &text(conversation, "hello")).await;
        let claim = world.claim_one(sent.generation.id).await;
        let content = format!("a reply to {user}");
        finishes.push(world.finishing(claim.id, claim.token, &content, false));
        conversations.push(conversation);
    }
    finishes[1].token = Uuid::new_v4();
    let mut conversation_in_use = world.api.user(world.user).await.unwrap();
    let locked = generations::lock_conversation(&mut conversation_in_use, conversations[2]).await;
    assert!(locked.unwrap());
    let mut generation_in_use = world.worker.sweep_async().await.unwrap();
    let same = [(finishes[4].id, finishes[4].token)];
    generations::renew(&mut generation_in_use, &same, crate::common::LEASE)
        .await
        .unwrap();

    let mut tx = world.worker.sweep_statement().await.unwrap();
    let all: Vec<&Finish> = finishes.iter().collect();
    let finished = generations::finish_many(&mut tx, &all).await.unwrap();
    tx.commit().await.unwrap();
    let stored: Vec<bool> = finished.iter().map(Option::is_some).collect();
    assert_eq!(stored, [true, false, false, true, false]);
    assert_eq!(
        world.owner_of(finishes[0].reply_id).await,
        world.user.to_string()
    );
    assert_eq!(
        world.owner_of(finishes[3].reply_id).await,
        stranger.to_string()
    );
    for (finish, finished) in finishes.iter().zip(finished) {
        if let Some(Finished::Stored { message, title, .. }) = finished {
            assert_eq!(message.id, finish.reply_id);
            assert_eq!(message.content, finish.content);
            assert_eq!(title.unwrap().id, finish.title_generation_id);
        }
    }

    drop(conversation_in_use);
    generation_in_use.commit().await.unwrap();
    for (place, fenced) in [(1, true), (2, false), (4, false), (0, true)] {
        let mut tx = world.worker.sweep().await.unwrap();
        let finished = generations::finish(&mut tx, &finishes[place])
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(matches!(finished, Finished::Fenced), fenced, "{place}");
    }
    let replies = "SELECT count(*) FROM chat.messages WHERE sender_type = 'assistant'";
    assert_eq!(world.value(replies).await, "4");
    for books in ["usage_tracking", "attempts"] {
        let count = format!("SELECT count(*) FROM chat.{books}");
        assert_eq!(world.value(&count).await, "4", "{books}");
    }
}

/// What a single reply does wrong undoes the statement, and leaves the others to be stored alone.
#[tokio::test]
async fn a_reply_that_cannot_be_stored_spoils_no_other() {
    let world = World::new().await;
    let mut finishes = Vec::new();
    for _ in 0..2 {
        let sent = world.send(world.conversation().await, "hello").await;
        let claim = world.claim_one(sent.generation.id).await;
        finishes.push(world.finishing(claim.id, claim.token, "reply", false));
    }
    finishes[0].content = "no \0 in Postgres".to_owned();
    let mut tx = world.worker.sweep_statement().await.unwrap();
    let all: Vec<&Finish> = finishes.iter().collect();
    generations::finish_many(&mut tx, &all).await.unwrap_err();
    drop(tx);
    let mut tx = world.worker.sweep().await.unwrap();
    let finished = generations::finish(&mut tx, &finishes[1]).await.unwrap();
    assert!(matches!(finished, Finished::Stored { .. }));
}

/// A message that this version cannot read leaves its own claim without a history, and no other.
#[tokio::test]
async fn a_message_that_cannot_be_read_spoils_no_claim_but_its_own() {
    let world = World::new().await;
    let mut sent = Vec::new();
    for words in ["unreadable", "readable"] {
        sent.push(world.send(world.conversation().await, words).await);
    }
    world
        .execute(r#"UPDATE chat.messages SET attachments = '[{"of": "a later version"}]' WHERE content = 'unreadable'"#)
        .await;
    let ids = [sent[0].generation.id, sent[1].generation.id];
    let mut claims = world.claim(&ids).await;
    claims.sort_by_key(|claim| claim.id);
    assert!(claims[0].history.messages.is_empty());
    assert_eq!(claims[1].history.messages[0].content, "readable");
}

/// What a claim brings is what its conversation shows at that moment, and of nobody else's.
#[tokio::test]
async fn each_claim_brings_its_own_history() {
    let world = World::new().await;
    let stranger = Uuid::new_v4();
    let mut ids = Vec::new();
    let mut expected = Vec::new();
    for user in [world.user, stranger, world.user] {
        let conversation = world.conversation_of(user).await;
        let question = format!("what {user} asks in {conversation}");
        let first = world.send_as(user, &text(conversation, &question)).await;
        world.reply(first.generation.id, "an answer").await;
        let second = world.send_as(user, &text(conversation, "and then?")).await;
        ids.push(second.generation.id);
        expected.push(vec![
            question,
            "an answer".to_owned(),
            "and then?".to_owned(),
        ]);
    }
    let mut claims = world.claim(&ids).await;
    claims.sort_by_key(|claim| claim.id);
    let seen: Vec<Vec<String>> = claims
        .iter()
        .map(|claim| claim.history.messages.iter())
        .map(|messages| messages.map(|message| message.content.clone()).collect())
        .collect();
    assert_eq!(seen, expected);
}

/// Histories come in the order they were asked for, each person's from their own conversation.
#[tokio::test]
async fn nobody_sees_anothers_history() {
    let world = World::new().await;
    let stranger = Uuid::new_v4();
    let mut wanted = Vec::new();
    for (user, words) in [(world.user, "mine"), (stranger, "theirs")] {
        let conversation = world.conversation_of(user).await;
        let sent = world.send_as(user, &text(conversation, words)).await;
        wanted.push(HistoryOf {
            user_id: user,
            conversation_id: conversation,
            user_message_id: sent.message.id,
        });
    }
    let (mine, theirs) = (wanted[0], wanted[1]);
    wanted.push(HistoryOf {
        user_id: world.user,
        ..theirs
    });
    wanted.push(HistoryOf {
        conversation_id: mine.conversation_id,
        ..theirs
    });
    wanted.push(mine);
    let mut tx = world.worker.sweep().await.unwrap();
    let histories = generations::histories(&mut tx, &wanted, 1_000)
        .await
        .unwrap();
    let seen: Vec<Vec<&str>> = histories
        .iter()
        .map(|history| {
            history
                .messages
                .iter()
                .map(|message| message.content.as_str())
                .collect()
        })
        .collect();
    assert_eq!(
        seen,
        [vec!["mine"], vec!["theirs"], vec![], vec![], vec!["mine"]]
    );
    // Another person's scope, a sweep's or none, gives nothing to the API.
    let mut tx = world.api.sweep().await.unwrap();
    let histories = generations::histories(&mut tx, &wanted, 1_000)
        .await
        .unwrap();
    assert!(histories.iter().all(|history| history.messages.is_empty()));
}
