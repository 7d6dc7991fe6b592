//! Whether what was found is an answer. Fused scores are places in lists and tell nothing of that, so the
//! gate looks at what the best entry shares with the question.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Share of the question's words, by weight, that the best entry must have where it has at least two of
/// them. All thresholds were set on the development half of the evaluation set (docs/evaluation.md).
pub const COVERED: f64 = 0.4;
/// The same where it has but one: then it must be nearly all that was asked.
pub const ALL_BUT: f64 = 0.8;
/// The same where it has three or more, or the vectors speak for it as well.
pub const SOME: f64 = 0.3;
/// The part of the profile's threshold that counts as near beside shared words.
pub const NEAR: f64 = 0.7;

/// What speaks for the best entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Signals {
    /// Share of the question's words, by weight, that it has: 0 to 1.
    pub coverage: f64,
    /// How many of them.
    pub matched: u32,
    /// Its cosine similarity; null where it was searched by words only.
    pub similarity: Option<f64>,
    /// How much nearer it is than the entry after it by vectors; null likewise.
    pub margin: Option<f64>,
    /// Whether both lists have it first.
    pub agreed: bool,
}

/// Whether the best entry is an answer, given the profile's threshold.
#[must_use]
pub fn answers(signals: &Signals, threshold: f64) -> bool {
    let similarity = signals.similarity.unwrap_or(0.0);
    let (coverage, matched) = (signals.coverage, signals.matched);
    let by_words = (coverage >= COVERED && matched >= 2)
        || coverage >= ALL_BUT
        || (coverage >= SOME && matched >= 3);
    let stands_out = signals.agreed && signals.margin.is_some_and(|margin| margin >= 0.1);
    let by_both = coverage >= SOME && (similarity >= NEAR * threshold || stands_out);
    similarity >= threshold || by_words || by_both
}

/// How relevant an entry is, from 0 to 1, for people: the better of the two measures that mean something
/// by themselves.
#[must_use]
pub fn relevance(coverage: f64, similarity: Option<f64>) -> f64 {
    let relevance = coverage.max(similarity.unwrap_or(0.0)).clamp(0.0, 1.0);
    (relevance * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_signal_has_to_carry_it_alone_but_each_may() {
        let signals = |coverage, matched, similarity: Option<f64>| Signals {
            coverage,
            matched,
            similarity,
            margin: similarity.map(|_| 0.0),
            agreed: false,
        };
        assert!(answers(&signals(0.9, 1, None), 0.7));
        assert!(!answers(&signals(0.5, 1, None), 0.7));
        assert!(answers(&signals(0.5, 2, None), 0.7));
        assert!(!answers(&signals(0.35, 2, None), 0.7));
        assert!(answers(&signals(0.35, 3, None), 0.7));
        assert!(answers(&signals(0.35, 1, Some(0.55)), 0.7));
        assert!(!answers(&signals(0.1, 1, Some(0.55)), 0.7));
        assert!(answers(&signals(0.0, 0, Some(0.75)), 0.7));
        assert_eq!(relevance(0.25, Some(0.12345)), 0.25);
    }
}
