//! Doing what an event is about.

use std::time::Duration;

use rand::RngExt as _;
use shared::domain::assessment::Stage;
use shared::domain::{Event, Priority, Tier};
use shared::queue;
use shared::store::assessments::{self, Prepared, Preparing};
use shared::store::generations::{NewGeneration, WELCOME_DEADLINE};
use shared::store::{StoreError, StoreResult, inbox};
use tokio_util::sync::CancellationToken;

use super::event::{Inbound, Refusal};
use crate::context::Context;
use crate::welcomes::push;

/// Claims of a welcome before it is given up.
const MAX_ATTEMPTS: i32 = 5;
/// Tries of an event whose statements fail for another reason than that the database is away.
const TRIES: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is left to tell after the commit.
#[derive(Default)]
struct Done {
    repeated: bool,
    events: Vec<Event>,
    prepared: Option<Prepared>,
}

/// Does the work until it is done, for as long as the database is away; none when the worker stops
/// before.
pub(super) async fn until_done(
    context: &Context,
    event: &Inbound,
    stopping: &CancellationToken,
) -> Option<Result<&'static str, Refusal>> {
    let (mut failures, mut pause) = (0, Duration::from_millis(50));
    loop {
        match stopping.run_until_cancelled(work(context, event)).await? {
            Ok(Some(done)) => {
                let outcome = if done.repeated { "repeated" } else { "done" };
                tell(context, event, done).await;
                return Some(Ok(outcome));
            }
            Ok(None) => {
                let reason = "the assessment is another person's";
                return Some(Err(Refusal(reason.to_owned())));
            }
            // It is tried again; whoever holds the assessment then has somebody's word for it.
            Err(Failure::TakenBack) => {}
            Err(Failure::Store(error)) => {
                let passes = error.is_unavailable() || error.is_conflict() || error.is_outdated();
                failures += u32::from(!passes);
                tracing::warn!(
                    assessment.id = %event.assessment_id,
                    error = &error as &dyn std::error::Error,
                    "an event is not stored yet"
                );
                if failures >= TRIES {
                    return Some(Err(Refusal("a fault of the chat service".to_owned())));
                }
            }
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        stopping
            .run_until_cancelled(tokio::time::sleep(jittered))
            .await?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why an event is not stored yet.
enum Failure {
    Store(StoreError),
    /// Somebody held the assessment of whom nobody has said that it is theirs.
    TakenBack,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The analysis knows whose an assessment is, and whoever asked for it first only said so.
async fn take_back(context: &Context, event: &Inbound) -> StoreResult<bool> {
    let mut tx = context.db.sweep().await?;
    let taken = assessments::disown(&mut tx, event.assessment_id, event.user_id).await?;
    tx.commit().await?;
    if taken {
        tracing::warn!(
            assessment.id = %event.assessment_id,
            user.id = %event.user_id,
            "an assessment was taken back from somebody who had asked for it before its owner"
        );
    }
    Ok(taken)
}

/// The event's one transaction. None when the assessment is somebody else's.
async fn work(context: &Context, event: &Inbound) -> Result<Option<Done>, Failure> {
    let clock = &context.clock;
    let mut tx = context.db.user(event.user_id).await?;
    let kind = event.kind.as_str();
    if !inbox::note(&mut tx, &event.id, event.assessment_id, kind).await? {
        return Ok(Some(Done {
            repeated: true,
            ..Done::default()
        }));
    }
    let data = event.data.as_ref();
    let registered = assessments::register(&mut tx, clock, event.assessment_id, data, None).await?;
    let Some(mut registered) = registered else {
        drop(tx);
        return match take_back(context, event).await? {
            true => Err(Failure::TakenBack),
            false => Ok(None),
        };
    };
    assessments::vouch(&mut tx, event.assessment_id).await?;
    assessments::listen(&mut tx, &mut registered, context.config.platform.spoken()).await?;
    let request_id = event.request_id.as_deref();
    let traceparent = event.traceparent.as_deref();
    let mut done = Done::default();
    if event.kind == Stage::Complete {
        let models = &context.config.upstream.models;
        let chain = models.chain_for(Tier::Free, None);
        let welcome = NewGeneration {
            priority: Priority::Standard,
            chain: &chain,
            stream: true,
            deadline: WELCOME_DEADLINE,
            max_attempts: MAX_ATTEMPTS,
            request_id,
            traceparent,
        };
        let wish = Preparing {
            title: None,
            welcome: Some(&welcome),
            adopt: true,
        };
        let prepared = assessments::prepare(&mut tx, clock, &registered, &wish).await?;
        if prepared.changed || prepared.note.is_some() {
            let now = clock.now();
            done.events
                .push(Event::conversation_updated(&prepared.conversation, now));
        }
        done.events
            .extend(prepared.reached.iter().map(assessments::Reached::event));
        done.prepared = Some(prepared);
    } else {
        let assessment = &registered.assessment;
        let advancing = assessments::advance(
            &mut tx,
            clock,
            assessment,
            event.kind,
            request_id,
            traceparent,
        );
        done.events
            .extend(advancing.await?.map(|reached| reached.event()));
    }
    tx.commit().await?;
    Ok(Some(done))
}

/// Tells the person's clients, a worker, and those who tell the notification service. The commit
/// stands whatever comes of it.
async fn tell(context: &Context, event: &Inbound, done: Done) {
    if !done.events.is_empty() {
        context.wake.wake();
    }
    for pushed in &done.events {
        push(context, event.user_id, pushed).await;
    }
    if let Some(mut welcome) = done.prepared.and_then(|prepared| prepared.welcome) {
        let announced = queue::announce(
            &context.redis,
            &context.clock,
            event.user_id,
            welcome.priority,
            &mut welcome.generation,
            welcome.parked,
        );
        if let Err(failure) = announced.await {
            tracing::debug!(generation.id = %welcome.generation.id, %failure, "a welcome was not announced");
        }
    }
}
