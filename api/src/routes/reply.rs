//! After the commit: wake a worker, and answer now or when the reply is there.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use shared::domain::{Generation, GenerationStatus, Parked};
use shared::push::Follow;
use shared::queue;
use tokio::time::Instant;

use super::creation::Kept;
use super::model::priority;
use super::view::{Accepted, Answer, Regenerated, Replied};
use crate::app::AppState;
use crate::auth::Identity;
use crate::error::chain;
use crate::extract::Prefer;

/// Nothing here can fail the request: the work is committed, and what was kept is a good answer.
pub(super) async fn answer(
    app: &AppState,
    user: &Identity,
    kept: Kept,
    mut body: Accepted,
    parked: Option<Parked>,
    prefer: Prefer,
) -> Response {
    let unanswered = prefer
        .wait
        .filter(|wait| !wait.is_zero())
        .map(|_| kept.unanswered(app, user.id));
    let ended = announce(app, user, &mut body.generation, parked, &prefer).await;
    let location = body.links.this.clone();
    let answer = match ended {
        Some(generation) => finished(body, generation),
        None => Answer::new(StatusCode::ACCEPTED, Some(location), &body),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(problem) => return axum::response::IntoResponse::into_response(problem),
    };
    let mut response = kept.answer(app, user.id, answer).await;
    if let Some(unanswered) = unanswered {
        unanswered.was_answered();
    }
    applied(&mut response, &prefer);
    response
}

/// Tells the workers of a generation that is committed. Returns it as it ended, where the client waits for
/// that and the wait is long enough.
pub(super) async fn announce(
    app: &AppState,
    user: &Identity,
    generation: &mut Generation,
    parked: Option<Parked>,
    prefer: &Prefer,
) -> Option<Generation> {
    // Listening begins before anybody can publish.
    let wait = prefer.wait.filter(|wait| !wait.is_zero());
    let mut follow = None;
    if wait.is_some() {
        let (db, redis) = (app.db.clone(), app.redis.clone());
        follow = Some(Follow::new(db, redis, &app.hub, user.id, generation.id, None).await);
    }
    let queue = priority(user.tier);
    let (redis, clock) = (&app.redis, &app.gate.clock);
    let announced = queue::announce(redis, clock, user.id, queue, generation, parked);
    if let Err(failure) = announced.await {
        tracing::debug!(generation.id = %generation.id, %failure, "a generation was not announced");
    }
    ended(app, user, follow?, generation, wait?).await
}

/// Says that the wait was honoured.
pub(super) fn applied(response: &mut Response, prefer: &Prefer) {
    if let Some(wait) = prefer.wait
        && let Ok(value) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        response
            .headers_mut()
            .insert(HeaderName::from_static("preference-applied"), value);
    }
}

/// The generation once it has ended, unless the wait ends first.
pub(super) async fn ended(
    app: &AppState,
    user: &Identity,
    mut follow: Follow,
    generation: &Generation,
    wait: Duration,
) -> Option<Generation> {
    let deadline = Instant::now() + wait;
    let following = async {
        loop {
            match follow.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                // The database is away for a moment; the generation may still end in time.
                Err(error) => {
                    tracing::debug!(error = chain(&error), "failed to follow a generation");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    };
    tokio::select! {
        () = following => {}
        () = tokio::time::sleep_until(deadline) => return None,
        // The replica goes; the client reads the generation from another one.
        () = app.closing.cancelled() => return None,
    }
    match super::generations::load(app, user.id, generation.id).await {
        Ok(Some(found)) => Some(found.generation).filter(|found| found.status.is_terminal()),
        // Its conversation was deleted, which cancelled it.
        Ok(None) => Some(Generation {
            status: GenerationStatus::Cancelled,
            queue_position: None,
            estimated_response_time_ms: None,
            ..generation.clone()
        }),
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "failed to read a generation that ended"
            );
            None
        }
    }
}

fn finished(body: Accepted, mut generation: Generation) -> crate::error::Result<Answer> {
    let reply = generation.assistant_message.take();
    let usage = generation.usage.clone();
    match body.user_message {
        Some(user_message) => {
            let replied = Replied {
                user_message,
                assistant_message: reply,
                usage,
                generation,
            };
            Answer::new(StatusCode::OK, None, &replied)
        }
        None => Answer::new(
            StatusCode::OK,
            None,
            &Regenerated {
                new_message: reply,
                usage,
                generation,
            },
        ),
    }
}
