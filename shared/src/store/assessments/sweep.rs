//! The end of welcomes, as the worker sees it over all people.

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::context::insert_message;
use super::stages::{Cause, tell};
use super::{Assessment, Reached, advance};
use crate::clock::Clock;
use crate::domain::assessment::{Language, Stage, StageNotice, composed_welcome};
use crate::domain::{GenerationStatus, Message, SenderType};
use crate::store::{StoreResult, SweepTx, UserTx, generations};

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

/// Gives a stranded assessment the composed welcome, unless the person has cancelled theirs or is
/// talking already, and makes it ready.
///
/// # Errors
/// When the database fails.
pub async fn compose(
    tx: &mut UserTx,
    clock: &Clock,
    assessment: &Assessment,
) -> StoreResult<(Option<Message>, Option<Reached>)> {
    let Some(welcome_id) = assessment
        .welcome_id
        .filter(|_| assessment.stage == Some(Stage::Complete))
    else {
        return Ok((None, None));
    };
    let row = generations::find(tx, welcome_id).await?;
    let status = row.map(|row| row.generation.status);
    if status.is_some_and(|status| !status.is_terminal()) {
        return Ok((None, None));
    }
    let conversation = super::conversation_of(tx, assessment.id).await?;
    let is_silent = conversation.is_some_and(|conversation| conversation.message_count == 0);
    let mut message = None;
    if is_silent && status == Some(GenerationStatus::Failed) {
        let text = composed_welcome(&assessment.results(), assessment.spoken(), None);
        let metadata = json!({
            "type": "assessment_welcome",
            "assessment_id": assessment.id,
            "fallback": true,
        });
        let inserting = insert_message(
            tx,
            clock,
            assessment.conversation_id,
            SenderType::Assistant,
            &text,
            metadata,
        );
        message = inserting.await?;
    }
    let reached = advance(tx, clock, assessment, Stage::Ready, None, None).await?;
    Ok((message, reached))
}
