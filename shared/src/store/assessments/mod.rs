//! Assessments: what is known of them, how far they are, and the one conversation of each.
//!
//! **Rule:** whoever changes an assessment or its conversation has locked the assessment's row before
//! ([`register`]), so that an event, its repetition and a request that come together do the work once.

macro_rules! assessment_query {
    ($tail:literal $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"SELECT a.id, a.user_id, a.conversation_id, a.stage AS "stage: Stage",
                      a.data AS "data: Json<AssessmentData>", a.language AS "language: Language",
                      a.language_from AS "language_from: LanguageSource", a.welcome_id, a.assessed_at, a.created_at
               FROM chat.assessments a "# + $tail $(, $arg)*
        )
    };
}

mod context;
mod language;
mod prepare;
mod stages;
mod sweep;

pub use context::{add_context, covered_by, messages_of};
pub use language::listen;
pub use prepare::{Prepared, Preparing, Welcome, conversation_of, learn, prepare};
pub use stages::{Reached, advance};
pub use sweep::{Stranded, TakenOver, lock_of_welcome, ready, stranded, take_over};

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreResult, SweepTx, UserTx};
use crate::clock::Clock;
use crate::domain::assessment::{AssessmentData, Language, LanguageSource, Stage};
use crate::id;

/// What is known of an assessment.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// The platform's id.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The conversation that is prepared from it, or will be.
    pub conversation_id: Uuid,
    /// How far it is.
    pub stage: Option<Stage>,
    /// The results, as far as they are known.
    pub data: Option<AssessmentData>,
    /// The person's language, as far as it is known.
    pub language: Option<Language>,
    /// Who says so; a version that only heard of profiles has not noted it.
    pub language_from: Option<LanguageSource>,
    /// The generation of the welcome.
    pub welcome_id: Option<Uuid>,
    /// When the person took it.
    pub assessed_at: Option<OffsetDateTime>,
    /// When it was first heard of.
    pub created_at: OffsetDateTime,
}

impl Assessment {
    /// Whether there are results to talk about.
    #[must_use]
    pub fn has_results(&self) -> bool {
        self.data.is_some() || matches!(self.stage, Some(Stage::Complete | Stage::Ready))
    }

    /// Whether its conversation has its welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.stage == Some(Stage::Ready)
    }

    /// The person's language: the known one, that of their description, or the platform's.
    #[must_use]
    pub fn spoken(&self) -> Language {
        let described = || Language::detect(self.data.as_ref()?.persona_summary()?);
        self.language.or_else(described).unwrap_or_default()
    }

    /// Who knows the language.
    #[must_use]
    pub fn language_source(&self) -> Option<LanguageSource> {
        self.language?;
        Some(self.language_from.unwrap_or(LanguageSource::Profile))
    }

    /// The results; empty where none are known.
    #[must_use]
    pub fn results(&self) -> AssessmentData {
        self.data.clone().unwrap_or_default()
    }
}

struct Row {
    id: Uuid,
    user_id: Uuid,
    conversation_id: Uuid,
    stage: Option<Stage>,
    data: Option<Json<AssessmentData>>,
    language: Option<Language>,
    language_from: Option<LanguageSource>,
    welcome_id: Option<Uuid>,
    assessed_at: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
}

impl From<Row> for Assessment {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            conversation_id: row.conversation_id,
            stage: row.stage,
            data: row.data.map(|data| data.0),
            language: row.language,
            language_from: row.language_from,
            welcome_id: row.welcome_id,
            assessed_at: row.assessed_at,
            created_at: row.created_at,
        }
    }
}

/// One assessment of the person.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut UserTx, id: Uuid) -> StoreResult<Option<Assessment>> {
    let user_id = tx.user_id();
    let query = assessment_query!("WHERE a.id = $1 AND a.user_id = $2", id, user_id);
    Ok(query.fetch_optional(tx.conn()).await?.map(Assessment::from))
}

/// The assessment that a welcome is made for.
///
/// # Errors
/// When the database fails.
pub async fn find_by_welcome(tx: &mut UserTx, welcome_id: Uuid) -> StoreResult<Option<Assessment>> {
    let user_id = tx.user_id();
    let query = assessment_query!(
        "JOIN chat.generations g ON g.id = $1 JOIN chat.conversations c ON c.id = g.conversation_id
         WHERE a.id = c.assessment_id AND a.user_id = $2",
        welcome_id,
        user_id
    );
    Ok(query.fetch_optional(tx.conn()).await?.map(Assessment::from))
}

/// The person's newest assessment that has results; where none has, the newest of all.
///
/// # Errors
/// When the database fails.
pub async fn newest(tx: &mut UserTx) -> StoreResult<Option<Assessment>> {
    let user_id = tx.user_id();
    let query = assessment_query!(
        "WHERE a.user_id = $1
         ORDER BY (a.data IS NOT NULL OR a.stage_rank >= 4) DESC, COALESCE(a.assessed_at, a.created_at) DESC, a.id DESC
         LIMIT 1",
        user_id
    );
    Ok(query.fetch_optional(tx.conn()).await?.map(Assessment::from))
}

/// An assessment that was written down and is locked until the transaction ends.
#[derive(Clone, Debug)]
pub struct Registered {
    /// As it is now.
    pub assessment: Assessment,
    /// Whether results came that were not known, or other ones.
    pub is_news: bool,
}

/// Notes that somebody who knows has said that this assessment, which is locked, is this person's.
///
/// # Errors
/// When the database fails.
pub async fn vouch(tx: &mut UserTx, assessment_id: Uuid) -> StoreResult<()> {
    let user_id = tx.user_id();
    sqlx::query!(
        "UPDATE chat.assessments SET vouched = true WHERE id = $1 AND user_id = $2 AND NOT vouched",
        assessment_id,
        user_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes an assessment from whoever asked for it without anybody's word that it is theirs, because it is `owner`'s.
/// Their conversation stays theirs and is of no assessment any more. Returns whether it was taken.
///
/// # Errors
/// When the database fails.
pub async fn disown(tx: &mut SweepTx, assessment_id: Uuid, owner: Uuid) -> StoreResult<bool> {
    let taken = sqlx::query_scalar!(
        r#"WITH gone AS (
               DELETE FROM chat.assessments a WHERE a.id = $1 AND a.user_id <> $2 AND NOT a.vouched
               RETURNING a.id, a.user_id
           ), freed AS (
               UPDATE chat.conversations c SET assessment_id = NULL, updated_at = now()
               FROM gone g WHERE c.assessment_id = g.id AND c.user_id = g.user_id
           )
           SELECT count(*) AS "taken!" FROM gone"#,
        assessment_id,
        owner,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(taken > 0)
}

/// Notes what is known of an assessment and locks it. Results that are given replace what was known;
/// a language that is given, which is that of the profile, wins as well. None when the assessment is somebody else's.
///
/// # Errors
/// When the database fails.
pub async fn register(
    tx: &mut UserTx,
    clock: &Clock,
    assessment_id: Uuid,
    data: Option<&AssessmentData>,
    language: Option<Language>,
) -> StoreResult<Option<Registered>> {
    let user_id = tx.user_id();
    // A row of somebody else's is not seen, but it is in the way.
    sqlx::query!(
        "INSERT INTO chat.assessments (id, user_id, conversation_id) VALUES ($1, $2, $3)
         ON CONFLICT (id) DO NOTHING",
        assessment_id,
        user_id,
        id::new(clock.now()),
    )
    .execute(tx.conn())
    .await?;
    let query = assessment_query!(
        "WHERE a.id = $1 AND a.user_id = $2 FOR UPDATE",
        assessment_id,
        user_id
    );
    let Some(row) = query.fetch_optional(tx.conn()).await? else {
        return Ok(None);
    };
    let mut assessment = Assessment::from(row);
    let news = data.filter(|data| !data.is_empty() && assessment.data.as_ref() != Some(*data));
    let from_profile = Some(LanguageSource::Profile);
    let language = language.filter(|language| {
        (assessment.language, assessment.language_source()) != (Some(*language), from_profile)
    });
    if news.is_some() || language.is_some() {
        let assessed_at = news.and_then(|data| data.assessment_date);
        sqlx::query!(
            "UPDATE chat.assessments
             SET data = COALESCE($2, data), language = COALESCE($3, language),
                 language_from = CASE WHEN $3::text IS NULL THEN language_from ELSE 'profile' END,
                 assessed_at = COALESCE(($2::jsonb ->> 'assessmentDate')::timestamptz, assessed_at), updated_at = now()
             WHERE id = $1",
            assessment_id,
            news.map(Json) as _,
            language.map(Language::as_str),
        )
        .execute(tx.conn())
        .await?;
        if language.is_some() {
            (assessment.language, assessment.language_from) = (language, from_profile);
        }
        assessment.assessed_at = assessed_at.or(assessment.assessed_at);
    }
    if let Some(data) = news {
        assessment.data = Some(data.clone());
    }
    Ok(Some(Registered {
        assessment,
        is_news: news.is_some(),
    }))
}
