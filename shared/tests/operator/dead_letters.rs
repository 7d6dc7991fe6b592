//! Dead letters: what is one, and what a replay does to the promises.

use shared::domain::{DeadLetter, DeadLetterCount, FailureCode, GenerationKind, GenerationStatus};
use shared::models::Model;
use shared::store::conversations;
use shared::store::dead_letters::{self, Filter, Refused, Replayed};
use shared::store::generations::{self, Finished};
use uuid::Uuid;

use super::{actor, look, view};
use crate::common::{World, in_time};

const ALL: Filter = Filter {
    error_code: None,
    kind: None,
    user_id: None,
    before: None,
    limit: 100,
};

impl World {
    async fn letters(&self, filter: &Filter) -> Vec<DeadLetter> {
        let view = view(self);
        dead_letters::list(&mut look(&view).await, filter)
            .await
            .unwrap()
            .0
    }

    async fn replay(&self, letter: Uuid, first: Option<&Model>) -> Result<Replayed, Refused> {
        let mut tx = self.api.user(self.user).await.unwrap();
        let replayed = dead_letters::replay(&mut tx, &self.clock, letter, first, &actor())
            .await
            .unwrap();
        if replayed.is_ok() {
            tx.commit().await.unwrap();
        }
        replayed
    }

    async fn discard(&self, letter: Uuid) -> Result<(), Refused> {
        let mut tx = self.api.user(self.user).await.unwrap();
        let discarded = dead_letters::discard(&mut tx, &self.clock, letter, &actor())
            .await
            .unwrap();
        if discarded.is_ok() {
            tx.commit().await.unwrap();
        }
        discarded
    }

    /// A message whose generation failed.
    async fn letter(&self, conversation: Uuid, content: &str) -> (Uuid, Uuid) {
        let sent = self.send(conversation, content).await;
        self.fail(sent.generation.id).await;
        (sent.message.id, sent.generation.id)
    }

    async fn trail(&self) -> String {
        self.value(
            "SELECT string_agg(concat_ws(' ', actor, action, subject, user_id, request_id, details), E'\\n' ORDER BY id)
             FROM chat.audit_log",
        )
        .await
    }
}

fn refused(replayed: Result<Replayed, Refused>) -> Refused {
    match replayed {
        Ok(replayed) => panic!("replayed as {}", replayed.generation.id),
        Err(refused) => refused,
    }
}

#[tokio::test]
async fn what_failed_is_a_dead_letter_and_tells_why() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let (_, failed) = world.letter(conversation, "the secret of a person").await;
    let answered = world.send(conversation, "again").await.generation.id;
    world.reply(answered, "hello").await;
    let queued = world.send(conversation, "wait").await.generation.id;
    let letters = world.letters(&ALL).await;
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert_eq!((letter.id, letter.user_id), (failed, world.user));
    assert_eq!(letter.conversation_id, conversation);
    assert_eq!(letter.error.code, FailureCode::UpstreamExhausted);
    assert_eq!(letter.last_error.as_deref(), Some("no model answered"));
    assert_eq!(letter.attempts, 1);
    assert_eq!(letter.worker.as_deref(), Some("worker/boot"));
    assert_eq!(letter.models, ["test/first:free", "test/second:free"]);
    assert!(letter.failed_at >= letter.queued_at);
    assert!((0..600).contains(&letter.age_seconds));
    let shown = serde_json::to_string(letter).unwrap();
    assert!(!shown.contains("secret of a person"), "{shown}");
    // One that is cancelled was wanted no more, and waits for nobody.
    let mut tx = world.api.user(world.user).await.unwrap();
    generations::cancel(&mut tx, queued, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.letters(&ALL).await.len(), 1);
}

#[tokio::test]
async fn dead_letters_are_listed_newest_first_by_page_and_reason() {
    let world = World::new().await;
    let mut letters = Vec::new();
    for number in 0..3 {
        let conversation = world.conversation().await;
        letters.push(world.letter(conversation, &number.to_string()).await.1);
    }
    letters.sort_unstable_by(|a, b| b.cmp(a));
    let code = |code: &str, id: Uuid| {
        format!("UPDATE chat.generations SET error_code = '{code}' WHERE id = '{id}'")
    };
    world.execute(&code("content_refused", letters[1])).await;
    let ids = async |filter: Filter| -> Vec<Uuid> {
        let letters = world.letters(&filter).await;
        letters.into_iter().map(|letter| letter.id).collect()
    };
    assert_eq!(ids(ALL).await, letters);
    assert_eq!(ids(Filter { limit: 2, ..ALL }).await, letters[..2]);
    let before = Some(letters[1]);
    assert_eq!(ids(Filter { before, ..ALL }).await, letters[2..]);
    let error_code = Some(FailureCode::ContentRefused);
    assert_eq!(ids(Filter { error_code, ..ALL }).await, letters[1..2]);
    let kind = Some(GenerationKind::Title);
    assert_eq!(ids(Filter { kind, ..ALL }).await, Vec::<Uuid>::new());
    let user_id = Some(Uuid::new_v4());
    assert_eq!(ids(Filter { user_id, ..ALL }).await, Vec::<Uuid>::new());
    let view = view(&world);
    let mut tx = look(&view).await;
    let (_, has_more) = dead_letters::list(&mut tx, &Filter { limit: 2, ..ALL })
        .await
        .unwrap();
    assert!(has_more);
    let count = |error_code, count| DeadLetterCount { error_code, count };
    assert_eq!(
        dead_letters::counts(&mut tx).await.unwrap(),
        [
            count(FailureCode::UpstreamExhausted, 2),
            count(FailureCode::ContentRefused, 1)
        ]
    );
    let (exhausted, after) = (FailureCode::UpstreamExhausted, Some(letters[2]));
    let like = dead_letters::like(&mut tx, exhausted, None, after, 10)
        .await
        .unwrap();
    assert_eq!(like, [(letters[0], world.user)]);
}

#[tokio::test]
async fn a_replay_answers_the_message_once_and_the_letter_stays_failed() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let (message, letter) = world.letter(conversation, "hello").await;
    let before = world.generation(letter).await;
    let another = Model::new("another/model".to_owned(), false);
    let replayed = world.replay(letter, Some(&another)).await.unwrap();
    assert!(replayed.is_head);
    let new = replayed.generation;
    assert!(new.id > letter && new.status == GenerationStatus::Queued);
    assert_eq!(
        (new.kind, new.user_message_id),
        (GenerationKind::Reply, Some(message))
    );
    assert_eq!(
        serde_json::to_value(world.generation(letter).await).unwrap(),
        serde_json::to_value(before).unwrap()
    );
    assert!(world.letters(&ALL).await.is_empty());
    assert_eq!(
        refused(world.replay(letter, None).await),
        Refused::Settled(Some(new.id))
    );
    assert_eq!(
        world.discard(letter).await,
        Err(Refused::Settled(Some(new.id)))
    );
    let claim = world.claim_one(new.id).await;
    let names: Vec<_> = claim.chain.iter().map(|model| &*model.name).collect();
    assert_eq!(
        names,
        ["another/model", "test/first:free", "test/second:free"]
    );
    assert_eq!((claim.counted_attempts, claim.max_attempts), (1, 5));
    assert!(claim.time_left.as_secs() > 590, "{claim:?}");
    assert!(matches!(
        world.finish(&claim, "hello to you").await,
        Finished::Stored { .. }
    ));
    let reply = world.generation(new.id).await.assistant_message.unwrap();
    assert_eq!(reply.parent_message_id, Some(message));
    let replies = "SELECT count(*) FROM chat.messages WHERE sender_type = 'assistant'";
    assert_eq!(world.value(replies).await, "1");
    assert_eq!(
        world.trail().await,
        format!(
            r#"an operator dead_letter.replay {letter} {} request-1 {{"model": "another/model", "generation_id": "{}"}}"#,
            world.user, new.id
        )
    );
}

/// A letter that fails again is a letter of its own, and can be replayed like the first.
#[tokio::test]
async fn a_replay_that_fails_is_the_next_dead_letter() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let (message, first) = world.letter(conversation, "hello").await;
    let second = world.replay(first, None).await.unwrap().generation.id;
    world.fail(second).await;
    let letters = world.letters(&ALL).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].id, second);
    let third = world.replay(second, None).await.unwrap().generation.id;
    let reply = world.reply(third, "at last").await;
    assert_eq!(reply.parent_message_id, Some(message));
    assert_eq!(
        refused(world.replay(first, None).await),
        Refused::Settled(Some(second))
    );
}

/// Newer messages of the conversation were accepted before the replay, so it comes after them; it
/// sees what the first try would have seen.
#[tokio::test]
async fn a_replay_takes_its_turn_behind_what_was_accepted_before_it() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let (message, letter) = world.letter(conversation, "first").await;
    let second = world.send(conversation, "second").await.generation.id;
    world.reply(second, "to the second").await;
    let third = world.send(conversation, "third").await.generation.id;
    let replayed = world.replay(letter, None).await.unwrap();
    assert!(!replayed.is_head);
    let new = replayed.generation.id;
    assert!(new > third);
    let fourth = world.send(conversation, "fourth").await.generation.id;
    assert!(fourth > new);
    // Whatever is asked for, one at a time runs, in the order of acceptance.
    for expected in [third, new, fourth] {
        let claims = world.claim(&[fourth, new, third]).await;
        let ids: Vec<_> = claims.iter().map(|claim| claim.id).collect();
        assert_eq!(ids, [expected]);
        world.finish(&claims[0], "a reply").await;
    }
    let history = world.history(conversation, message, 10_000).await;
    let seen: Vec<_> = history
        .messages
        .iter()
        .map(|message| &*message.content)
        .collect();
    assert_eq!(seen, ["first"]);
    let page = world
        .value(&format!(
            "SELECT string_agg(content, ', ' ORDER BY id) FROM chat.messages WHERE conversation_id = '{conversation}'"
        ))
        .await;
    assert_eq!(
        page,
        "first, second, to the second, third, fourth, a reply, a reply, a reply"
    );
}

/// Only another answer can be overtaken by a newer one; then there is nothing left to try.
#[tokio::test]
async fn a_message_that_was_answered_meanwhile_is_not_answered_twice() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "hello").await;
    let reply = world.reply(sent.generation.id, "hello to you").await;
    let failed = world.regenerate(conversation, reply.id).await;
    world.fail(failed.id).await;
    let newer = world.regenerate(conversation, reply.id).await;
    assert_eq!(
        refused(world.replay(failed.id, None).await),
        Refused::Answered,
        "on its way"
    );
    world.reply(newer.id, "hello again").await;
    assert_eq!(
        refused(world.replay(failed.id, None).await),
        Refused::Answered
    );
    assert_eq!(world.trail().await, "");
    // It can still be taken off the list.
    assert_eq!(world.discard(failed.id).await, Ok(()));
    assert!(world.letters(&ALL).await.is_empty());
}

/// The old reply is no answer to the wish for another one.
#[tokio::test]
async fn another_answer_that_failed_can_be_replayed() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "hello").await;
    let old = world.reply(sent.generation.id, "hello to you").await;
    let failed = world.regenerate(conversation, old.id).await;
    world.fail(failed.id).await;
    let new = world.replay(failed.id, None).await.unwrap().generation;
    assert_eq!(new.kind, GenerationKind::Regenerate);
    let reply = world.reply(new.id, "hello again").await;
    let superseded = format!(
        "SELECT superseded_by FROM chat.messages WHERE id = '{}'",
        old.id
    );
    assert_eq!(world.value(&superseded).await, reply.id.to_string());
}

#[tokio::test]
async fn a_title_is_tried_again_unless_there_is_one() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "hello").await;
    world.reply(sent.generation.id, "hello to you").await;
    let title = "SELECT id FROM chat.generations WHERE kind = 'title' AND status = 'queued'";
    let title: Uuid = world.value(title).await.parse().unwrap();
    world.fail(title).await;
    // A reply of the same message that waits is no title.
    world.send(conversation, "more").await;
    let replayed = world.replay(title, None).await.unwrap();
    assert!(replayed.is_head);
    let again = replayed.generation;
    assert_eq!(again.kind, GenerationKind::Title);
    world.fail(again.id).await;
    let mut tx = world.api.user(world.user).await.unwrap();
    conversations::set_generated_title(&mut tx, conversation, "A title")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        refused(world.replay(again.id, None).await),
        Refused::Answered
    );
}

#[tokio::test]
async fn a_discarded_letter_is_gone_for_good() {
    let world = World::new().await;
    let (_, letter) = world.letter(world.conversation().await, "hello").await;
    assert_eq!(world.discard(letter).await, Ok(()));
    assert_eq!(world.discard(letter).await, Err(Refused::Settled(None)));
    assert_eq!(
        refused(world.replay(letter, None).await),
        Refused::Settled(None)
    );
    assert!(world.letters(&ALL).await.is_empty());
    assert_eq!(
        world.trail().await,
        format!(
            "an operator dead_letter.discard {letter} {} request-1 {{}}",
            world.user
        )
    );
    assert_eq!(
        world.generation(letter).await.status,
        GenerationStatus::Failed
    );
}

#[tokio::test]
async fn what_is_no_dead_letter_of_this_person_is_not_found() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let (_, letter) = world.letter(conversation, "hello").await;
    let queued = world.send(conversation, "more").await.generation.id;
    for id in [queued, Uuid::new_v4()] {
        assert_eq!(refused(world.replay(id, None).await), Refused::NotFound);
        assert_eq!(world.discard(id).await, Err(Refused::NotFound));
    }
    let mut tx = world.api.user(Uuid::new_v4()).await.unwrap();
    let stolen = dead_letters::replay(&mut tx, &world.clock, letter, None, &actor())
        .await
        .unwrap();
    assert_eq!(refused(stolen), Refused::NotFound);
    let stolen = dead_letters::discard(&mut tx, &world.clock, letter, &actor())
        .await
        .unwrap();
    assert_eq!(stolen, Err(Refused::NotFound));
    tx.commit().await.unwrap();
    assert_eq!(world.letters(&ALL).await.len(), 1);
}

#[tokio::test]
async fn a_deleted_conversation_is_not_written_to() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let (_, letter) = world.letter(conversation, "hello").await;
    world
        .execute("UPDATE chat.conversations SET status = 'deleted'")
        .await;
    assert_eq!(
        refused(world.replay(letter, None).await),
        Refused::ConversationGone
    );
    assert_eq!(world.discard(letter).await, Ok(()));
}

/// Whoever clicks at the same time: one wins, and one generation comes of it at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_settled_once_however_many_try() {
    let world = World::new().await;
    for _ in 0..10 {
        let (_, letter) = world.letter(world.conversation().await, "hello").await;
        let tries = (0..8).map(|number| {
            let world = &world;
            async move {
                match number % 2 {
                    0 => world.replay(letter, None).await.map(|_| ()),
                    _ => world.discard(letter).await,
                }
            }
        });
        let outcomes = in_time("all have tried", futures::future::join_all(tries)).await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "{outcomes:?}");
    }
    // Every replay has its one generation, and every discarded letter none.
    let loose = "SELECT count(*) FROM chat.generations g WHERE g.status = 'queued'
                   AND NOT EXISTS (SELECT FROM chat.generations l WHERE l.replayed_as = g.id)";
    assert_eq!(world.value(loose).await, "0");
    let settled = "SELECT count(*) FROM chat.generations WHERE settled_at IS NOT NULL";
    assert_eq!(world.value(settled).await, "10");
    assert_eq!(
        world.value("SELECT count(*) FROM chat.audit_log").await,
        "10"
    );
}

#[tokio::test]
async fn only_what_failed_can_be_settled() {
    let world = World::new().await;
    let id = world
        .send(world.conversation().await, "hello")
        .await
        .generation
        .id;
    let mut session = world.env.session().await;
    let settle = format!("UPDATE chat.generations SET settled_at = now() WHERE id = '{id}'");
    let refused = session.run(&settle).await.unwrap_err();
    assert_eq!(
        refused.constraint.as_deref(),
        Some("generations_settled_only_failed")
    );
}
