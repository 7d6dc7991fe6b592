//! Figures of an evaluation, by stratum, with bootstrap intervals.

use std::fmt::Write as _;

/// A question and the entry that answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) stratum: &'static str,
    /// Its place in the file; none where no entry answers.
    pub(crate) entry: Option<usize>,
    /// Whether it may be looked at to set weights and thresholds.
    pub(crate) is_dev: bool,
    pub(crate) text: &'static str,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) asked: Asked,
    /// The place of its entry among those found.
    pub(crate) rank: Option<usize>,
    /// Whether the gate let the first one pass as an answer.
    pub(crate) answered: bool,
}

impl Outcome {
    pub(crate) fn is_right(&self) -> bool {
        match self.asked.entry {
            Some(_) => self.answered && self.rank.is_some_and(|rank| rank <= 5),
            None => !self.answered,
        }
    }

    fn is_wrong_answer(&self) -> bool {
        self.answered && self.rank != Some(1)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) count: usize,
    pub(crate) recall_1: f64,
    pub(crate) recall_5: f64,
    pub(crate) mrr: f64,
    pub(crate) ndcg: f64,
    /// Of those it did not answer, how many have no answer.
    pub(crate) abstain_precision: f64,
    /// Of those that have no answer, how many it did not answer.
    pub(crate) abstain_recall: f64,
    pub(crate) wrong_answers: f64,
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        f64::NAN
    } else {
        part as f64 / whole as f64
    }
}

impl Figures {
    pub(crate) fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let all: Vec<&Outcome> = outcomes.collect();
        let with: Vec<&&Outcome> = all.iter().filter(|one| one.asked.entry.is_some()).collect();
        let within = |most: usize| {
            with.iter()
                .filter(|one| one.rank.is_some_and(|rank| rank <= most))
                .count()
        };
        let mean = |of: fn(f64) -> f64| {
            let sum: f64 = with
                .iter()
                .filter_map(|one| one.rank)
                .filter(|rank| *rank <= 10)
                .map(|rank| of(rank as f64))
                .sum();
            if with.is_empty() {
                f64::NAN
            } else {
                sum / with.len() as f64
            }
        };
        let silent = all.iter().filter(|one| !one.answered).count();
        let rightly = all
            .iter()
            .filter(|one| !one.answered && one.asked.entry.is_none())
            .count();
        let without = all.len() - with.len();
        Self {
            count: all.len(),
            recall_1: share(within(1), with.len()),
            recall_5: share(within(5), with.len()),
            mrr: mean(|rank| 1.0 / rank),
            ndcg: mean(|rank| 1.0 / (rank + 1.0).log2()),
            abstain_precision: share(rightly, silent),
            abstain_recall: share(rightly, without),
            wrong_answers: share(
                all.iter().filter(|one| one.is_wrong_answer()).count(),
                all.len(),
            ),
        }
    }
}

/// Half the width of the 95 % interval of R@5, by a thousand samples drawn from a fixed seed.
fn interval(outcomes: &[&Outcome]) -> f64 {
    let hits: Vec<bool> = outcomes
        .iter()
        .filter(|one| one.asked.entry.is_some())
        .map(|one| one.rank.is_some_and(|rank| rank <= 5))
        .collect();
    if hits.is_empty() {
        return f64::NAN;
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut means: Vec<f64> = (0..1000)
        .map(|_| {
            let sum = (0..hits.len()).filter(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                hits[usize::try_from(state >> 33).unwrap() % hits.len()]
            });
            share(sum.count(), hits.len())
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (means[975] - means[25]) / 2.0
}

pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| half | stratum | n | R@1 | R@5 | ± | MRR@10 | nDCG@10 | abstain precision | abstain recall | wrong answers |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (half, is_dev) in [("dev", true), ("test", false)] {
        for stratum in ["formal", "colloquial", "english", "typo", "none", "all"] {
            let these: Vec<&Outcome> = outcomes
                .iter()
                .filter(|one| {
                    one.asked.is_dev == is_dev && (stratum == "all" || one.asked.stratum == stratum)
                })
                .collect();
            let figures = Figures::of(these.iter().copied());
            let number = |value: f64| {
                if value.is_nan() {
                    "–".to_owned()
                } else {
                    format!("{value:.2}")
                }
            };
            let _ = writeln!(
                text,
                "| {half} | {stratum} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                figures.count,
                number(figures.recall_1),
                number(figures.recall_5),
                number(interval(&these)),
                number(figures.mrr),
                number(figures.ndcg),
                number(figures.abstain_precision),
                number(figures.abstain_recall),
                number(figures.wrong_answers),
            );
        }
    }
    text
}
