//! What every request that creates something goes through: a repeated one gets its first answer
//! again, a new one counts against its limit, and the answer is kept in the transaction that did
//! the work.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue};
use shared::domain::Priority;
use shared::limits::Limit;
use shared::store::UserTx;
use shared::store::idempotency::{self, Known};
use uuid::Uuid;

use super::view::Answer;
use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::{IdempotencyKey, Idempotent};
use crate::limits::{self, Budget};

/// How much longer than its wait a request counts as running: the time to tell its client.
const MARGIN: Duration = Duration::from_secs(5);

/// The pauses after which a key that is in use is looked up again. The transaction of a refused
/// request is rolled back a moment after its answer, and whoever got that may ask again at once.
const IN_USE: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(200),
];

/// How a creating request goes on.
pub(super) enum Begun {
    /// It was answered before.
    Answered(Response),
    /// It is new.
    New(Creation),
}

/// A new request and the transaction to do its work in, once it has begun.
pub(super) struct Creation {
    tx: Option<UserTx>,
    user_id: Uuid,
    kept: Kept,
}

/// What is left to do when the work is committed.
pub(super) struct Kept {
    key: Option<(IdempotencyKey, [u8; 32])>,
    budget: Budget,
    answer: Option<Answer>,
}

/// Begins. A key is looked up before the limit is counted, so that a repeated request is never
/// refused by it. What would wait in a full queue is refused before it counts.
pub(super) async fn begin<T>(
    app: &AppState,
    user_id: Uuid,
    request: &Idempotent<T>,
    limit: Limit,
    queue: Option<Priority>,
) -> Result<Begun> {
    let admit = || async move {
        queue.map_or(Ok(()), |queue| app.backlog.admit(queue))?;
        limits::count(app, limit, user_id).await
    };
    let Some(key) = &request.key else {
        let budget = admit().await?;
        return Ok(Begun::New(Creation {
            tx: None,
            user_id,
            kept: Kept {
                key: None,
                budget,
                answer: None,
            },
        }));
    };
    let (tx, known) = look_up(app, user_id, key, &request.fingerprint).await?;
    match known {
        Known::New => {
            let budget = admit().await?;
            let key = Some((key.clone(), request.fingerprint));
            Ok(Begun::New(Creation {
                tx: Some(tx),
                user_id,
                kept: Kept {
                    key,
                    budget,
                    answer: None,
                },
            }))
        }
        Known::Answered(replay) => {
            let mut response = Answer(replay).into_response();
            let name = HeaderName::from_static("idempotency-replayed");
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("true"));
            limits::left(app, limit, user_id).await.write(&mut response);
            Ok(Begun::Answered(response))
        }
        Known::Running => {
            let problem = Problem::of(Code::IdempotencyInProgress);
            let problem = problem.with_header(http::header::RETRY_AFTER, 1);
            Err(limits::left(app, limit, user_id).await.on(problem))
        }
        Known::Conflict => {
            let problem = Problem::of(Code::IdempotencyConflict);
            Err(limits::left(app, limit, user_id).await.on(problem))
        }
    }
}

/// What is known of a key, and the transaction that holds a new one. No connection is kept from
/// others while the key is in use.
async fn look_up(
    app: &AppState,
    user_id: Uuid,
    key: &IdempotencyKey,
    fingerprint: &[u8; 32],
) -> Result<(UserTx, Known)> {
    let mut pauses = IN_USE.iter();
    loop {
        let mut tx = app.db.user(user_id).await?;
        let known = idempotency::look_up(&mut tx, key.as_str(), fingerprint).await?;
        let again = pauses.next().filter(|_| known == Known::Running);
        let Some(pause) = again else {
            return Ok((tx, known));
        };
        drop(tx);
        tokio::time::sleep(*pause).await;
    }
}

impl Creation {
    /// The transaction, which begins here unless a key was looked up in it.
    pub(super) async fn tx(&mut self, app: &AppState) -> Result<&mut UserTx> {
        let tx = match self.tx.take() {
            Some(tx) => tx,
            None => app.db.user(self.user_id).await?,
        };
        Ok(self.tx.insert(tx))
    }

    /// Whose request it is.
    pub(super) fn user_id(&self) -> Uuid {
        self.user_id
    }

    /// What is left of the limit, for a refusal from here on.
    pub(super) fn budget(&self) -> Budget {
        self.kept.budget
    }

    /// Whether nothing needs to be done in the same transaction as the work.
    pub(super) fn is_alone(&self) -> bool {
        self.tx.is_none()
    }

    /// Commits the work together with its answer. `wait` is how long the client may be held before
    /// it gets one.
    pub(super) async fn commit(mut self, answer: Answer, wait: Option<Duration>) -> Result<Kept> {
        if let (Some((key, fingerprint)), Some(tx)) = (&self.kept.key, &mut self.tx) {
            let running_ms =
                wait.map(|wait| i64::try_from((wait + MARGIN).as_millis()).unwrap_or(i64::MAX));
            idempotency::keep(tx, key.as_str(), fingerprint, &answer.0, running_ms).await?;
        }
        if let Some(tx) = self.tx {
            tx.commit().await?;
        }
        Ok(Kept {
            answer: Some(answer),
            ..self.kept
        })
    }
}

/// A client that may leave before it gets an answer.
pub(super) struct Unanswered(Option<(AppState, Uuid, IdempotencyKey, Answer)>);

impl Unanswered {
    /// The client has its answer.
    pub(super) fn was_answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    /// The work is done and its first answer kept; whoever asks again need not wait until nobody can be waiting
    /// for a better one.
    fn drop(&mut self) {
        let Some((app, user_id, key, answer)) = self.0.take() else {
            return;
        };
        let lifecycle = app.lifecycle.clone();
        lifecycle.spawn(async move {
            if let Err(error) = replace(&app, user_id, &key, &answer).await {
                tracing::debug!(
                    error = crate::error::chain(&error),
                    "a key is held until the wait would have ended"
                );
            }
        });
    }
}

impl Kept {
    /// Looks after the key while the client waits.
    pub(super) fn unanswered(&self, app: &AppState, user_id: Uuid) -> Unanswered {
        let key = self.key.as_ref().map(|(key, _)| key.clone());
        Unanswered(
            key.zip(self.answer.clone())
                .map(|(key, answer)| (app.clone(), user_id, key, answer)),
        )
    }

    /// Answers. Where the client gets something else than what was kept, that is kept instead.
    pub(super) async fn answer(self, app: &AppState, user_id: Uuid, answer: Answer) -> Response {
        if let Some((key, _)) = &self.key
            && self.answer.as_ref() != Some(&answer)
            && let Err(error) = replace(app, user_id, key, &answer).await
        {
            // The work is done and the first answer tells so; a repetition gets that one.
            tracing::warn!(
                error = crate::error::chain(&error),
                "failed to keep an answer for repetitions"
            );
        }
        let mut response = answer.into_response();
        self.budget.write(&mut response);
        response
    }
}

async fn replace(
    app: &AppState,
    user_id: Uuid,
    key: &IdempotencyKey,
    answer: &Answer,
) -> Result<()> {
    let mut tx = app.db.user_async(user_id).await?;
    idempotency::replace(&mut tx, key.as_str(), &answer.0).await?;
    Ok(tx.commit().await?)
}
