//! Which language a person speaks, from whoever knows it best.

use super::Registered;
use crate::domain::assessment::{Language, LanguageSource, Spoken};
use crate::store::{StoreResult, UserTx};

/// Finds out the language of somebody whose profile has not said it: that of what they wrote of late, or
/// their browser's, or their description's, or the platform's. What was found before stays where it was
/// found in a better place.
///
/// # Errors
/// When the database fails.
pub async fn listen(
    tx: &mut UserTx,
    registered: &mut Registered,
    spoken: Spoken,
) -> StoreResult<()> {
    let assessment = &mut registered.assessment;
    let known = assessment.language_source();
    if known == Some(LanguageSource::Profile) {
        return Ok(());
    }
    let written = Language::detect(&newest_words(tx).await?);
    let described = || Language::detect(assessment.data.as_ref()?.persona_summary()?);
    let (language, source) = written
        .map(|language| (language, LanguageSource::Words))
        .or(spoken
            .client
            .map(|language| (language, LanguageSource::Client)))
        .or_else(|| Some((described()?, LanguageSource::Description)))
        .unwrap_or((spoken.default, LanguageSource::Default));
    let is_known = (assessment.language, known) == (Some(language), Some(source));
    if is_known || known > Some(source) {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE chat.assessments SET language = $2, language_from = $3, updated_at = now() WHERE id = $1",
        assessment.id,
        language.as_str(),
        source.as_str(),
    )
    .execute(tx.conn())
    .await?;
    assessment.language = Some(language);
    assessment.language_from = Some(source);
    Ok(())
}

/// What the person wrote last, in any conversation.
async fn newest_words(tx: &mut UserTx) -> StoreResult<String> {
    let user_id = tx.user_id();
    let words = sqlx::query_scalar!(
        r#"SELECT string_agg(left(m.content, 1000), ' ') FROM (
               SELECT c.id FROM chat.conversations c
               WHERE c.user_id = $1 AND c.status = 'active' AND c.message_count > 0
               ORDER BY c.last_activity_at DESC LIMIT 3
           ) c CROSS JOIN LATERAL (
               SELECT m.content FROM chat.messages m
               WHERE m.conversation_id = c.id AND m.sender_type = 'user' ORDER BY m.id DESC LIMIT 3
           ) m"#,
        user_id,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(words.unwrap_or_default())
}
