//! The judgement: what of the promises held, one verdict each.

mod facts;
mod memory;
mod rows;
#[cfg(test)]
mod tests;
mod told;
mod view;

pub(crate) use self::facts::Facts;
pub(crate) use self::memory::{Baseline, measure};
pub(crate) use self::rows::{judge, judge_answers, judge_streams};
pub(crate) use self::told::judge_told;
pub(crate) use self::view::{judge_logs, judge_reading};

/// How a generation ends.
const ENDS: [&str; 4] = ["completed", "incomplete", "failed", "cancelled"];

/// What became of one promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// "I1".
    pub(crate) name: &'static str,
    /// The promise in a few words.
    pub(crate) promise: &'static str,
    /// What was counted.
    pub(crate) counts: String,
    /// Every case in which it was broken.
    pub(crate) breaches: Vec<String>,
}
