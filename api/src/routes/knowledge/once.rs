//! Requests that make an ingestion: repeated with their key, they are answered and not repeated.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use shared::store::UserTx;
use shared::store::idempotency::{self, Known};
use shared::store::knowledge::ingestions as store;
use uuid::Uuid;

use super::super::view::Answer;
use super::ingestions::{IngestionBody, not_found};
use crate::error::{Code, Problem, Result};
use crate::extract::{IdempotencyKey, Idempotent};

/// What a request is known by.
pub(super) struct Once {
    key: Option<IdempotencyKey>,
    fingerprint: [u8; 32],
}

impl Once {
    pub(super) fn new(key: Option<IdempotencyKey>, fingerprint: [u8; 32]) -> Self {
        Self { key, fingerprint }
    }

    pub(super) fn of<T>(request: &Idempotent<T>) -> Self {
        Self::new(request.key.clone(), request.fingerprint)
    }

    /// The answer that was given before. Otherwise the key is held until the transaction ends.
    pub(super) async fn seen(&self, tx: &mut UserTx) -> Result<Option<Response>> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        match idempotency::look_up(tx, key.as_str(), &self.fingerprint).await? {
            Known::New => Ok(None),
            Known::Answered(replay) => {
                let mut response = Answer(replay).into_response();
                let name = HeaderName::from_static("idempotency-replayed");
                response
                    .headers_mut()
                    .insert(name, HeaderValue::from_static("true"));
                Ok(Some(response))
            }
            Known::Running => {
                let problem = Problem::of(Code::IdempotencyInProgress);
                Err(problem.with_header(header::RETRY_AFTER, 1))
            }
            Known::Conflict => Err(Problem::of(Code::IdempotencyConflict)),
        }
    }

    /// Commits an ingestion together with its answer.
    pub(super) async fn accept(self, mut tx: UserTx, id: Uuid) -> Result<Response> {
        let ingestion = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
        let location = format!("{}/{id}", super::UPLOADS);
        let body = IngestionBody { ingestion };
        let answer = Answer::new(StatusCode::ACCEPTED, Some(location), &body)?;
        if let Some(key) = &self.key {
            idempotency::keep(&mut tx, key.as_str(), &self.fingerprint, &answer.0, None).await?;
        }
        tx.commit().await?;
        Ok(answer.into_response())
    }
}
