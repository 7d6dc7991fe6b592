//! Random interleavings of three workers, the sweeps and a person on one generation, against a model.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use shared::domain::{FailureCode, GenerationStatus as Status};
use shared::store::generations::{self, Cancelled, Failed, Finished};
use std::time::Duration;
use uuid::Uuid;

use crate::common::{LEASE, World, claimer};

const WORKERS: usize = 3;
const MAX_ATTEMPTS: i32 = 5;

#[derive(Clone, Copy, Debug)]
enum Act {
    Claim(usize),
    ClaimReady(usize),
    Renew(usize),
    Release(usize),
    /// Because of a limit: not counted.
    RetryForgiven(usize),
    Finish(usize),
    Fail(usize),
    /// The worker's process starts again under its name and frees what its earlier life held.
    Restart(usize),
    /// Time passes the lease, and the sweep finds it.
    LeaseRunsOut,
    /// The sweep finds nothing.
    Sweep,
    Cancel,
}

fn act() -> impl Strategy<Value = Act> {
    let worker = 0..WORKERS;
    prop_oneof![
        6 => worker.clone().prop_map(Act::Claim),
        2 => worker.clone().prop_map(Act::ClaimReady),
        2 => worker.clone().prop_map(Act::Renew),
        2 => worker.clone().prop_map(Act::Release),
        2 => worker.clone().prop_map(Act::RetryForgiven),
        1 => worker.clone().prop_map(Act::Finish),
        1 => worker.clone().prop_map(Act::Fail),
        2 => worker.prop_map(Act::Restart),
        5 => Just(Act::LeaseRunsOut),
        1 => Just(Act::Sweep),
        1 => Just(Act::Cancel),
    ]
}

/// What should be true.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    status: Status,
    attempt: i32,
    forgiven: i32,
    replies: u32,
}

/// What each worker believes to hold: the token of its newest claim and the attempt it belongs to.
#[derive(Clone, Copy, Debug)]
struct Belief {
    token: Uuid,
    attempt: i32,
    boot: u32,
}

struct Play<'a> {
    world: &'a World,
    id: Uuid,
    model: Model,
    beliefs: [Belief; WORKERS],
    /// Who made the newest attempt, and in which life.
    owner: Option<(usize, u32)>,
    /// The claim's lease was ended, because its worker started again and no attempt is left.
    given_up: bool,
}

impl Play<'_> {
    fn name(&self, worker: usize) -> String {
        format!("{}-{worker}", self.id)
    }

    fn worker_id(&self, worker: usize) -> String {
        format!("{}/{}", self.name(worker), self.beliefs[worker].boot)
    }

    fn holds(&self, worker: usize) -> bool {
        self.model.status == Status::InProgress
            && self.beliefs[worker].attempt == self.model.attempt
    }

    fn claimed(&mut self, worker: usize, claims: &[generations::Claim]) -> TestCaseResult {
        let claim = claims.iter().find(|claim| claim.id == self.id);
        prop_assert_eq!(claim.is_some(), self.model.status == Status::Queued);
        if let Some(claim) = claim {
            self.model.status = Status::InProgress;
            self.model.attempt += 1;
            prop_assert_eq!(claim.attempt, self.model.attempt);
            prop_assert_eq!(
                claim.counted_attempts,
                self.model.attempt - self.model.forgiven
            );
            self.beliefs[worker].token = claim.token;
            self.beliefs[worker].attempt = claim.attempt;
            self.owner = Some((worker, self.beliefs[worker].boot));
            self.given_up = false;
        }
        Ok(())
    }

    async fn act(&mut self, act: Act) -> TestCaseResult {
        let (world, id) = (self.world, self.id);
        match act {
            Act::Claim(worker) | Act::ClaimReady(worker) => {
                let mut tx = world.worker.sweep_statement().await.unwrap();
                let name = self.worker_id(worker);
                let claims = if matches!(act, Act::Claim(_)) {
                    generations::claim(&mut tx, &[id], &claimer(&name, LEASE))
                        .await
                        .unwrap()
                } else {
                    generations::claim_ready(
                        &mut tx,
                        &generations::Room::for_any(100),
                        &claimer(&name, LEASE),
                    )
                    .await
                    .unwrap()
                };
                tx.commit().await.unwrap();
                self.claimed(worker, &claims)?;
            }
            Act::Renew(worker) => {
                let mut tx = world.worker.sweep_async().await.unwrap();
                let mine = [(id, self.beliefs[worker].token)];
                let renewed = generations::renew(&mut tx, &mine, LEASE).await.unwrap();
                tx.commit().await.unwrap();
                prop_assert_eq!(renewed.len(), usize::from(self.holds(worker)));
                self.given_up &= renewed.is_empty();
            }
            Act::Release(worker) => {
                let mut tx = world.worker.sweep().await.unwrap();
                let released = generations::release(&mut tx, &[(id, self.beliefs[worker].token)])
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                prop_assert_eq!(released.len(), usize::from(self.holds(worker)));
                self.given_back(worker);
            }
            Act::RetryForgiven(worker) => {
                let mut tx = world.worker.sweep().await.unwrap();
                let token = self.beliefs[worker].token;
                let done =
                    generations::retry_later(&mut tx, id, token, Duration::ZERO, true, "limit")
                        .await
                        .unwrap();
                tx.commit().await.unwrap();
                prop_assert_eq!(done, self.holds(worker));
                self.given_back(worker);
            }
            Act::Finish(worker) => {
                let token = self.beliefs[worker].token;
                let finished = world.finish_with(id, token, "reply", false).await;
                prop_assert_eq!(
                    matches!(finished, Finished::Stored { .. }),
                    self.holds(worker)
                );
                if self.holds(worker) {
                    self.model.status = Status::Completed;
                    self.model.replies += 1;
                }
            }
            Act::Fail(worker) => {
                let mut tx = world.worker.user(world.user).await.unwrap();
                let token = self.beliefs[worker].token;
                let failed = generations::fail(&mut tx, id, token, FailureCode::Internal, "why")
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                prop_assert_eq!(matches!(failed, Failed::Stored(_)), self.holds(worker));
                if self.holds(worker) {
                    self.model.status = Status::Failed;
                }
            }
            Act::Restart(worker) => {
                let earlier = self.model.status == Status::InProgress
                    && self.owner == Some((worker, self.beliefs[worker].boot))
                    && self.model.attempt - self.model.forgiven < MAX_ATTEMPTS;
                self.beliefs[worker].boot += 1;
                let mut tx = world.worker.sweep().await.unwrap();
                let (name, own) = (self.name(worker), self.worker_id(worker));
                let freed =
                    generations::free_predecessor(&mut tx, &name, &own, &crate::common::HANDOVER)
                        .await
                        .unwrap();
                tx.commit().await.unwrap();
                // Of a life before the last as well.
                let owned = self.owner.is_some_and(|(owner, _)| owner == worker);
                let freeable = self.model.status == Status::InProgress
                    && owned
                    && self.model.attempt - self.model.forgiven < MAX_ATTEMPTS;
                prop_assert!(!earlier || freeable);
                prop_assert_eq!(freed.len(), usize::from(freeable));
                if freeable {
                    self.model.status = Status::Queued;
                } else if self.model.status == Status::InProgress && owned {
                    self.given_up = true;
                }
            }
            Act::LeaseRunsOut | Act::Sweep => {
                if matches!(act, Act::LeaseRunsOut) {
                    let sql = format!(
                        "UPDATE chat.generations SET lease_until = lease_until - interval '1 day' WHERE id = '{id}'"
                    );
                    world.execute(&sql).await;
                }
                let mut tx = world.worker.sweep().await.unwrap();
                let expired = generations::expired_leases(&mut tx, 100, std::time::Duration::ZERO)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                let out = self.model.status == Status::InProgress
                    && (matches!(act, Act::LeaseRunsOut) || self.given_up);
                prop_assert_eq!(expired.len(), usize::from(out));
                if out {
                    let spent = self.model.attempt - self.model.forgiven >= MAX_ATTEMPTS;
                    self.model.status = if spent {
                        Status::Failed
                    } else {
                        Status::Queued
                    };
                    prop_assert_eq!(
                        expired[0].failed,
                        spent.then_some(FailureCode::AttemptsExhausted)
                    );
                }
            }
            Act::Cancel => {
                let mut tx = world.api.user(world.user).await.unwrap();
                let cancelled = generations::cancel(&mut tx, id, None).await.unwrap();
                tx.commit().await.unwrap();
                prop_assert_eq!(
                    matches!(cancelled, Cancelled::Done(..)),
                    !self.model.status.is_terminal()
                );
                if !self.model.status.is_terminal() {
                    self.model.status = Status::Cancelled;
                }
            }
        }
        Ok(())
    }

    fn given_back(&mut self, worker: usize) {
        if self.holds(worker) {
            self.model.status = Status::Queued;
            self.model.forgiven += 1;
        }
    }

    /// The row, its replies and its usage are what the model says.
    async fn check(&self, after: &str) -> TestCaseResult {
        let sql = format!(
            "SELECT concat_ws(' ', status, attempt, forgiven,
                 (SELECT count(*) FROM chat.messages m WHERE m.parent_message_id = g.user_message_id),
                 (SELECT count(*) FROM chat.usage_tracking u WHERE u.generation_id = g.id))
             FROM chat.generations g WHERE id = '{}'",
            self.id
        );
        let Model {
            status,
            attempt,
            forgiven,
            replies,
        } = self.model;
        let expected = format!("{status} {attempt} {forgiven} {replies} {replies}");
        prop_assert_eq!(self.world.value(&sql).await, expected, "after {}", after);
        prop_assert!(replies <= 1 && attempt - forgiven <= MAX_ATTEMPTS);
        Ok(())
    }
}

async fn play(world: &World, acts: &[Act]) -> TestCaseResult {
    // Nothing of an earlier case is left for the sweeps, also of one that failed.
    world
        .execute(
            "UPDATE chat.generations SET status = 'cancelled', claim_token = NULL, lease_until = NULL,
                 finished_at = now()
             WHERE status IN ('queued', 'in_progress')",
        )
        .await;
    let conversation = world.conversation().await;
    // A title would be one more generation to claim and to free.
    let titled = format!(
        "UPDATE chat.conversations SET title_is_default = false WHERE id = '{conversation}'"
    );
    world.execute(&titled).await;
    let id = world.send(conversation, "hello").await.generation.id;
    let nothing = Belief {
        token: Uuid::new_v4(),
        attempt: 0,
        boot: 0,
    };
    let model = Model {
        status: Status::Queued,
        attempt: 0,
        forgiven: 0,
        replies: 0,
    };
    let mut play = Play {
        world,
        id,
        model,
        beliefs: [nothing; WORKERS],
        owner: None,
        given_up: false,
    };
    let mut ended = None;
    for (number, act) in acts.iter().enumerate() {
        play.act(*act).await?;
        play.check(&format!("{act:?}, number {number} of {acts:?}"))
            .await?;
        if let Some(ended) = ended {
            prop_assert_eq!(ended, play.model.status, "an end is the end");
        }
        ended = ended.or(play.model.status.is_terminal().then_some(play.model.status));
    }
    Ok(())
}

#[test]
fn no_interleaving_makes_two_replies_or_leaves_an_end() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    let config = Config {
        cases: 256,
        failure_persistence: None,
        ..Config::default()
    };
    let acts = proptest::collection::vec(act(), 1..16);
    TestRunner::new(config)
        .run(&acts, |acts| runtime.block_on(play(&world, &acts)))
        .unwrap();
    runtime.block_on(async { drop(world) });
}
