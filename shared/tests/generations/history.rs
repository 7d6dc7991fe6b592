//! What the prompt of a generation may see.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use shared::domain::{SenderType, safe_tokens};
use shared::store::generations;
use uuid::Uuid;

use crate::common::{World, text};

const PLENTY: i64 = 1_000_000;

impl World {
    async fn seen(&self, conversation: Uuid, message: Uuid, budget: i64) -> Vec<String> {
        let history = self.history(conversation, message, budget).await;
        history
            .messages
            .into_iter()
            .map(|message| message.content)
            .collect()
    }
}

#[tokio::test]
async fn replies_stand_after_their_question_and_later_messages_are_not_seen() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let mut sent = Vec::new();
    for content in ["q1", "q2", "q3"] {
        sent.push(world.send(conversation, content).await);
    }
    assert_eq!(
        world.seen(conversation, sent[0].message.id, PLENTY).await,
        ["q1"]
    );
    // Not answered yet, and visible all the same to what comes after it.
    assert_eq!(
        world.seen(conversation, sent[2].message.id, PLENTY).await,
        ["q1", "q2", "q3"]
    );
    world.reply(sent[0].generation.id, "a1").await;
    assert_eq!(
        world.seen(conversation, sent[1].message.id, PLENTY).await,
        ["q1", "a1", "q2"]
    );
    world.reply(sent[1].generation.id, "a2").await;
    assert_eq!(
        world.seen(conversation, sent[2].message.id, PLENTY).await,
        ["q1", "a1", "q2", "a2", "q3"]
    );
    world.fail(sent[2].generation.id).await;
    let fourth = world.send(conversation, "q4").await;
    let all = ["q1", "a1", "q2", "a2", "q3", "q4"];
    assert_eq!(
        world.seen(conversation, fourth.message.id, PLENTY).await,
        all
    );
    let history = world.history(conversation, fourth.message.id, PLENTY).await;
    assert_eq!(history.messages[1].sender_type, SenderType::Assistant);
    assert_eq!(history.messages[1].token_count, safe_tokens("a1"));
}

#[tokio::test]
async fn another_answer_sees_what_came_before_the_question_and_not_the_old_answer() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let mut replies = Vec::new();
    let mut questions = Vec::new();
    for number in 1..=3 {
        let sent = world.send(conversation, &format!("q{number}")).await;
        replies.push(world.reply(sent.generation.id, &format!("a{number}")).await);
        questions.push(sent.message.id);
    }
    let again = world.regenerate(conversation, replies[1].id).await;
    assert_eq!(again.user_message_id, Some(questions[1]));
    assert_eq!(
        world.seen(conversation, questions[1], PLENTY).await,
        ["q1", "a1", "q2"]
    );
    world.reply(again.id, "b2").await;
    let next = world.send(conversation, "q4").await;
    let live = ["q1", "a1", "q2", "b2", "q3", "a3", "q4"];
    assert_eq!(
        world.seen(conversation, next.message.id, PLENTY).await,
        live
    );
}

/// A message may name the one it continues; it was said when it was said all the same.
#[tokio::test]
async fn a_message_that_continues_an_older_one_stands_where_it_was_said() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let first = world.send(conversation, "q1").await;
    let mut early = text(conversation, "continues q1 before its answer");
    early.parent_message_id = Some(first.message.id);
    let early = world.send_as(world.user, &early).await;
    world.reply(first.generation.id, "a1").await;
    world.reply(early.generation.id, "b1").await;
    let second = world.send(conversation, "q2").await;
    world.reply(second.generation.id, "a2").await;
    let mut late = text(conversation, "continues q1 late");
    late.parent_message_id = Some(first.message.id);
    let late = world.send_as(world.user, &late).await;
    let all = [
        "q1",
        "a1",
        "continues q1 before its answer",
        "b1",
        "q2",
        "a2",
        "continues q1 late",
    ];
    assert_eq!(world.seen(conversation, late.message.id, PLENTY).await, all);
    assert_eq!(
        world.seen(conversation, late.message.id, 0).await,
        ["continues q1 late"]
    );
    assert_eq!(
        world.seen(conversation, early.message.id, PLENTY).await,
        all[..3]
    );
}

#[tokio::test]
async fn the_newest_message_is_there_whatever_the_budget_and_only_it_carries_the_context() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    world
        .execute(r#"UPDATE chat.conversations SET context_data = '{"city": "Bandung"}'"#)
        .await;
    world.send(conversation, "short").await;
    let long = world.send(conversation, &"long ".repeat(500)).await;
    for budget in [-1, 0, 1, 784] {
        let history = world.history(conversation, long.message.id, budget).await;
        assert_eq!(history.messages.len(), 1, "{budget}");
        assert_eq!(history.messages[0].id, long.message.id);
        assert_eq!(
            history.context_data,
            serde_json::json!({ "city": "Bandung" })
        );
    }
    let history = world.history(conversation, long.message.id, 785).await;
    assert_eq!(history.messages.len(), 2);
    // A message that is not of the conversation has no history.
    let elsewhere = world.send(world.conversation().await, "elsewhere").await;
    let nothing = world.history(conversation, Uuid::new_v4(), PLENTY).await;
    assert!(
        nothing
            .messages
            .iter()
            .all(|message| message.id != elsewhere.message.id)
    );
    let mixed = world
        .history(conversation, elsewhere.message.id, PLENTY)
        .await;
    assert!(
        mixed
            .messages
            .iter()
            .all(|message| message.id != elsewhere.message.id)
    );
}

/// What happens in a conversation.
#[derive(Clone, Debug)]
enum Happens {
    /// A message of so many characters, that continues the n-th message or none.
    Message(usize, Option<usize>),
    /// The head is answered.
    Reply(usize),
    /// The head fails.
    Fail,
    /// The n-th reply is to be made anew.
    Regenerate(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1..200_usize, proptest::option::weighted(0.3, 0..20_usize)).prop_map(|(n, p)| Happens::Message(n, p)),
        4 => (1..200_usize).prop_map(Happens::Reply),
        1 => Just(Happens::Fail),
        1 => (0..20_usize).prop_map(Happens::Regenerate),
    ]
}

/// A question of the model with its live answer.
#[derive(Clone, Debug)]
struct Turn {
    id: Uuid,
    content: String,
    answer: Option<(Uuid, String)>,
}

async fn play(world: &World, events: &[Happens], cuts: &[f64]) -> TestCaseResult {
    let conversation = world.conversation().await;
    let mut turns: Vec<Turn> = Vec::new();
    let mut queue: Vec<(Uuid, usize)> = Vec::new();
    for (number, event) in events.iter().enumerate() {
        match event {
            Happens::Message(length, parent) => {
                let content = format!("{number}:{}", "q".repeat(*length));
                let messages: Vec<Uuid> = turns
                    .iter()
                    .flat_map(|turn| [Some(turn.id), turn.answer.as_ref().map(|it| it.0)])
                    .flatten()
                    .collect();
                let mut message = text(conversation, &content);
                message.parent_message_id = parent.and_then(|parent| messages.get(parent).copied());
                let sent = world.send_as(world.user, &message).await;
                queue.push((sent.generation.id, turns.len()));
                turns.push(Turn {
                    id: sent.message.id,
                    content,
                    answer: None,
                });
            }
            Happens::Reply(length) if !queue.is_empty() => {
                let (id, turn) = queue.remove(0);
                let content = format!("{number}:{}", "a".repeat(*length));
                let reply = world.reply(id, &content).await;
                turns[turn].answer = Some((reply.id, content));
            }
            Happens::Fail if !queue.is_empty() => world.fail(queue.remove(0).0).await,
            Happens::Regenerate(which) => {
                let answered: Vec<usize> = (0..turns.len())
                    .filter(|turn| turns[*turn].answer.is_some())
                    .collect();
                if let Some(turn) = answered.get(*which).copied() {
                    let reply = turns[turn].answer.as_ref().unwrap().0;
                    queue.push((world.regenerate(conversation, reply).await.id, turn));
                }
            }
            Happens::Reply(_) | Happens::Fail => {}
        }
    }
    for asked in 0..turns.len() {
        let mut expected: Vec<&str> = Vec::new();
        for turn in &turns[..asked] {
            expected.push(&turn.content);
            expected.extend(turn.answer.as_ref().map(|it| it.1.as_str()));
        }
        expected.push(&turns[asked].content);
        let seen = world.seen(conversation, turns[asked].id, PLENTY).await;
        prop_assert_eq!(&seen, &expected);
        let sizes: Vec<i64> = expected
            .iter()
            .map(|content| i64::from(safe_tokens(content)))
            .collect();
        for cut in cuts {
            #[expect(clippy::cast_possible_truncation, reason = "a share of a small sum")]
            let budget = (sizes.iter().sum::<i64>() as f64 * cut) as i64;
            let mut total = 0;
            let fit = sizes.iter().rev().take_while(|size| {
                total += **size;
                total <= budget
            });
            let fit = fit.count().max(1);
            let seen = world.seen(conversation, turns[asked].id, budget).await;
            prop_assert_eq!(
                &seen,
                &expected[expected.len() - fit..],
                "budget {}",
                budget
            );
        }
    }
    let mut tx = world.api.user(world.user).await.unwrap();
    generations::cancel_unfinished(&mut tx, conversation, true)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    Ok(())
}

#[test]
fn any_conversation_is_seen_in_turns_and_within_the_budget() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let events = proptest::collection::vec(happens(), 1..16);
    let cuts = proptest::collection::vec(0.0..1.1_f64, 2);
    TestRunner::new(config)
        .run(&(events, cuts), |(events, cuts)| {
            runtime.block_on(play(&world, &events, &cuts))
        })
        .unwrap();
    runtime.block_on(async { drop(world) });
}
