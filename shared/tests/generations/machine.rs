//! Every operation on every status: the answer, and the status after it.

use std::fmt::Write as _;
use std::time::Duration;

use shared::domain::{FailureCode, GenerationStatus};
use shared::id;
use shared::store::generations::{self, Cancelled, Failed, Finished, TitleFinished};
use uuid::Uuid;

use crate::common::{LEASE, World, claimer, usage};

/// Where a generation stands before the operation.
#[derive(Clone, Copy, Debug)]
enum From {
    Is(GenerationStatus),
    /// In progress, and this attempt is the last that is allowed.
    LastAttempt,
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(status) => f.pad(status.as_str()),
            Self::LastAttempt => f.pad("last attempt"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Claim,
    ClaimReady,
    Renew,
    Release,
    RetryLater,
    RetryForgiven,
    Finish,
    FinishIncomplete,
    FinishTitle,
    Fail,
    Cancel,
    CancelUnfinished,
    LeaseRunsOut,
    DeadlinePasses,
    FreePredecessor,
    KeepPartial,
}

impl Operation {
    const ALL: [Self; 16] = [
        Self::Claim,
        Self::ClaimReady,
        Self::Renew,
        Self::Release,
        Self::RetryLater,
        Self::RetryForgiven,
        Self::Finish,
        Self::FinishIncomplete,
        Self::FinishTitle,
        Self::Fail,
        Self::Cancel,
        Self::CancelUnfinished,
        Self::LeaseRunsOut,
        Self::DeadlinePasses,
        Self::FreePredecessor,
        Self::KeepPartial,
    ];
}

/// A generation, with the token of its newest claim.
struct Subject<'a> {
    world: &'a World,
    conversation: Uuid,
    id: Uuid,
    token: Uuid,
    /// The name of the worker that claimed it, so that only this one is freed.
    worker: String,
}

impl<'a> Subject<'a> {
    async fn new(world: &'a World, from: From) -> Self {
        let conversation = world.conversation().await;
        let id = world.send(conversation, "hello").await.generation.id;
        let mut subject = Self {
            world,
            conversation,
            id,
            token: Uuid::new_v4(),
            worker: format!("worker-{id}"),
        };
        match from {
            From::Is(GenerationStatus::Queued) => return subject,
            From::LastAttempt => {
                subject.set("attempt = 5, forgiven = 1").await;
            }
            From::Is(_) => {}
        }
        let claim = world
            .claim_for(&format!("{}/boot", subject.worker), &[id])
            .await;
        subject.token = claim[0].token;
        match from {
            From::Is(GenerationStatus::Completed) => subject.finish(false).await,
            From::Is(GenerationStatus::Incomplete) => subject.finish(true).await,
            From::Is(GenerationStatus::Failed) => subject.fail().await,
            From::Is(GenerationStatus::Cancelled) => subject.cancel().await,
            From::Is(_) | From::LastAttempt => String::new(),
        };
        subject
    }

    /// Changes the row behind the store's back.
    async fn set(&self, what: &str) {
        let sql = format!(
            "UPDATE chat.generations SET {what} WHERE id = '{}'",
            self.id
        );
        self.world.execute(&sql).await;
    }

    async fn status(&self) -> GenerationStatus {
        self.world.generation(self.id).await.status
    }

    /// Everything of the row that an operation could change, and what belongs to it.
    async fn whole(&self) -> String {
        let sql = format!(
            "SELECT to_jsonb(g)::text || (SELECT count(*) FROM chat.messages m WHERE m.conversation_id = g.conversation_id)
                    || (SELECT count(*) FROM chat.usage_tracking u WHERE u.generation_id = g.id)
             FROM chat.generations g WHERE id = '{}'",
            self.id
        );
        self.world.value(&sql).await
    }

    async fn finish(&self, incomplete: bool) -> String {
        match self
            .world
            .finish_with(self.id, self.token, "the reply", incomplete)
            .await
        {
            Finished::Stored { .. } => "stored".to_owned(),
            Finished::Fenced => "fenced".to_owned(),
        }
    }

    async fn fail(&self) -> String {
        let mut tx = self.world.worker.user(self.world.user).await.unwrap();
        let code = FailureCode::UpstreamExhausted;
        let failed = generations::fail(&mut tx, self.id, self.token, code, "why")
            .await
            .unwrap();
        tx.commit().await.unwrap();
        match failed {
            Failed::Stored(_) => "stored".to_owned(),
            Failed::Fenced => "fenced".to_owned(),
        }
    }

    async fn cancel(&self) -> String {
        let mut tx = self.world.api.user(self.world.user).await.unwrap();
        let cancelled = generations::cancel(&mut tx, self.id, Some("so far"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        match cancelled {
            Cancelled::Done(row, _) => {
                assert_eq!(row.generation.partial_content.as_deref(), Some("so far"));
                "done".to_owned()
            }
            Cancelled::Ended(_) => "had ended".to_owned(),
            Cancelled::NotFound => "not found".to_owned(),
        }
    }

    async fn finish_title(&self) -> String {
        let mut tx = self.world.worker.user(self.world.user).await.unwrap();
        let usage_id = id::new(self.world.clock.now());
        let title = Some("A title");
        let done =
            generations::finish_title(&mut tx, self.id, self.token, usage_id, &usage(), title)
                .await;
        tx.commit().await.unwrap();
        match done.unwrap() {
            TitleFinished::Stored(conversation) => {
                format!(
                    "stored {}",
                    conversation.map_or_else(|| "nothing".to_owned(), |it| it.title)
                )
            }
            TitleFinished::Fenced => "fenced".to_owned(),
        }
    }

    /// Does it, and says what the answer was.
    async fn after(&self, operation: Operation) -> String {
        let world = self.world;
        let mine = [(self.id, self.token)];
        let found = |ids: &[Uuid]| if ids.contains(&self.id) { "yes" } else { "no" }.to_owned();
        match operation {
            Operation::Finish => return self.finish(false).await,
            Operation::FinishIncomplete => return self.finish(true).await,
            Operation::FinishTitle => {
                self.set("kind = 'title'").await;
                return self.finish_title().await;
            }
            Operation::Fail => return self.fail().await,
            Operation::Cancel => return self.cancel().await,
            Operation::CancelUnfinished => {
                let mut tx = world.api.user(world.user).await.unwrap();
                let stopped = generations::cancel_unfinished(&mut tx, self.conversation, true)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
                let ids: Vec<Uuid> = stopped.rows.iter().map(|row| row.generation.id).collect();
                return found(&ids);
            }
            Operation::KeepPartial => {
                let mut tx = world.worker.user(world.user).await.unwrap();
                let attempt = world.generation(self.id).await.attempts;
                let kept =
                    generations::keep_partial(&mut tx, self.id, attempt, "so far, and more").await;
                tx.commit().await.unwrap();
                return if kept.unwrap() { "yes" } else { "no" }.to_owned();
            }
            Operation::LeaseRunsOut => {
                self.set("lease_until = lease_until - interval '1 day'")
                    .await;
            }
            Operation::DeadlinePasses => {
                self.set("deadline_at = now() - interval '1 second'").await
            }
            _ => {}
        }
        let mut tx = world.worker.sweep().await.unwrap();
        let answer = match operation {
            Operation::Claim => {
                let claims = generations::claim(&mut tx, &[self.id], &claimer("w/1", LEASE))
                    .await
                    .unwrap();
                found(&claims.iter().map(|claim| claim.id).collect::<Vec<_>>())
            }
            Operation::ClaimReady => {
                let claims = generations::claim_ready(
                    &mut tx,
                    &generations::Room::for_any(1_000),
                    &claimer("w/1", LEASE),
                )
                .await
                .unwrap();
                found(&claims.iter().map(|claim| claim.id).collect::<Vec<_>>())
            }
            Operation::Renew => found(&generations::renew(&mut tx, &mine, LEASE).await.unwrap()),
            Operation::Release => {
                let freed = generations::release(&mut tx, &mine).await.unwrap();
                found(&freed.iter().map(|(id, _)| *id).collect::<Vec<_>>())
            }
            Operation::RetryLater | Operation::RetryForgiven => {
                let forgive = matches!(operation, Operation::RetryForgiven);
                let delay = Duration::from_secs(60);
                let done =
                    generations::retry_later(&mut tx, self.id, self.token, delay, forgive, "limit")
                        .await;
                if done.unwrap() { "yes" } else { "no" }.to_owned()
            }
            Operation::LeaseRunsOut | Operation::DeadlinePasses => {
                let expired = if matches!(operation, Operation::LeaseRunsOut) {
                    generations::expired_leases(&mut tx, 1_000, std::time::Duration::ZERO)
                        .await
                        .unwrap()
                } else {
                    generations::expired_deadlines(&mut tx, 1_000)
                        .await
                        .unwrap()
                };
                match expired.iter().find(|expired| expired.id == self.id) {
                    Some(expired) => expired
                        .failed
                        .map_or("freed", FailureCode::as_str)
                        .to_owned(),
                    None => "no".to_owned(),
                }
            }
            Operation::FreePredecessor => {
                let own = format!("{}/next boot", self.worker);
                let freed = generations::free_predecessor(
                    &mut tx,
                    &self.worker,
                    &own,
                    &crate::common::HANDOVER,
                )
                .await
                .unwrap();
                found(&freed.iter().map(|(id, _)| *id).collect::<Vec<_>>())
            }
            _ => unreachable!("answered above"),
        };
        tx.commit().await.unwrap();
        answer
    }
}

#[tokio::test]
async fn every_operation_on_every_status() {
    let world = World::new().await;
    let before = GenerationStatus::ALL.iter().map(|status| From::Is(*status));
    let mut table = String::new();
    for from in before.chain([From::LastAttempt]) {
        for operation in Operation::ALL {
            let subject = Subject::new(&world, from).await;
            if matches!(operation, Operation::FinishTitle) {
                subject.set("kind = 'title'").await;
            }
            let status = subject.status().await;
            let whole = subject.whole().await;
            let answer = subject.after(operation).await;
            let then = subject.status().await;
            assert!(
                status == then || status.may_become(then),
                "{operation:?} made {status} {then}, which the state machine does not have"
            );
            if ["no", "fenced", "had ended"].contains(&answer.as_str()) {
                // The last one ends the lease of what has no attempt left.
                let moved = matches!(
                    (operation, from),
                    (Operation::LeaseRunsOut | Operation::DeadlinePasses, _)
                        | (Operation::FreePredecessor, From::LastAttempt)
                );
                let changed = whole != subject.whole().await;
                assert!(
                    !changed || moved,
                    "{operation:?} on {from} changed the row although it said {answer}"
                );
            }
            // What does not happen to a generation that has ended is not listed 60 times.
            let refused = ["no", "fenced", "had ended"].contains(&answer.as_str());
            if !(status.is_terminal() && refused) {
                writeln!(
                    table,
                    "{from:12} {:18} {answer:20} {then}",
                    format!("{operation:?}")
                )
                .unwrap();
            }
            subject.set("kind = 'reply'").await;
            let mut tx = world.api.user(world.user).await.unwrap();
            generations::cancel_unfinished(&mut tx, subject.conversation, true)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }
    insta::assert_snapshot!(table, @r"
    queued       Claim              yes                  in_progress
    queued       ClaimReady         yes                  in_progress
    queued       Renew              no                   queued
    queued       Release            no                   queued
    queued       RetryLater         no                   queued
    queued       RetryForgiven      no                   queued
    queued       Finish             fenced               queued
    queued       FinishIncomplete   fenced               queued
    queued       FinishTitle        fenced               queued
    queued       Fail               fenced               queued
    queued       Cancel             done                 cancelled
    queued       CancelUnfinished   yes                  cancelled
    queued       LeaseRunsOut       no                   queued
    queued       DeadlinePasses     expired              failed
    queued       FreePredecessor    no                   queued
    queued       KeepPartial        no                   queued
    in_progress  Claim              no                   in_progress
    in_progress  ClaimReady         no                   in_progress
    in_progress  Renew              yes                  in_progress
    in_progress  Release            yes                  queued
    in_progress  RetryLater         yes                  queued
    in_progress  RetryForgiven      yes                  queued
    in_progress  Finish             stored               completed
    in_progress  FinishIncomplete   stored               incomplete
    in_progress  FinishTitle        stored A title       completed
    in_progress  Fail               stored               failed
    in_progress  Cancel             done                 cancelled
    in_progress  CancelUnfinished   yes                  cancelled
    in_progress  LeaseRunsOut       freed                queued
    in_progress  DeadlinePasses     no                   in_progress
    in_progress  FreePredecessor    yes                  queued
    in_progress  KeepPartial        no                   in_progress
    last attempt Claim              no                   in_progress
    last attempt ClaimReady         no                   in_progress
    last attempt Renew              yes                  in_progress
    last attempt Release            yes                  queued
    last attempt RetryLater         yes                  queued
    last attempt RetryForgiven      yes                  queued
    last attempt Finish             stored               completed
    last attempt FinishIncomplete   stored               incomplete
    last attempt FinishTitle        stored A title       completed
    last attempt Fail               stored               failed
    last attempt Cancel             done                 cancelled
    last attempt CancelUnfinished   yes                  cancelled
    last attempt LeaseRunsOut       attempts_exhausted   failed
    last attempt DeadlinePasses     no                   in_progress
    last attempt FreePredecessor    no                   in_progress
    last attempt KeepPartial        no                   in_progress
    ");
}

/// What the row keeps of an ending, and what it forgets of the claim.
#[tokio::test]
async fn an_ended_generation_keeps_no_claim() {
    let world = World::new().await;
    for status in GenerationStatus::ALL
        .iter()
        .filter(|status| status.is_terminal())
    {
        Subject::new(&world, From::Is(*status)).await;
    }
    let claimed = "SELECT count(*) FROM chat.generations
                   WHERE kind <> 'title' AND (claim_token IS NOT NULL OR lease_until IS NOT NULL OR finished_at IS NULL)";
    assert_eq!(world.value(claimed).await, "0");
    // Each check constraint, against a statement that forgets its half.
    for (statement, constraint) in [
        (
            "status = 'in_progress'",
            "generations_claimed_iff_in_progress",
        ),
        (
            "claim_token = gen_random_uuid(), lease_until = now()",
            "generations_claimed_iff_in_progress",
        ),
        (
            "status = 'in_progress', claim_token = gen_random_uuid(), error_code = NULL",
            "generations_leased_iff_claimed",
        ),
        (
            "status = 'failed', error_code = NULL",
            "generations_failed_has_code",
        ),
        (
            "status = 'queued', error_code = 'internal'",
            "generations_failed_has_code",
        ),
        ("status = 'paused'", "generations_status_check"),
    ] {
        let sql = format!("UPDATE chat.generations SET {statement} WHERE status = 'cancelled'");
        let refused = world.env.session().await.run(&sql).await.unwrap_err();
        assert_eq!(
            refused.constraint.as_deref(),
            Some(constraint),
            "{statement}: {refused:?}"
        );
    }
}
