//! A few people with few places, who do whatever they may in any order: none has more than their
//! places, and nothing waits while one is free.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use shared::domain::FailureCode;
use shared::store::StoreResult;
use shared::store::generations::{self, Concurrency, Look, Room};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::common::{LEASE, World, chain, claimer, new_generation, text};
use crate::places::FORGOTTEN_TURNS;

const PLACES: i64 = 3;

/// People who have more active than so many.
fn beyond(places: i64) -> String {
    format!(
        "SELECT count(*) FROM (
             SELECT user_id FROM chat.generations
             WHERE status IN ('queued', 'in_progress') AND parked IS NULL AND kind <> 'title'
             GROUP BY user_id HAVING count(*) > {places}) x"
    )
}

/// People of whom something waits for a place although one is free.
const FORGOTTEN: &str = "SELECT count(*) FROM (
    SELECT user_id FROM chat.generations WHERE status IN ('queued', 'in_progress') AND kind <> 'title'
    GROUP BY user_id
    HAVING count(*) FILTER (WHERE parked = 'place') > 0 AND count(*) FILTER (WHERE parked IS NULL) < 3) x";

/// Something is parked and due, or neither; or has ended and is parked, or has no end, so that the indexes
/// of those that are active and of those that wait would be wrong about it.
const CONFUSED: &str = "SELECT count(*) FROM chat.generations
    WHERE status = 'queued' AND (parked IS NULL) <> (run_at < 'infinity')
       OR status <> 'queued' AND parked IS NOT NULL
       OR (finished_at IS NULL) <> (status IN ('queued', 'in_progress'))";

#[derive(Clone, Copy, Debug)]
enum Act {
    /// In one of the conversations.
    Accept(usize),
    /// Alone, in one round trip.
    AcceptAlone(usize),
    Claim,
    ClaimReady(u32),
    Release,
    Finish,
    Fail,
    /// One of all, whatever has become of it.
    Cancel(usize),
    CancelAll(usize),
    Interrupt(usize),
    LeasesRunOut,
    DeadlinePasses(usize),
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    let conversation = 0..8_usize;
    prop_oneof![
        8 => conversation.clone().prop_map(Act::Accept),
        4 => conversation.clone().prop_map(Act::AcceptAlone),
        4 => Just(Act::Claim),
        2 => (1..4_u32).prop_map(Act::ClaimReady),
        1 => Just(Act::Release),
        5 => Just(Act::Finish),
        2 => Just(Act::Fail),
        2 => (0..100_usize).prop_map(Act::Cancel),
        1 => conversation.clone().prop_map(Act::CancelAll),
        1 => conversation.prop_map(Act::Interrupt),
        1 => Just(Act::LeasesRunOut),
        1 => (0..100_usize).prop_map(Act::DeadlinePasses),
        1 => Just(Act::Sweep),
    ]
}

/// Two people with four conversations each.
struct Crowd {
    world: Arc<World>,
    conversations: Vec<(Uuid, Uuid)>,
    sent: Vec<(Uuid, Uuid)>,
    held: Vec<(Uuid, Uuid, Uuid)>,
}

impl Crowd {
    async fn new(world: Arc<World>) -> Self {
        let mut conversations = Vec::new();
        for _ in 0..2 {
            let user = Uuid::new_v4();
            for _ in 0..4 {
                conversations.push((user, world.conversation_of(user).await));
            }
        }
        Self {
            world,
            conversations,
            sent: Vec::new(),
            held: Vec::new(),
        }
    }

    async fn act(&mut self, act: Act) -> StoreResult<()> {
        let world = Arc::clone(&self.world);
        let chain = chain();
        let new = new_generation(&chain);
        match act {
            Act::Accept(at) => {
                let (user, conversation) = self.conversations[at];
                let message = text(conversation, "hello");
                let mut tx = world.api.user(user).await?;
                let accepted = generations::accept(
                    &mut tx,
                    &world.clock,
                    &message,
                    &new,
                    Concurrency::Enqueue,
                )
                .await?;
                tx.commit().await?;
                self.accepted(user, accepted);
            }
            Act::AcceptAlone(at) => {
                let (user, conversation) = self.conversations[at];
                let message = text(conversation, "hello");
                let accepted = generations::accept_alone(
                    &world.api,
                    user,
                    &world.clock,
                    &message,
                    &new,
                    Concurrency::Enqueue,
                )
                .await?;
                self.accepted(user, accepted);
            }
            Act::Claim | Act::ClaimReady(_) => {
                let mut tx = world.worker.sweep_async().await?;
                let claimer = claimer("w/1", LEASE);
                let claims = if let Act::ClaimReady(limit) = act {
                    generations::claim_ready(&mut tx, &Room::for_any(limit), &claimer).await?
                } else {
                    let newest: Vec<Uuid> =
                        self.sent.iter().rev().take(30).map(|sent| sent.1).collect();
                    generations::claim(&mut tx, &newest, &claimer).await?
                };
                tx.commit().await?;
                let held = claims
                    .iter()
                    .map(|claim| (claim.user_id, claim.id, claim.token));
                self.held.extend(held);
            }
            Act::Release => {
                let mine: Vec<(Uuid, Uuid)> = self
                    .held
                    .drain(..)
                    .map(|(_, id, token)| (id, token))
                    .collect();
                let mut tx = world.worker.sweep().await?;
                generations::release(&mut tx, &mine).await?;
                tx.commit().await?;
            }
            Act::Finish => {
                let all: Vec<_> = self.held.drain(..).collect();
                let finishes: Vec<_> = all
                    .iter()
                    .map(|(_, id, token)| world.finishing(*id, *token, "reply", false))
                    .collect();
                let finishes: Vec<_> = finishes.iter().collect();
                let mut tx = world.worker.sweep().await?;
                generations::finish_many(&mut tx, &finishes).await?;
                tx.commit().await?;
            }
            Act::Fail => {
                if let Some((user, id, token)) = self.held.pop() {
                    let mut tx = world.worker.user(user).await?;
                    let code = FailureCode::Internal;
                    generations::fail(&mut tx, id, token, code, "why").await?;
                    tx.commit().await?;
                }
            }
            Act::Cancel(at) if !self.sent.is_empty() => {
                let (user, id) = self.sent[at % self.sent.len()];
                let mut tx = world.api.user(user).await?;
                generations::cancel(&mut tx, id, None).await?;
                tx.commit().await?;
            }
            Act::CancelAll(at) => {
                let (user, conversation) = self.conversations[at];
                let mut tx = world.api.user(user).await?;
                generations::cancel_unfinished(&mut tx, conversation, true).await?;
                tx.commit().await?;
            }
            Act::Interrupt(at) => {
                let (user, conversation) = self.conversations[at];
                let message = text(conversation, "instead");
                let mut tx = world.api.user(user).await?;
                generations::lock_conversation(&mut tx, conversation).await?;
                generations::cancel_unfinished(&mut tx, conversation, false).await?;
                let accepted = generations::accept(
                    &mut tx,
                    &world.clock,
                    &message,
                    &new,
                    Concurrency::Interrupt,
                )
                .await?;
                tx.commit().await?;
                self.accepted(user, accepted);
            }
            Act::LeasesRunOut => {
                world
                    .execute("UPDATE chat.generations SET lease_until = now() - interval '1 second', attempt = forgiven + 5 WHERE status = 'in_progress'")
                    .await;
                self.sweep(false).await?;
            }
            Act::DeadlinePasses(at) if !self.sent.is_empty() => {
                let (_, id) = self.sent[at % self.sent.len()];
                world
                    .execute(&format!("UPDATE chat.generations SET deadline_at = now() - interval '1 second' WHERE id = '{id}'"))
                    .await;
                self.sweep(false).await?;
            }
            Act::Cancel(_) | Act::DeadlinePasses(_) => {}
            Act::Sweep => self.sweep(true).await?,
        }
        Ok(())
    }

    fn accepted(&mut self, user: Uuid, accepted: generations::Accepted) {
        match accepted {
            generations::Accepted::Stored { generation, .. } => {
                self.sent.push((user, generation.id));
            }
            other => panic!("not accepted: {other:?}"),
        }
    }

    async fn sweep(&self, with_lost: bool) -> StoreResult<()> {
        let mut tx = self.world.worker.sweep().await?;
        let leases = generations::expired_leases(&mut tx, 1_000, std::time::Duration::ZERO).await?;
        generations::wake_after(&mut tx, &leases).await?;
        let deadlines = generations::expired_deadlines(&mut tx, 1_000).await?;
        generations::wake_after(&mut tx, &deadlines).await?;
        if with_lost {
            generations::wake_lost(&mut tx, &mut Look::default(), 1_000).await?;
        }
        tx.commit().await
    }
}

/// One after the other: nothing is forgotten even for a moment, and no sweep is needed.
async fn play(world: &Arc<World>, acts: &[Act]) -> TestCaseResult {
    world
        .execute(
            "UPDATE chat.generations
             SET status = 'cancelled', claim_token = NULL, lease_until = NULL, parked = NULL, finished_at = now()
             WHERE status IN ('queued', 'in_progress')",
        )
        .await;
    let mut crowd = Crowd::new(Arc::clone(world)).await;
    let beyond = beyond(PLACES);
    for (number, act) in acts.iter().enumerate() {
        crowd.act(*act).await.unwrap();
        for wrong in [&beyond, FORGOTTEN, FORGOTTEN_TURNS, CONFUSED] {
            let count = world.value(wrong).await;
            prop_assert_eq!(count, "0", "{} after {} of {:?}", wrong, number, acts);
        }
    }
    Ok(())
}

#[test]
fn nobody_has_more_than_their_places_and_nothing_waits_for_a_free_one() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = Arc::new(runtime.block_on(World::with_places(PLACES)));
    let config = Config {
        cases: 48,
        failure_persistence: None,
        ..Config::default()
    };
    let acts = proptest::collection::vec(act(), 1..40);
    TestRunner::new(config)
        .run(&acts, |acts| runtime.block_on(play(&world, &acts)))
        .unwrap();
    runtime.block_on(async { drop(world) });
}

/// Many hands at once: what they cannot see of each other is found by one sweep when they rest, the
/// same places are given away no more often than there are hands, and everything comes to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hands_forget_when_they_act_at_once_a_sweep_finds() {
    const HANDS: u64 = 4;
    let world = Arc::new(World::with_places(PLACES).await);
    let crowd = Crowd::new(Arc::clone(&world)).await;
    for round in 0..6 {
        let mut hands = JoinSet::new();
        for number in 0..HANDS {
            let mut crowd = Crowd {
                world: Arc::clone(&world),
                conversations: crowd.conversations.clone(),
                sent: Vec::new(),
                held: Vec::new(),
            };
            let seed = [u8::try_from(round * HANDS + number).unwrap(); 32];
            hands.spawn(async move {
                let dice = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
                let mut runner = TestRunner::new_with_rng(Config::default(), dice);
                for _ in 0..40 {
                    let one = act().new_tree(&mut runner).unwrap().current();
                    // Whoever loses a deadlock tries again later, as in life.
                    if let Err(error) = crowd.act(one).await {
                        assert!(error.is_conflict(), "{error:?}");
                    }
                }
            });
        }
        hands.join_all().await;
        let most = PLACES + PLACES * i64::try_from(HANDS).unwrap();
        assert_eq!(world.value(&beyond(most)).await, "0", "round {round}");
        crowd.sweep(true).await.unwrap();
        for wrong in [FORGOTTEN, FORGOTTEN_TURNS, CONFUSED] {
            assert_eq!(world.value(wrong).await, "0", "round {round}: {wrong}");
        }
    }
    let unfinished =
        "SELECT count(*) FROM chat.generations WHERE status IN ('queued', 'in_progress')";
    let ended = async {
        while world.value(unfinished).await != "0" {
            world
                .execute("UPDATE chat.generations SET lease_until = now() - interval '1 second', attempt = forgiven + 5 WHERE status = 'in_progress'")
                .await;
            crowd.sweep(false).await.unwrap();
            let mut tx = world.worker.sweep_async().await.unwrap();
            let all = Room::for_any(1_000);
            generations::claim_ready(&mut tx, &all, &claimer("w/1", LEASE))
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_mins(1), ended)
        .await
        .expect("everything ends without another sweep for the lost");
}
