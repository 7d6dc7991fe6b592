//! From a finished assessment to a conversation about it.

pub(super) mod context;
pub(super) mod look;
pub(super) mod start;

use std::time::Duration;

use platform::Missing;
use shared::domain::assessment::{AssessmentData, Language, Spoken};
use shared::domain::{Event, Priority, Tier};
use shared::models::Model;
use shared::queue;
use shared::store::UserTx;
use shared::store::assessments::{self, Prepared, Registered};
use shared::store::generations::{NewGeneration, WELCOME_DEADLINE};
use uuid::Uuid;

use crate::app::AppState;
use crate::budgets;
use crate::error::{Code, Problem, Result};
use crate::extract::Correlation;
use crate::limits;

fn not_found() -> Problem {
    Problem::of(Code::AssessmentNotFound)
}

/// The results of an assessment where they are not stored yet, from the archive. Whoever is not known
/// to have it (`is_trusted` says that another service vouches for it) gets `assessment_not_found` when
/// the archive knows nothing of it, and everybody does when it is somebody else's. An archive that is
/// away keeps nobody waiting: the results then come later. Each look into the archive for somebody counts
/// against a limit of theirs, so that nobody can make Balas call it as often as they like.
async fn fetched(
    app: &AppState,
    user_id: Uuid,
    assessment_id: Uuid,
    is_trusted: bool,
) -> Result<Option<AssessmentData>> {
    let mut tx = app.db.user(user_id).await?;
    let known = assessments::find(&mut tx, assessment_id).await?;
    drop(tx);
    if known.as_ref().is_some_and(|known| known.data.is_some()) {
        return Ok(None);
    }
    if !is_trusted {
        let limit = limits::assessments(&app.gate.config.limits);
        limits::count(app, limit, user_id).await?;
    }
    match app.platform.results(assessment_id, user_id).await {
        Ok(results) if results.owner.is_some_and(|owner| owner != user_id) => Err(not_found()),
        Ok(results) => Ok(Some(results.data.clone()).filter(|data| !data.is_empty())),
        Err(Missing::NotFound) if known.is_none() && !is_trusted => Err(not_found()),
        Err(_) => Ok(None),
    }
}

/// Notes what is known of an assessment, locks it, and finds out which language its person speaks, with
/// what their client asks for. None when it is somebody else's.
async fn register(
    app: &AppState,
    tx: &mut UserTx,
    assessment_id: Uuid,
    data: Option<&AssessmentData>,
    client: Option<Language>,
) -> Result<Option<Registered>> {
    let clock = &app.gate.clock;
    let registered = assessments::register(tx, clock, assessment_id, data, None).await?;
    let Some(mut registered) = registered else {
        return Ok(None);
    };
    let spoken = Spoken {
        client,
        ..app.gate.config.platform.spoken()
    };
    assessments::listen(tx, &mut registered, spoken).await?;
    Ok(Some(registered))
}

/// The work of a welcome.
fn welcome<'a>(
    app: &AppState,
    priority: Priority,
    chain: &'a [Model],
    correlation: &'a Correlation,
) -> NewGeneration<'a> {
    let deadline: Duration = app.gate.config.limits.generation_deadline;
    NewGeneration {
        priority,
        chain,
        stream: true,
        deadline: deadline.min(WELCOME_DEADLINE),
        max_attempts: app.gate.config.limits.max_attempts,
        request_id: correlation.request_id(),
        traceparent: correlation.traceparent(),
    }
}

/// The models for somebody whose tier nobody has said.
fn common_chain(app: &AppState) -> Vec<Model> {
    app.models.chain_for(Tier::Free, None)
}

/// Reserves what a welcome that was queued in this transaction may cost; the last thing before the commit.
async fn reserve(
    app: &AppState,
    tx: &mut UserTx,
    prepared: &mut Prepared,
    chain: &[Model],
) -> Result<()> {
    match (budgets::estimate(app, chain), &mut prepared.welcome) {
        (Some(credits), Some(welcome)) => {
            budgets::reserve(app, tx, &mut welcome.generation, chain, credits).await
        }
        _ => Ok(()),
    }
}

/// After the commit: tells the person's clients and a worker. The commit stands whatever comes of it.
async fn tell(app: &AppState, user_id: Uuid, prepared: &mut Prepared) {
    let mut events: Vec<Event> = Vec::new();
    if prepared.changed || prepared.note.is_some() {
        let now = app.gate.clock.now();
        events.push(Event::conversation_updated(&prepared.conversation, now));
    }
    events.extend(prepared.reached.iter().map(assessments::Reached::event));
    for event in events {
        push(app, user_id, &event).await;
    }
    if let Some(welcome) = &mut prepared.welcome {
        let announced = queue::announce(
            &app.redis,
            &app.gate.clock,
            user_id,
            welcome.priority,
            &mut welcome.generation,
            welcome.parked,
        );
        if let Err(failure) = announced.await {
            tracing::debug!(generation.id = %welcome.generation.id, %failure, "a welcome was not announced");
        }
    }
}

async fn push(app: &AppState, user_id: Uuid, event: &Event) {
    if let Err(failure) = shared::push::publish(&app.redis, user_id, event).await {
        tracing::debug!(%failure, "an event was not pushed");
    }
}
