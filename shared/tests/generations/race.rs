//! Many hands on the same rows at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use shared::domain::{FailureCode, GenerationStatus};
use shared::store::generations::{self, Failed, Finished};
use shared::store::{StoreResult, maintenance};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::common::{LEASE, World, claimer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_claimers_of_one_generation_one_gets_it() {
    let world = Arc::new(World::new().await);
    for round in 0..30 {
        let id = world
            .send(world.conversation().await, "hello")
            .await
            .generation
            .id;
        let ids = [id];
        let claims = (0..8).map(|_| world.claim(&ids));
        let claims = futures::future::join_all(claims).await;
        assert_eq!(
            claims.iter().map(Vec::len).sum::<usize>(),
            1,
            "round {round}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claimers_of_everything_share_it_out() {
    let world = Arc::new(World::new().await);
    let mut heads = HashSet::new();
    let mut all = Vec::new();
    for _ in 0..40 {
        let conversation = world.conversation().await;
        let first = world.send(conversation, "1").await.generation.id;
        heads.insert(first);
        all.extend([first, world.send(conversation, "2").await.generation.id]);
    }
    let mut claimers = JoinSet::new();
    for number in 0..6 {
        let (world, mut ids) = (world.clone(), all.clone());
        claimers.spawn(async move {
            let mut random = StdRng::seed_from_u64(number);
            let mut mine = Vec::new();
            for _ in 0..10 {
                let mut tx = world.worker.sweep_statement().await.unwrap();
                let claims = if random.random() {
                    generations::claim_ready(
                        &mut tx,
                        &generations::Room::for_any(5),
                        &claimer("w/1", LEASE),
                    )
                    .await
                    .unwrap()
                } else {
                    let from = random.random_range(0..ids.len());
                    ids.rotate_left(from);
                    generations::claim(&mut tx, &ids[..20], &claimer("w/1", LEASE))
                        .await
                        .unwrap()
                };
                tx.commit().await.unwrap();
                mine.extend(claims.iter().map(|claim| claim.id));
            }
            mine
        });
    }
    let claimed: Vec<Uuid> = claimers.join_all().await.concat();
    assert_eq!(claimed.len(), heads.len(), "each once");
    assert_eq!(
        claimed.into_iter().collect::<HashSet<_>>(),
        heads,
        "and only heads"
    );
}

/// Whatever the hands of the test got as an answer.
#[derive(Debug, Default)]
struct Answers {
    claims: u32,
    replies: HashMap<Uuid, u32>,
    failures: HashMap<Uuid, u32>,
    cancels: HashMap<Uuid, u32>,
}

impl Answers {
    fn add(&mut self, other: Self) {
        self.claims += other.claims;
        for (mine, theirs) in [
            (&mut self.replies, other.replies),
            (&mut self.failures, other.failures),
            (&mut self.cancels, other.cancels),
        ] {
            for (id, count) in theirs {
                *mine.entry(id).or_default() += count;
            }
        }
    }
}

/// Writes every change of a status down.
const DIARY: &str = "
    CREATE TABLE public.diary (id uuid, old text, new text, attempt integer, counted integer);
    CREATE FUNCTION public.write_down() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO public.diary VALUES (NEW.id, OLD.status, NEW.status, NEW.attempt, NEW.attempt - NEW.forgiven);
        RETURN NEW;
    END $$;
    CREATE TRIGGER diary AFTER UPDATE ON chat.generations FOR EACH ROW
        WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION public.write_down();";

/// A worker, a sweeper and a person at once, who do whatever they may in any order, on the same few
/// generations. Deadlocks count as conflicts: whoever loses one tries again later, as in life.
async fn hand(world: Arc<World>, ids: Vec<Uuid>, conversations: Vec<Uuid>, seed: u64) -> Answers {
    let mut random = StdRng::seed_from_u64(seed);
    let mut answers = Answers::default();
    let mut held: Vec<(Uuid, Uuid)> = Vec::new();
    for _ in 0..60 {
        let step = step(
            &world,
            &ids,
            &conversations,
            &mut random,
            &mut held,
            &mut answers,
        )
        .await;
        if let Err(error) = step {
            assert!(error.is_conflict(), "{error:?}");
        }
    }
    answers
}

async fn step(
    world: &World,
    ids: &[Uuid],
    conversations: &[Uuid],
    random: &mut StdRng,
    held: &mut Vec<(Uuid, Uuid)>,
    answers: &mut Answers,
) -> StoreResult<()> {
    let id = ids[random.random_range(0..ids.len())];
    // Mostly one that is held, or was: its token may be long worthless.
    let (mine, token) = if held.is_empty() {
        (id, Uuid::new_v4())
    } else {
        held[random.random_range(0..held.len())]
    };
    match random.random_range(0..12) {
        0..=3 => {
            let mut tx = world.worker.sweep_async().await?;
            let claims = generations::claim(&mut tx, ids, &claimer("w/1", LEASE)).await?;
            tx.commit().await?;
            answers.claims += u32::try_from(claims.len()).unwrap();
            held.extend(claims.iter().map(|claim| (claim.id, claim.token)));
        }
        4 => {
            let mut tx = world.worker.sweep_async().await?;
            generations::renew(&mut tx, held, LEASE).await?;
            tx.commit().await?;
        }
        5 => {
            let mut tx = world.worker.sweep().await?;
            generations::release(&mut tx, &[(mine, token)]).await?;
            tx.commit().await?;
        }
        6 => {
            let sql = format!(
                "UPDATE chat.generations SET lease_until = now() - interval '1 second'
                               WHERE id = '{id}' AND status = 'in_progress'"
            );
            world.execute(&sql).await;
        }
        7 => {
            let mut tx = world.worker.sweep().await?;
            if maintenance::try_lock(&mut tx, "reconcile").await? {
                generations::expired_leases(&mut tx, 10, std::time::Duration::ZERO).await?;
                tx.commit().await?;
            }
        }
        8 | 9 => {
            if let Finished::Stored { .. } = world.finish_with(mine, token, "reply", false).await {
                *answers.replies.entry(mine).or_default() += 1;
            }
        }
        10 => {
            let mut tx = world.worker.user(world.user).await?;
            let failed =
                generations::fail(&mut tx, mine, token, FailureCode::Internal, "why").await?;
            tx.commit().await?;
            if let Failed::Stored(_) = failed {
                *answers.failures.entry(mine).or_default() += 1;
            }
        }
        _ => {
            let conversation = conversations[random.random_range(0..conversations.len())];
            let mut tx = world.api.user(world.user).await?;
            if random.random_range(0..4) == 0 {
                let stopped = generations::cancel_unfinished(&mut tx, conversation, true).await?;
                tx.commit().await?;
                for row in stopped.rows {
                    *answers.cancels.entry(row.generation.id).or_default() += 1;
                }
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_races_a_generation_ends_once() {
    let world = Arc::new(World::new().await);
    world.execute(DIARY).await;
    let mut answers = Answers::default();
    let mut ids = Vec::new();
    for round in 0..12 {
        let conversations = vec![world.conversation().await, world.conversation().await];
        let mut round_ids = Vec::new();
        for conversation in &conversations {
            for _ in 0..2 {
                round_ids.push(world.send(*conversation, "hello").await.generation.id);
            }
        }
        let mut hands = JoinSet::new();
        for number in 0..4 {
            let hand = hand(
                world.clone(),
                round_ids.clone(),
                conversations.clone(),
                round * 10 + number,
            );
            hands.spawn(hand);
        }
        for done in hands.join_all().await {
            answers.add(done);
        }
        ids.extend(round_ids);
    }
    let zero = async |what: &str, sql: &str| assert_eq!(world.value(sql).await, "0", "{what}");
    zero(
        "a reply without its usage, or two of them",
        "SELECT count(*) FROM chat.generations g WHERE kind <> 'title'
           AND ((SELECT count(*) FROM chat.usage_tracking u WHERE u.generation_id = g.id) <> (status = 'completed')::int
             OR (SELECT count(*) FROM chat.messages m WHERE m.parent_message_id = g.user_message_id) <> (status = 'completed')::int)",
    )
    .await;
    zero(
        "more attempts than allowed",
        "SELECT count(*) FROM public.diary WHERE counted > 5",
    )
    .await;
    zero(
        "an end that was not the end",
        "SELECT count(*) FROM public.diary WHERE old NOT IN ('queued', 'in_progress')",
    )
    .await;
    let mut session = world.env.session().await;
    let transitions = session
        .rows("SELECT DISTINCT old, new FROM public.diary")
        .await
        .unwrap();
    for row in &transitions {
        let [old, new] = [&row[0], &row[1]].map(|name| {
            name.as_deref()
                .unwrap()
                .parse::<GenerationStatus>()
                .unwrap()
        });
        assert!(old.may_become(new), "{old} became {new}");
    }
    assert!(
        transitions.len() >= 5,
        "the hands did too little: {transitions:?}"
    );
    // Every answer was true: what was said to be stored is, and nothing else.
    let claims = "SELECT count(*) FROM public.diary d JOIN chat.generations g ON g.id = d.id
                  WHERE new = 'in_progress' AND g.kind <> 'title'";
    assert_eq!(world.value(claims).await, answers.claims.to_string());
    for id in ids {
        let status = world.generation(id).await.status;
        let said = |answers: &HashMap<Uuid, u32>| answers.get(&id).copied().unwrap_or(0);
        let expected = (
            u32::from(status == GenerationStatus::Completed),
            said(&answers.failures).min(1),
            u32::from(status == GenerationStatus::Cancelled),
        );
        assert_eq!(
            (
                said(&answers.replies),
                said(&answers.failures),
                said(&answers.cancels)
            ),
            expected,
            "{id} is {status}"
        );
        if said(&answers.failures) == 1 {
            assert_eq!(status, GenerationStatus::Failed);
        }
    }
    // Nothing was left in a state that nobody gets it out of.
    tokio::time::timeout(Duration::from_secs(30), drain(&world))
        .await
        .expect("everything ends");
}

async fn drain(world: &World) {
    loop {
        world.execute("UPDATE chat.generations SET lease_until = now() - interval '1 second' WHERE status = 'in_progress'").await;
        let mut tx = world.worker.sweep().await.unwrap();
        let expired = generations::expired_leases(&mut tx, 1_000, Duration::ZERO)
            .await
            .unwrap();
        generations::wake_after(&mut tx, &expired).await.unwrap();
        let all = &mut generations::Look::default();
        generations::wake_lost(&mut tx, all, 1_000).await.unwrap();
        generations::claim_ready(
            &mut tx,
            &generations::Room::for_any(1_000),
            &claimer("w/1", LEASE),
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let unfinished =
            "SELECT count(*) FROM chat.generations WHERE status IN ('queued', 'in_progress')";
        if world.value(unfinished).await == "0" {
            return;
        }
    }
}
