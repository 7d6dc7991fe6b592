//! The scores, and their summary in one line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::{named_enum, timestamp};

named_enum! {
    /// The six interests of RIASEC.
    pub enum Interest {
        /// Hands-on and technical.
        Realistic = "R",
        /// Research and analysis.
        Investigative = "I",
        /// Creation and expression.
        Artistic = "A",
        /// Helping and teaching.
        Social = "S",
        /// Leading and persuading.
        Enterprising = "E",
        /// Order and detail.
        Conventional = "C",
    }
}

named_enum! {
    /// The Big Five traits of personality.
    pub enum Trait {
        /// Curiosity for what is new.
        Openness = "O",
        /// Care and self-discipline.
        Conscientiousness = "C",
        /// Energy from others.
        Extraversion = "E",
        /// Warmth and cooperation.
        Agreeableness = "A",
        /// Sensitivity to stress.
        Neuroticism = "N",
    }
}

/// How many of a group the summary names.
const SUMMARISED: usize = 3;

/// What an assessment found. Parts that were not assessed are empty; scores go from 0 to 100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssessmentData {
    /// Interests by letter: R, I, A, S, E, C.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub riasec: BTreeMap<Interest, f64>,
    /// Traits by letter: O, C, E, A, N.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub ocean: BTreeMap<Trait, f64>,
    /// Character strengths by the name that the assessment gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub via_is: BTreeMap<String, f64>,
    /// A description in words, with whatever details the assessment adds.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub persona_profile: Map<String, Value>,
    /// When the person took it.
    #[serde(
        default,
        with = "timestamp::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub assessment_date: Option<OffsetDateTime>,
}

impl AssessmentData {
    /// Whether there is nothing to speak of.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.riasec.is_empty()
            && self.ocean.is_empty()
            && self.via_is.is_empty()
            && self.persona_profile.is_empty()
    }

    /// One line, top scores first: `RIASEC (I: 92, R: 85, A: 78), Big Five (O: 88, E: 82, C: 75),
    /// Career profile: available`. Empty where nothing was assessed.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let mut parts = Vec::new();
        if !self.riasec.is_empty() {
            let top = top(&self.riasec, Interest::ALL, |interest| interest.as_str());
            parts.push(format!("RIASEC ({top})"));
        }
        if !self.ocean.is_empty() {
            let top = top(&self.ocean, Trait::ALL, |one| one.as_str());
            parts.push(format!("Big Five ({top})"));
        }
        let profile = if self.persona_profile.is_empty() {
            "not available"
        } else {
            "available"
        };
        parts.push(format!("Career profile: {profile}"));
        parts.join(", ")
    }

    /// The text that describes the person, where the assessment has one.
    #[must_use]
    pub fn persona_summary(&self) -> Option<&str> {
        let text = self.persona_profile.get("summary")?.as_str()?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// Interests, the strongest first.
    #[must_use]
    pub fn interests(&self) -> Vec<(Interest, f64)> {
        ranked(&self.riasec, Interest::ALL)
    }

    /// Traits, the strongest first.
    #[must_use]
    pub fn traits(&self) -> Vec<(Trait, f64)> {
        ranked(&self.ocean, Trait::ALL)
    }

    /// Strengths, the strongest first; of equal ones in the order of their names.
    #[must_use]
    pub fn strengths(&self) -> Vec<(&str, f64)> {
        let mut all: Vec<(&str, f64)> = self
            .via_is
            .iter()
            .map(|(name, score)| (name.as_str(), *score))
            .collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(other.0)));
        all
    }
}

/// Scores, the highest first; of equal ones in the order of `all`.
#[must_use]
pub fn ranked<T: Copy + Ord>(scores: &BTreeMap<T, f64>, all: &[T]) -> Vec<(T, f64)> {
    let mut ranked: Vec<(T, f64)> = all
        .iter()
        .filter_map(|one| Some((*one, *scores.get(one)?)))
        .collect();
    ranked.sort_by(|one, other| other.1.total_cmp(&one.1));
    ranked
}

fn top<T: Copy + Ord>(
    scores: &BTreeMap<T, f64>,
    all: &[T],
    letter: fn(&T) -> &'static str,
) -> String {
    let top = ranked(scores, all).into_iter().take(SUMMARISED);
    let top: Vec<String> = top
        .map(|(one, score)| format!("{}: {}", letter(&one), score.round()))
        .collect();
    top.join(", ")
}
