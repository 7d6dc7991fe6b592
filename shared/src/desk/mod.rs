//! The help desk's judgement without a model: what a message is about, how its writer feels, what to
//! suggest, when a person should take over. Pure functions; a model may judge instead, with the same
//! answer ([`Judgement`]).

mod escalate;
pub mod gaps;
mod intent;
mod language;
mod mask;
mod said;
mod sentiment;
mod templates;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use escalate::{Escalation, Reason, Rules, Turn, escalate};
pub use intent::intent;
pub use language::{Language, language};
pub use mask::mask;
pub use said::{Judge, Patterns, said};
pub use sentiment::sentiment;
pub use templates::{answer as template, suggestions};

/// What a message to the help desk is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Getting in: accounts, passwords, codes.
    LoginIssue,
    /// Budget documents: DPA, RKA, ceilings.
    DpaIssue,
    /// Reports and figures in them.
    LaporanIssue,
    /// Something does not work.
    TechnicalIssue,
    /// How something is done, or anything else.
    GeneralInquiry,
    /// The writer is unhappy with the service.
    Complaint,
    /// Something should be there that is not.
    FeatureRequest,
}

impl Intent {
    /// Every intent.
    pub const ALL: [Self; 7] = [
        Self::LoginIssue,
        Self::DpaIssue,
        Self::LaporanIssue,
        Self::TechnicalIssue,
        Self::GeneralInquiry,
        Self::Complaint,
        Self::FeatureRequest,
    ];

    /// The stable name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoginIssue => "login_issue",
            Self::DpaIssue => "dpa_issue",
            Self::LaporanIssue => "laporan_issue",
            Self::TechnicalIssue => "technical_issue",
            Self::GeneralInquiry => "general_inquiry",
            Self::Complaint => "complaint",
            Self::FeatureRequest => "feature_request",
        }
    }
}

/// What is thought of a message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Judgement {
    /// What it is about.
    pub intent: Intent,
    /// How sure that is, 0 to 1.
    pub confidence: f64,
    /// How its writer feels: -1 is furious, 0 is neutral, 1 is delighted.
    pub sentiment: f64,
    /// What it is written in.
    pub language: Language,
    /// Whether it asks for a person.
    pub wants_person: bool,
}

/// Judges a message by words and patterns, in Indonesian and English.
#[must_use]
pub fn judge(message: &str) -> Judgement {
    let text = Text::of(message);
    let (intent, confidence) = intent(&text);
    Judgement {
        intent,
        confidence,
        sentiment: sentiment(&text),
        language: language(&text),
        wants_person: escalate::wants_person(&text),
    }
}

/// A message prepared for the patterns.
#[derive(Clone, Debug)]
pub struct Text {
    /// In lower case, words apart by single blanks, with one at each end.
    padded: String,
    words: Vec<String>,
    exclamations: usize,
    shouted: bool,
}

impl Text {
    /// Prepares a message.
    #[must_use]
    pub fn of(message: &str) -> Self {
        let words: Vec<String> = crate::knowledge::words(message)
            .map(|word| squeeze(&word))
            .collect();
        let letters = message
            .chars()
            .filter(|character| character.is_alphabetic());
        let (all, upper) = letters.fold((0, 0), |(all, upper), letter| {
            (all + 1, upper + usize::from(letter.is_uppercase()))
        });
        Self {
            padded: format!(" {} ", words.join(" ")),
            exclamations: message.matches('!').count(),
            shouted: all >= 12 && upper * 10 >= all * 8,
            words,
        }
    }

    /// Whether it has the word, or the words one after the other.
    fn has(&self, phrase: &str) -> bool {
        self.padded.contains(&format!(" {phrase} "))
    }

    /// Whether a word of it begins like this.
    fn has_stem(&self, stem: &str) -> bool {
        self.padded.contains(&format!(" {stem}"))
    }

    fn count(&self, phrases: &[&str]) -> usize {
        phrases.iter().filter(|phrase| self.matches(phrase)).count()
    }

    /// Phrases that end in `*` are beginnings of words.
    fn matches(&self, phrase: &str) -> bool {
        match phrase.strip_suffix('*') {
            Some(stem) => self.has_stem(stem),
            None => self.has(phrase),
        }
    }
}

/// Letters that are repeated for emphasis, once or twice: `lamaaaa` is `lamaa`, and words are compared so.
fn squeeze(word: &str) -> String {
    let mut squeezed = String::with_capacity(word.len());
    let (mut last, mut run) = (None, 0);
    for character in word.chars() {
        run = if last == Some(character) { run + 1 } else { 1 };
        last = Some(character);
        if run <= 2 || character.is_ascii_digit() {
            squeezed.push(character);
        }
    }
    // Three or more of a letter at the end are one: `bangettt` is `banget`.
    if word.len() > squeezed.len()
        && let Some(letter) = squeezed.pop()
        && !squeezed.ends_with(letter)
    {
        squeezed.push(letter);
    }
    squeezed
}

#[cfg(test)]
mod tests;
