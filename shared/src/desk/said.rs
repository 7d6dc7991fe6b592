//! Whoever judges messages, and what a model says of one.

use std::future::Future;

use serde::Deserialize;

use super::{Intent, Judgement, judge};

/// Judges messages to the help desk. None of it can fail: what is not known is judged by [`Patterns`].
pub trait Judge: Sync {
    /// What is thought of a message.
    fn judge(&self, message: &str) -> impl Future<Output = Judgement> + Send;
}

/// Words and patterns, without asking anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patterns;

impl Judge for Patterns {
    async fn judge(&self, message: &str) -> Judgement {
        judge(message)
    }
}

/// What a model is asked for.
#[derive(Deserialize)]
struct Said {
    intent: Intent,
    sentiment: f64,
    #[serde(default)]
    wants_person: bool,
}

/// How sure a judgement by a model counts as; it does not say itself in a way that means anything.
const CONFIDENCE: f64 = 0.9;

/// Reads what a model said of a message that was judged by patterns as well: a JSON object, wherever it stands
/// in the text. Whoever asks for a person in words that the patterns know is heard, whatever the model thinks.
/// None where it is no judgement.
#[must_use]
pub fn said(text: &str, offline: Judgement) -> Option<Judgement> {
    let object = text.get(text.find('{')?..=text.rfind('}')?)?;
    let said: Said = serde_json::from_str(object).ok()?;
    said.sentiment.is_finite().then(|| Judgement {
        intent: said.intent,
        confidence: CONFIDENCE,
        sentiment: said.sentiment.clamp(-1.0, 1.0),
        wants_person: said.wants_person || offline.wants_person,
        ..offline
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_judgement_is_read_and_anything_else_is_not() {
        let offline = judge("tolong hubungkan dengan petugas");
        assert!(offline.wants_person);
        let read = |text: &str| said(text, offline);
        let plain =
            read(r#"{"intent":"complaint","sentiment":-0.8,"wants_person":false}"#).unwrap();
        assert_eq!((plain.intent, plain.sentiment), (Intent::Complaint, -0.8));
        assert!(
            plain.wants_person,
            "they asked for a person in so many words"
        );
        assert_eq!(plain.language, offline.language);
        let fenced = read("```json\n{\"intent\":\"dpa_issue\",\"sentiment\":7}\n```").unwrap();
        assert_eq!((fenced.intent, fenced.sentiment), (Intent::DpaIssue, 1.0));
        for text in [
            "",
            "complaint",
            "}{",
            r#"{"intent":"weather","sentiment":0}"#,
            r#"{"intent":"complaint"}"#,
            r#"{"intent":"complaint","sentiment":"sad"}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
