//! What a prompt is given of an assessment, and in which language.

use serde_json::Value;
use shared::domain::SenderType;
use shared::domain::assessment::{AssessmentData, Language};

use super::{Turn, within_tokens};

/// The most tokens that results take of the background, so that what the client stored has room.
const MAX_RESULTS_TOKENS: u32 = 1_500;
/// The newest messages of the person that are asked for their language.
const LISTENED_TO: usize = 3;

/// What a conversation knows: the results of its assessment first, then what the client stored.
#[must_use]
pub fn background(context_data: &Value) -> Option<String> {
    let fields = context_data
        .as_object()
        .filter(|fields| !fields.is_empty())?;
    let data = fields
        .get("assessment")
        .and_then(|assessment| serde_json::from_value(assessment.get("data")?.clone()).ok());
    let Some(data): Option<AssessmentData> = data else {
        return Some(context_data.to_string());
    };
    let mut fields = fields.clone();
    fields.remove("assessment");
    let rest = (!fields.is_empty()).then(|| Value::Object(fields).to_string());
    let parts = results(&data).into_iter().chain(rest);
    let text = parts.collect::<Vec<_>>().join("\n\n");
    (!text.is_empty()).then_some(text)
}

/// The results: the summary, all scores, and as much of the description as there is room for.
pub(super) fn results(data: &AssessmentData) -> Option<String> {
    if data.is_empty() {
        return None;
    }
    let scores = AssessmentData {
        persona_profile: serde_json::Map::new(),
        ..data.clone()
    };
    let scores = serde_json::to_string(&scores).unwrap_or_default();
    let mut text = format!(
        "Assessment results: {}\nAll scores: {scores}",
        data.summary()
    );
    if !data.persona_profile.is_empty() {
        let persona = Value::Object(data.persona_profile.clone()).to_string();
        text.push_str("\nDescription: ");
        text.push_str(&persona);
    }
    Some(within_tokens(&text, MAX_RESULTS_TOKENS).to_owned())
}

/// The language to speak: that of what the person wrote last, that of the assessment, or this one.
#[must_use]
pub fn language(context_data: &Value, turns: &[Turn], default: Language) -> Language {
    let said = turns
        .iter()
        .rev()
        .filter(|turn| turn.sender == SenderType::User);
    let heard = said
        .take(LISTENED_TO)
        .find_map(|turn| Language::detect(&turn.content));
    let known = || Language::of_tag(context_data.pointer("/assessment/language")?.as_str()?);
    heard.or_else(known).unwrap_or(default)
}
