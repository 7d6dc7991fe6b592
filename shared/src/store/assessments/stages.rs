//! Stages: written once, told to whoever is to be told.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Assessment;
use crate::clock::Clock;
use crate::domain::assessment::{Language, Stage, StageNotice};
use crate::domain::{Event, NotificationType};
use crate::id;
use crate::store::conn::Conn;
use crate::store::{StoreResult, UserTx};

/// A stage that was reached, once the transaction commits; then it is to be pushed.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Whose assessment it is.
    pub user_id: Uuid,
    /// Its conversation, or the id that it will have.
    pub conversation_id: Uuid,
    /// What to tell.
    pub notice: StageNotice,
}

impl Reached {
    /// The event that tells it.
    #[must_use]
    pub fn event(&self) -> Event {
        Event::assessment_stage(&self.notice, self.conversation_id)
    }
}

/// The request or event that made a stage happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cause<'a> {
    pub(super) request_id: Option<&'a str>,
    pub(super) traceparent: Option<&'a str>,
}

/// Moves the assessment to this stage, unless it has been there or further. The caller has
/// registered it in the same transaction.
///
/// # Errors
/// When the database fails.
pub async fn advance(
    tx: &mut UserTx,
    clock: &Clock,
    assessment: &Assessment,
    stage: Stage,
    request_id: Option<&str>,
    traceparent: Option<&str>,
) -> StoreResult<Option<Reached>> {
    let user_id = tx.user_id();
    let at = sqlx::query_scalar!(
        r#"UPDATE chat.assessments SET stage = $3, stage_rank = $4, updated_at = now()
           WHERE id = $1 AND user_id = $2 AND stage_rank < $4
           RETURNING now() AS "at!: OffsetDateTime""#,
        assessment.id,
        user_id,
        stage.as_str(),
        stage.rank(),
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(at) = at else { return Ok(None) };
    let reached = Reached {
        user_id,
        conversation_id: assessment.conversation_id,
        notice: StageNotice::new(stage, assessment.id, assessment.spoken(), at),
    };
    let cause = Cause {
        request_id,
        traceparent,
    };
    tell(tx.conn(), clock, &reached, assessment.spoken(), cause).await?;
    Ok(Some(reached))
}

/// Puts the stage into the outbox, where anybody is to be told.
pub(super) async fn tell(
    conn: Conn<'_>,
    clock: &Clock,
    reached: &Reached,
    language: Language,
    cause: Cause<'_>,
) -> StoreResult<()> {
    sqlx::query!(
        "INSERT INTO chat.notifications (id, destination, user_id, conversation_id, type, occurred_at, request_id,
                                         traceparent, assessment_id, stage, language)
         SELECT $1, d.name, $2, $3, $4, now(), $5, $6, $7, $8, $9
         FROM chat.notification_destinations d WHERE d.wanted",
        id::new(clock.now()),
        reached.user_id,
        reached.conversation_id,
        NotificationType::AssessmentStage.as_str(),
        cause.request_id,
        cause.traceparent,
        reached.notice.assessment_id,
        reached.notice.stage.as_str(),
        language.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
