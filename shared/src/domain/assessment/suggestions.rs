//! Questions that a person may want to ask next.

use super::topics::{self, Topic};
use super::{AssessmentData, Language};

/// At least so many are suggested.
pub const MIN_SUGGESTIONS: usize = 6;
/// At most so many.
pub const MAX_SUGGESTIONS: usize = 8;

/// Six to eight questions, none twice, the same for the same data: about the two strongest interests,
/// the strongest and weakest trait and strength, careers to explore, and what to develop. What the
/// person has `said` covers topics, and others take their place; once nothing else is left, those that
/// were covered first come back.
#[must_use]
pub fn suggestions(data: &AssessmentData, language: Language, said: &[&str]) -> Vec<String> {
    let said: Vec<String> = said.iter().map(|text| text.to_lowercase()).collect();
    let mut all = topics::of_results(data, language);
    all.extend(topics::of_career(language));
    all.extend(topics::others(language));
    let (covered, open): (Vec<Topic>, Vec<Topic>) =
        all.into_iter().partition(|topic| topic.is_covered(&said));
    let mut chosen: Vec<String> = Vec::with_capacity(MAX_SUGGESTIONS);
    let mut choose = |topics: Vec<Topic>, most: usize| {
        for topic in topics {
            if chosen.len() < most && !chosen.contains(&topic.question) {
                chosen.push(topic.question);
            }
        }
    };
    choose(open, MAX_SUGGESTIONS);
    choose(covered, MIN_SUGGESTIONS);
    chosen
}
