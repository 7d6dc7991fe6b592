//! The end of welcomes, as the worker sees it over all people.

use serde_json::Value;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::stages::{Cause, tell};
use super::{Assessment, Reached, Row};
use crate::clock::Clock;
use crate::domain::assessment::{AssessmentData, Language, LanguageSource, Stage, StageNotice};
use crate::store::generations::{self, Replacement};
use crate::store::{StoreResult, SweepTx};

/// Locks the assessment that waits for this welcome, before the transaction locks anything else: whoever works on an
/// assessment locks it first and its conversation then.
///
/// # Errors
/// When the database fails.
pub async fn lock_of_welcome(tx: &mut SweepTx, welcome_id: Uuid) -> StoreResult<()> {
    sqlx::query!(
        "SELECT id FROM chat.assessments WHERE welcome_id = $1 AND stage = 'analysis_complete' FOR UPDATE",
        welcome_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(())
}

/// The welcome is stored in this transaction: its assessment is ready. None where no assessment
/// waits for it.
///
/// # Errors
/// When the database fails.
pub async fn ready(
    tx: &mut SweepTx,
    clock: &Clock,
    welcome_id: Uuid,
    request_id: Option<&str>,
    traceparent: Option<&str>,
) -> StoreResult<Option<Reached>> {
    let row = sqlx::query!(
        r#"UPDATE chat.assessments SET stage = $2, stage_rank = $3, updated_at = now()
           WHERE welcome_id = $1 AND stage = 'analysis_complete'
           RETURNING id, user_id, conversation_id, language AS "language: Language", data AS "data: Value",
                     now() AS "at!: OffsetDateTime""#,
        welcome_id,
        Stage::Ready.as_str(),
        Stage::Ready.rank(),
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let described = || {
        let data = row.data.as_ref()?;
        Language::detect(data.pointer("/personaProfile/summary")?.as_str()?)
    };
    let language = row.language.or_else(described).unwrap_or_default();
    let reached = Reached {
        user_id: row.user_id,
        conversation_id: row.conversation_id,
        notice: StageNotice::new(Stage::Ready, row.id, language, row.at),
    };
    let cause = Cause {
        request_id,
        traceparent,
    };
    tell(tx.conn(), clock, &reached, language, cause).await?;
    Ok(Some(reached))
}

/// An assessment whose welcome ended without a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// Whose it is.
    pub user_id: Uuid,
    /// The assessment.
    pub assessment_id: Uuid,
}

/// Assessments whose welcome failed where no job could do anything about it (its deadline passed in
/// the queue, or its workers died), or was cancelled; at most `limit`.
///
/// # Errors
/// When the database fails.
pub async fn stranded(tx: &mut SweepTx, limit: i64) -> StoreResult<Vec<Stranded>> {
    let rows = sqlx::query_as!(
        Stranded,
        "SELECT a.user_id, a.id AS assessment_id
         FROM chat.assessments a JOIN chat.generations g ON g.id = a.welcome_id
         WHERE a.stage = 'analysis_complete' AND g.status IN ('failed', 'cancelled')
         ORDER BY a.welcome_id LIMIT $1",
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// A stranded assessment that this transaction has locked.
#[derive(Clone, Debug)]
pub struct TakenOver {
    /// As it is now.
    pub assessment: Assessment,
    /// The generation that its welcome is to be stored by, or why there is none; with it ends the wait.
    pub replacement: Replacement,
    /// The generation whose end makes it ready.
    pub welcome_id: Uuid,
}

/// Locks a stranded assessment and begins another generation for its welcome, where one is due. None
/// when somebody else has ended the wait, or is about to.
///
/// # Errors
/// When the database fails.
pub async fn take_over(
    tx: &mut SweepTx,
    clock: &Clock,
    stranded: Stranded,
    worker_id: &str,
) -> StoreResult<Option<TakenOver>> {
    let locking = assessment_query!(
        "WHERE a.id = $1 AND a.user_id = $2 AND a.stage = 'analysis_complete' FOR UPDATE",
        stranded.assessment_id,
        stranded.user_id,
    );
    let locked = locking.fetch_optional(tx.conn()).await?;
    let Some(mut assessment) = locked.map(Assessment::from) else {
        return Ok(None);
    };
    let Some(failed) = assessment.welcome_id else {
        return Ok(None);
    };
    let replacement = generations::replace_welcome(tx, clock, failed, worker_id).await?;
    let welcome_id = match replacement {
        Replacement::NotYet => return Ok(None),
        Replacement::Nothing => failed,
        Replacement::Claimed { id, .. } => id,
    };
    sqlx::query!(
        "UPDATE chat.assessments SET welcome_id = $2 WHERE id = $1",
        assessment.id,
        welcome_id,
    )
    .execute(tx.conn())
    .await?;
    assessment.welcome_id = Some(welcome_id);
    Ok(Some(TakenOver {
        assessment,
        replacement,
        welcome_id,
    }))
}
