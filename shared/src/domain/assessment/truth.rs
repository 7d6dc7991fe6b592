//! Whether what a model says of the results is true of them.

use super::AssessmentData;
use super::data::{Interest, Trait};
use super::words::{self, Word};

/// A score may be told rounded.
const ROUNDING: f64 = 1.0;
/// So much of a text after a name is looked at, in characters.
const LOOKED_AT: usize = 40;
/// What may stand between a name and its score.
const BETWEEN: &[&str] = &[
    "score", "scored", "skor", "skornya", "nilai", "of", "is", "at", "with", "a", "dengan",
    "sebesar", "adalah", "your", "anda",
];

/// Whether the text names a score that a scale does not have. What it says without a number is not
/// judged.
pub(super) fn has_false_score(text: &str, data: &AssessmentData) -> bool {
    let text = text.to_lowercase();
    let interests = Interest::ALL
        .iter()
        .map(|one| (words::interest(*one), data.riasec.get(one).copied()));
    let traits = Trait::ALL
        .iter()
        .map(|one| (words::one_trait(*one), data.ocean.get(one).copied()));
    let is_false = |(word, score): (Word, Option<f64>)| {
        [word.english, word.indonesian]
            .iter()
            .any(|name| contradicts(&text, name, score))
    };
    let of_strengths = || {
        let all = data.via_is.iter();
        let named = all.map(|(name, score)| (words::strength(name), *score));
        named
            .filter(|(name, _)| !name.is_empty())
            .any(|(name, score)| contradicts(&text, &name, Some(score)))
    };
    interests.chain(traits).any(is_false) || of_strengths()
}

/// Whether any mention of the name comes with another score.
fn contradicts(text: &str, name: &str, score: Option<f64>) -> bool {
    let name = name.to_lowercase();
    text.match_indices(&name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(char::is_alphanumeric) {
            return false;
        }
        let told = told_after(&text[at + name.len()..]);
        told.is_some_and(|told| score.is_none_or(|score| (told - score).abs() > ROUNDING))
    })
}

/// The score that a text begins with, after a name: `(92)`, `: 92`, ` score of 91.5`.
fn told_after(text: &str) -> Option<f64> {
    let text: String = text.chars().take(LOOKED_AT).collect();
    let mut rest = text.lines().next()?;
    let mut is_enclosed = false;
    loop {
        let next = rest.chars().next()?;
        if next.is_ascii_digit() {
            break;
        }
        if next.is_alphabetic() {
            let end = rest.find(|c: char| !c.is_alphabetic())?;
            let word = &rest[..end];
            // One letter is the scale's own.
            if word.chars().count() > 1 && !BETWEEN.contains(&word) {
                return None;
            }
            rest = &rest[end..];
            continue;
        }
        if !" *_:=(–—-".contains(next) {
            return None;
        }
        is_enclosed |= next == '(';
        rest = &rest[next.len_utf8()..];
    }
    let end = rest.find(|c: char| !c.is_ascii_digit() && !".,".contains(c));
    let number = &rest[..end.unwrap_or(rest.len())];
    // A number with a full stop or a bracket may be that of an entry in a list.
    let is_listed = number.ends_with('.') || rest[number.len()..].starts_with(')');
    if is_listed && !is_enclosed && number.len() <= 2 {
        return None;
    }
    let number = number.trim_end_matches(['.', ',']).replace(',', ".");
    number.parse().ok().filter(|told| *told <= 100.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_told_and_differs_is_false() {
        let data = AssessmentData::read(&json!({
            "riasec": { "I": 92.4, "R": 85 }, "ocean": { "O": 88 }, "viaIs": { "love_of_learning": 90 },
        }))
        .unwrap();
        for text in [
            "You are Investigative (92) and Realistik: 85.",
            "**Investigative** (score: 92.4/100), openness 88%, love of learning – 90",
            "A realistic plan with 3 steps; be investigative. Keterbukaan dengan skor 88!",
            "Think of openness:\n1. What is new?",
            "What of your openness: 1. Work? 2. Life?",
            "Artistic people like colours. Unrealistic (12).",
            "Investigativ",
            "openness (",
        ] {
            assert!(!has_false_score(text, &data), "{text}");
        }
        for text in [
            "You are Investigative (95).",
            "Your openness score of 70 is high.",
            "Skor Realistik: 58",
            "love of learning (9)",
            "Artistic (71) is what you are.",
            "Fine: Investigative (92). Not fine: INVESTIGATIF: 29",
        ] {
            assert!(has_false_score(text, &data), "{text}");
        }
    }
}
