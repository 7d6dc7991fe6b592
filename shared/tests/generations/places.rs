//! A person's places: who has one, who waits, and who is woken.

use std::time::Duration;

use shared::domain::{FailureCode, Parked, Priority, WaitsFor};
use shared::store::audit::Actor;
use shared::store::dead_letters;
use shared::store::generations::{
    self, Accepted, Cancelled, Concurrency, Failed, Finished, Look, Next, Regenerated,
};
use uuid::Uuid;

use crate::common::{HANDOVER, Sent, World, chain, new_generation, text};

const STANDARD: Priority = Priority::Standard;

/// Generations that are active, of everybody.
pub(crate) const ACTIVE: &str = "SELECT count(*) FROM chat.generations
     WHERE status IN ('queued', 'in_progress') AND parked IS NULL AND kind <> 'title'";
/// Parked ones whose turn has come and who do not know.
pub(crate) const FORGOTTEN_TURNS: &str = "SELECT count(*) FROM chat.generations g
     WHERE g.status = 'queued' AND g.parked = 'turn' AND NOT EXISTS (
         SELECT FROM chat.generations o WHERE o.conversation_id = g.conversation_id AND o.id < g.id
           AND o.status IN ('queued', 'in_progress') AND o.kind <> 'title')";

impl World {
    /// A message in a new conversation.
    async fn first(&self) -> Sent {
        self.send_after(self.conversation().await, "hello").await
    }

    /// A message that is younger than all others: ids of one millisecond have no order between
    /// conversations.
    async fn send_after(&self, conversation: Uuid, content: &str) -> Sent {
        tokio::time::sleep(Duration::from_millis(3)).await;
        let sent = self.send(conversation, content).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        sent
    }

    async fn ids(&self, sql: &str) -> String {
        self.value(&format!(
            "SELECT string_agg(id::text, ' ' ORDER BY id) FROM chat.generations WHERE {sql}"
        ))
        .await
    }

    async fn wake_lost(&self, look: &mut Look, limit: i64) -> Vec<Uuid> {
        let mut tx = self.worker.sweep().await.unwrap();
        let woken = generations::wake_lost(&mut tx, look, limit).await.unwrap();
        tx.commit().await.unwrap();
        let mut ids = ids(&woken);
        ids.sort_unstable();
        ids
    }
}

fn ids(next: &[Next]) -> Vec<Uuid> {
    next.iter().map(|next| next.id).collect()
}

fn id(sent: &Sent) -> Uuid {
    sent.generation.id
}

fn waits_for(parked: Option<Parked>) -> Option<WaitsFor> {
    parked.map(|parked| parked.waits_for)
}

#[tokio::test]
async fn at_most_so_many_of_a_person_are_active_and_who_waits_longest_is_next() {
    let world = World::with_places(2).await;
    let mut sent = Vec::new();
    for _ in 0..6 {
        sent.push(world.first().await);
    }
    assert_eq!((sent[0].parked, sent[1].parked), (None, None));
    for (number, sent) in sent[2..].iter().enumerate() {
        let parked = sent.parked.unwrap();
        assert_eq!(parked.waits_for, WaitsFor::Place);
        assert_eq!(parked.ahead, i64::try_from(number).unwrap());
        // Two of them take as long as one.
        let rounds = 1.0 + (number as f64 + 1.0) / 2.0;
        assert!((parked.rounds - rounds).abs() < 1e-9, "{parked:?}");
    }
    // Somebody else has places of their own.
    let stranger = Uuid::new_v4();
    let message = text(world.conversation_of(stranger).await, "hello");
    assert_eq!(world.send_as(stranger, &message).await.parked, None);
    let all: Vec<Uuid> = sent.iter().map(id).collect();
    let claims = world.claim(&all).await;
    assert_eq!(claims.len(), 2, "what is parked cannot be claimed");
    let Finished::Stored { next, .. } = world.finish(&claims[0], "reply").await else {
        panic!("ours");
    };
    assert_eq!(
        next,
        [Next {
            id: all[2],
            priority: STANDARD
        }]
    );
    // Those that run are before the next one, too.
    let waits = world.generation(all[3]).await;
    let mut tx = world.api.user(world.user).await.unwrap();
    let row = generations::find(&mut tx, waits.id).await.unwrap().unwrap();
    let parked = generations::parked(&mut tx, &row.generation, row.parked)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((parked.waits_for, parked.ahead), (WaitsFor::Place, 1));
    let cancelled = generations::cancel(&mut tx, all[1], None).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(cancelled, Cancelled::Done(_, next) if ids(&next) == [all[3]]));
    assert_eq!(world.value(ACTIVE).await, "3", "two, and the stranger's");
    assert_eq!(world.claim(&all).await.len(), 2);
}

#[tokio::test]
async fn what_waits_for_its_turn_takes_no_place_and_then_waits_with_the_others() {
    let world = World::with_places(1).await;
    let (one, other) = (world.conversation().await, world.conversation().await);
    let first = world.send_after(one, "1").await;
    let turn = world.send_after(one, "2").await;
    let place = world.send_after(other, "3").await;
    let last = world.send_after(one, "4").await;
    assert_eq!(waits_for(first.parked), None);
    assert_eq!(waits_for(turn.parked), Some(WaitsFor::Turn));
    assert_eq!(turn.parked.unwrap().ahead, 0);
    assert_eq!(waits_for(place.parked), Some(WaitsFor::Place));
    assert_eq!(
        place.parked.unwrap().ahead,
        1,
        "its own person's come first"
    );
    assert_eq!((last.parked.unwrap().ahead, last.is_head), (2, false));
    let mut running = world.claim_one(id(&first)).await;
    for next in [Some(&turn), Some(&place), Some(&last), None] {
        let Finished::Stored { next: woken, .. } = world.finish(&running, "reply").await else {
            panic!("ours");
        };
        assert_eq!(ids(&woken), next.map(id).into_iter().collect::<Vec<_>>());
        assert_eq!(world.value(FORGOTTEN_TURNS).await, "0");
        if let Some(next) = next {
            running = world.claim_one(id(next)).await;
        }
    }
}

#[tokio::test]
async fn a_title_takes_no_place() {
    let world = World::with_places(1).await;
    let first = world.first().await;
    let claim = world.claim_one(id(&first)).await;
    let waits = world.first().await;
    let Finished::Stored { next, title, .. } = world.finish(&claim, "reply").await else {
        panic!("ours");
    };
    assert_eq!(ids(&next), [id(&waits)]);
    let both = [title.unwrap().id, id(&waits)];
    assert_eq!(world.claim(&both).await.len(), 2);
    assert_eq!(world.value(ACTIVE).await, "1");
}

/// How a generation that was claimed may end, or not.
#[derive(Clone, Copy, Debug)]
enum After {
    Finish,
    Fail,
    Cancel,
    CancelAll,
    LastLease,
    Deadline,
    Lease,
    Release,
    Retry,
    Restart,
}

#[tokio::test]
async fn every_end_frees_the_place_and_what_goes_back_keeps_it() {
    for after in [
        After::Finish,
        After::Fail,
        After::Cancel,
        After::CancelAll,
        After::LastLease,
        After::Deadline,
        After::Lease,
        After::Release,
        After::Retry,
        After::Restart,
    ] {
        let world = World::with_places(1).await;
        let conversation = world.conversation().await;
        let active = id(&world.send_after(conversation, "1").await);
        let waits = world.first().await;
        let claim = world.claim_for("worker/boot", &[active]).await.remove(0);
        let mine = [(claim.id, claim.token)];
        let mut tx = world.worker.sweep().await.unwrap();
        let woken = match after {
            After::Finish => {
                let finish = world.finishing(claim.id, claim.token, "reply", false);
                match generations::finish(&mut tx, &finish).await.unwrap() {
                    Finished::Stored { next, .. } => next,
                    Finished::Fenced => panic!("ours"),
                }
            }
            After::Fail => {
                let mut tx = world.worker.user(world.user).await.unwrap();
                let code = FailureCode::Internal;
                let failed = generations::fail(&mut tx, claim.id, claim.token, code, "why").await;
                tx.commit().await.unwrap();
                match failed.unwrap() {
                    Failed::Stored(next) => next,
                    Failed::Fenced => panic!("ours"),
                }
            }
            After::Cancel => {
                let mut tx = world.api.user(world.user).await.unwrap();
                let cancelled = generations::cancel(&mut tx, active, None).await.unwrap();
                tx.commit().await.unwrap();
                match cancelled {
                    Cancelled::Done(_, next) => next,
                    other => panic!("{other:?}"),
                }
            }
            After::CancelAll => {
                let mut tx = world.api.user(world.user).await.unwrap();
                let stopped = generations::cancel_unfinished(&mut tx, conversation, true)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                stopped.next
            }
            After::LastLease | After::Lease => {
                let attempts = if matches!(after, After::Lease) { 1 } else { 5 };
                let overdue = format!(
                    "UPDATE chat.generations SET attempt = {attempts}, lease_until = now() - interval '1 second'
                     WHERE id = '{active}'"
                );
                world.execute(&overdue).await;
                let expired = generations::expired_leases(&mut tx, 10, Duration::ZERO)
                    .await
                    .unwrap();
                assert_eq!(expired.len(), 1);
                generations::wake_after(&mut tx, &expired).await.unwrap()
            }
            After::Deadline => {
                generations::release(&mut tx, &mine).await.unwrap();
                tx.commit().await.unwrap();
                let overdue = format!(
                    "UPDATE chat.generations SET deadline_at = now() - interval '1 second' WHERE id = '{active}'"
                );
                world.execute(&overdue).await;
                tx = world.worker.sweep().await.unwrap();
                let expired = generations::expired_deadlines(&mut tx, 10).await.unwrap();
                assert_eq!(expired.len(), 1);
                generations::wake_after(&mut tx, &expired).await.unwrap()
            }
            After::Release => {
                assert_eq!(generations::release(&mut tx, &mine).await.unwrap().len(), 1);
                Vec::new()
            }
            After::Retry => {
                let hour = Duration::from_hours(1);
                let (id, token) = mine[0];
                let back = generations::retry_later(&mut tx, id, token, hour, false, "busy").await;
                assert!(back.unwrap());
                Vec::new()
            }
            After::Restart => {
                let freed =
                    generations::free_predecessor(&mut tx, "worker", "worker/next", &HANDOVER)
                        .await;
                assert_eq!(freed.unwrap().len(), 1);
                Vec::new()
            }
        };
        tx.commit().await.unwrap();
        let ended = !matches!(
            after,
            After::Lease | After::Release | After::Retry | After::Restart
        );
        let expected = if ended { vec![id(&waits)] } else { Vec::new() };
        assert_eq!(ids(&woken), expected, "{after:?}");
        // Nothing is left for the sweep, and it does not wake more than there are places.
        let found = world.wake_lost(&mut Look::default(), 10).await;
        assert!(found.is_empty(), "{after:?}");
        assert_eq!(world.value(ACTIVE).await, "1", "{after:?}");
    }
}

#[tokio::test]
async fn another_answer_a_replay_and_an_interruption_wait_like_everything_else() {
    let world = World::with_places(1).await;
    let chain = chain();
    let done = world.conversation().await;
    let reply = world
        .reply(id(&world.send_after(done, "1").await), "answer")
        .await;
    let failed = world.first().await;
    world.fail(id(&failed)).await;
    let active = world.first().await;
    let mut tx = world.api.user(world.user).await.unwrap();
    let new = new_generation(&chain);
    let regenerated = generations::regenerate(&mut tx, &world.clock, done, reply.id, &new).await;
    tx.commit().await.unwrap();
    let Regenerated::Queued {
        generation: again,
        parked,
        is_head: true,
    } = regenerated.unwrap()
    else {
        panic!("queued");
    };
    let parked = parked.unwrap();
    assert_eq!((parked.waits_for, parked.ahead), (WaitsFor::Place, 0));
    let actor = Actor {
        name: "an operator".to_owned(),
        request_id: None,
    };
    let mut tx = world.api.user(world.user).await.unwrap();
    let replayed = dead_letters::replay(&mut tx, &world.clock, id(&failed), None, &actor).await;
    tx.commit().await.unwrap();
    let replayed = replayed.unwrap().unwrap();
    let parked = replayed.parked.unwrap();
    assert_eq!((parked.waits_for, parked.ahead), (WaitsFor::Place, 1));
    // Whoever interrupts a reply waits behind what was there before.
    let conversation = active.generation.conversation_id;
    let mut tx = world.api.user(world.user).await.unwrap();
    generations::lock_conversation(&mut tx, conversation)
        .await
        .unwrap();
    let stopped = generations::cancel_unfinished(&mut tx, conversation, false)
        .await
        .unwrap();
    assert_eq!(ids(&stopped.next), [again.id]);
    let message = text(conversation, "instead");
    let accepted = generations::accept(
        &mut tx,
        &world.clock,
        &message,
        &new,
        Concurrency::Interrupt,
    )
    .await;
    tx.commit().await.unwrap();
    let Ok(Accepted::Stored { parked, .. }) = accepted else {
        panic!("{accepted:?}");
    };
    assert_eq!(waits_for(parked), Some(WaitsFor::Place));
    let all = [again.id, replayed.generation.id];
    assert_eq!(world.claim(&all).await.len(), 1);
}

#[tokio::test]
async fn the_statement_that_accepts_alone_parks_as_well() {
    let world = World::with_places(1).await;
    let chain = chain();
    let mut parked = Vec::new();
    for _ in 0..2 {
        let message = text(world.conversation().await, "hello");
        let accepted = generations::accept_alone(
            &world.api,
            world.user,
            &world.clock,
            &message,
            &new_generation(&chain),
            Concurrency::Enqueue,
        )
        .await;
        match accepted.unwrap() {
            Accepted::Stored { parked: waits, .. } => parked.push(waits_for(waits)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(parked, [None, Some(WaitsFor::Place)]);
}

/// An older version ends generations without a wake, a limit is raised, a wake is lost: the sweep finds
/// all of it.
#[tokio::test]
async fn the_sweep_wakes_whatever_was_forgotten() {
    let world = World::with_places(2).await;
    let mut active = Vec::new();
    let mut turns = Vec::new();
    for _ in 0..2 {
        let conversation = world.conversation().await;
        active.push(id(&world.send_after(conversation, "1").await));
        turns.push(id(&world.send_after(conversation, "2").await));
        turns.push(id(&world.send_after(conversation, "3").await));
    }
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(id(&world.first().await));
    }
    let stranger = Uuid::new_v4();
    for _ in 0..3 {
        let message = text(world.conversation_of(stranger).await, "hello");
        waiting.push(id(&world.send_as(stranger, &message).await));
    }
    assert!(world.wake_lost(&mut Look::default(), 100).await.is_empty());
    // The strangers' first two and ours are ended by hand.
    let by_hand = "UPDATE chat.generations SET status = 'cancelled', finished_at = now()
                   WHERE parked IS NULL AND status = 'queued'";
    assert_eq!(world.execute(by_hand).await, 4);
    let woken = world.wake_lost(&mut Look::default(), 100).await;
    // The oldest of each whose turn it is; of the other person the only one that is left.
    let mut expected = vec![turns[0], turns[2], waiting[5]];
    expected.sort_unstable();
    assert_eq!(woken, expected);
    assert_eq!(world.value(FORGOTTEN_TURNS).await, "0");
    // A version with more places comes.
    let mut config = world.env.db_config();
    config.places = 4;
    let more =
        shared::store::Db::connect_lazy(&config, shared::store::ServingRole::Worker).unwrap();
    let mut tx = more.sweep().await.unwrap();
    let next = generations::wake_lost(&mut tx, &mut Look::default(), 100)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ids(&next), waiting[..2]);
    // And one with fewer: nothing is woken before there are fewer.
    let claims = world.claim(&[turns[0], turns[2], waiting[0]]).await;
    for claim in &claims[..2] {
        let Finished::Stored { next, .. } = world.finish(claim, "reply").await else {
            panic!("ours");
        };
        assert!(next.is_empty());
    }
    let Finished::Stored { next, .. } = world.finish(&claims[2], "reply").await else {
        panic!("ours");
    };
    assert_eq!(next.len(), 1);
}

#[tokio::test]
async fn a_sweep_that_looks_at_little_comes_to_everybody() {
    const MANY: usize = 5;
    let world = World::with_places(1).await;
    let mut forgotten = Vec::new();
    for _ in 0..MANY {
        let user = Uuid::new_v4();
        let conversation = world.conversation_of(user).await;
        world.send_as(user, &text(conversation, "1")).await;
        forgotten.push(id(&world.send_as(user, &text(conversation, "2")).await));
    }
    for _ in 0..MANY {
        let user = Uuid::new_v4();
        for last in [false, true] {
            let message = text(world.conversation_of(user).await, "1");
            let sent = world.send_as(user, &message).await;
            forgotten.extend(last.then(|| id(&sent)));
        }
    }
    world
        .execute("UPDATE chat.generations SET status = 'cancelled', finished_at = now() WHERE parked IS NULL")
        .await;
    let mut look = Look::default();
    let mut woken = Vec::new();
    // All of them wait for something, and the last slice is known by its being empty.
    for _ in 0..=2 * MANY {
        woken.extend(world.wake_lost(&mut look, 1).await);
    }
    woken.sort_unstable();
    forgotten.sort_unstable();
    assert_eq!(woken, forgotten);
}

/// What an older version accepts knows nothing of places: it is claimed as ever, and counts.
#[tokio::test]
async fn what_an_older_version_accepted_is_claimed_in_order() {
    let world = World::with_places(1).await;
    let conversation = world.conversation().await;
    let first = id(&world.send_after(conversation, "1").await);
    let second = id(&world.send_after(conversation, "2").await);
    let as_before =
        "UPDATE chat.generations SET parked = NULL, run_at = now() WHERE parked IS NOT NULL";
    world.execute(as_before).await;
    assert_eq!(waits_for(world.first().await.parked), Some(WaitsFor::Place));
    assert!(world.claim(&[second]).await.is_empty());
    world.reply(first, "reply").await;
    world.reply(second, "reply").await;
    assert_eq!(
        world.ids("parked IS NOT NULL AND status = 'queued'").await,
        ""
    );
    assert_eq!(world.value(ACTIVE).await, "1");
}

#[tokio::test]
async fn what_is_parked_can_be_cancelled_and_expires() {
    let world = World::with_places(1).await;
    let active = id(&world.first().await);
    let (cancelled, expires, last) = (
        id(&world.first().await),
        id(&world.first().await),
        id(&world.first().await),
    );
    let mut tx = world.api.user(world.user).await.unwrap();
    let done = generations::cancel(&mut tx, cancelled, None).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(done, Cancelled::Done(_, next) if next.is_empty()));
    let overdue = format!(
        "UPDATE chat.generations SET deadline_at = now() - interval '1 second' WHERE id = '{expires}'"
    );
    world.execute(&overdue).await;
    let mut tx = world.worker.sweep().await.unwrap();
    let expired = generations::expired_deadlines(&mut tx, 10).await.unwrap();
    let woken = generations::wake_after(&mut tx, &expired).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((expired.len(), woken.len()), (1, 0));
    let claim = world.claim_one(active).await;
    let Finished::Stored { next, .. } = world.finish(&claim, "reply").await else {
        panic!("ours");
    };
    assert_eq!(ids(&next), [last]);
}
