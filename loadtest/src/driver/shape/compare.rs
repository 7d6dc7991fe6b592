//! Two runs of one scenario: is the second worse?

use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::page;
use super::record::{Counts, Record, with_ending, write};

/// What `compare` is told.
#[derive(Debug, Clone, Args)]
pub struct Compare {
    /// The record of the run that was before.
    pub before: PathBuf,
    /// The record of the run that is judged.
    pub after: PathBuf,
    /// Per cent by which a latency may grow, or the throughput fall, and count as the same.
    #[arg(long, default_value_t = 15.0, value_parser = percent)]
    pub tolerance: f64,
    /// Milliseconds by which a latency may grow whatever that is in per cent.
    #[arg(long, default_value_t = 5.0, value_parser = percent)]
    pub floor: f64,
    /// Writes both runs' charts to this page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1_000_000.0).contains(&value) => Ok(value),
        _ => Err("a number of 0 or more".to_owned()),
    }
}

/// What became of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It got better by more than the tolerance.
    Better,
    /// It is the same, or too few messages were sent to say more.
    Same,
    /// It got worse by more than the tolerance.
    Worse,
}

/// One number of both runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Before and after.
    pub values: (f64, f64),
    /// What became of it; none where it is shown and not judged.
    pub verdict: Option<Verdict>,
}

/// All numbers of both runs.
#[derive(Debug)]
pub struct Comparison {
    /// The scenario, and the load of the second run.
    pub title: String,
    /// Each with its verdict.
    pub rows: Vec<Row>,
}

/// Compares two records.
///
/// # Errors
/// One cannot be read, or they are not of the same scenario under the same load.
pub fn compare(options: &Compare) -> anyhow::Result<Comparison> {
    let (before, after) = (
        Record::load(&options.before)?,
        Record::load(&options.after)?,
    );
    anyhow::ensure!(
        before.scenario == after.scenario && before.title == after.title,
        "these runs were not the same: {} ({}) and {} ({})",
        before.scenario,
        before.title,
        after.scenario,
        after.title
    );
    let comparison = judge(&before, &after, options);
    if let Some(path) = &options.html {
        let text = page::of_two(&before, &after, &comparison);
        write(&with_ending(path, "html"), &text)?;
    }
    Ok(comparison)
}

fn judge(before: &Record, after: &Record, options: &Compare) -> Comparison {
    let mut rows = Vec::new();
    for old in &before.curves {
        let Some(new) = after.curve(&old.key) else {
            continue;
        };
        let count = old.summary.count.min(new.summary.count);
        for (name, quantile, values) in [
            ("p50", 0.5, (old.summary.p50, new.summary.p50)),
            ("p90", 0.9, (old.summary.p90, new.summary.p90)),
            ("p99", 0.99, (old.summary.p99, new.summary.p99)),
        ] {
            // Ten values above it, or a quantile is the luck of the longest few.
            let is_known = count as f64 * (1.0 - quantile) >= 10.0 - 1e-9;
            rows.push(Row {
                name: format!("{}, {name} in ms", old.name),
                values,
                verdict: is_known.then(|| latency(values, options)),
            });
        }
    }
    let throughput = (
        before.counts.completed_per_second,
        after.counts.completed_per_second,
    );
    rows.push(Row {
        name: "completed per second".to_owned(),
        values: throughput,
        verdict: Some(grew(throughput, options.tolerance, 0.0).reverse()),
    });
    let lost = (lost(&before.counts), lost(&after.counts));
    rows.push(Row {
        name: "failed or unfinished, % of the messages".to_owned(),
        values: lost,
        // A failure is no matter of degree: one in a thousand more is worse.
        verdict: Some(match lost {
            (old, new) if new > old + 0.1 => Verdict::Worse,
            (old, new) if new < old - 0.1 => Verdict::Better,
            _ => Verdict::Same,
        }),
    });
    Comparison {
        title: format!("{}: {}", after.scenario, after.title),
        rows,
    }
}

fn lost(counts: &Counts) -> f64 {
    (counts.failed + counts.unfinished) as f64 * 100.0 / (counts.sent.max(1)) as f64
}

fn latency(values: (f64, f64), options: &Compare) -> Verdict {
    grew(values, options.tolerance, options.floor)
}

/// `Worse` if the second is larger by more than the tolerance and the floor.
fn grew((old, new): (f64, f64), tolerance: f64, floor: f64) -> Verdict {
    let allowed = (old.min(new) * tolerance / 100.0).max(floor);
    if new - old > allowed {
        Verdict::Worse
    } else if old - new > allowed {
        Verdict::Better
    } else {
        Verdict::Same
    }
}

impl Verdict {
    fn reverse(self) -> Self {
        match self {
            Self::Better => Self::Worse,
            Self::Same => Self::Same,
            Self::Worse => Self::Better,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Worse => "worse",
        }
    }
}

impl Comparison {
    /// The worst of all verdicts.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let all = || self.rows.iter().filter_map(|row| row.verdict);
        match all().max() {
            Some(Verdict::Worse) => Verdict::Worse,
            _ if all().any(|verdict| verdict == Verdict::Better) => Verdict::Better,
            _ => Verdict::Same,
        }
    }
}

impl Row {
    /// By how much it changed, in per cent.
    pub(crate) fn change(&self) -> String {
        let (old, new) = self.values;
        if old.abs() < 1e-9 {
            return "–".to_owned();
        }
        format!("{:+.1} %", (new - old) / old * 100.0)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(
            f,
            "| figure | before | after | change | |\n|---|---|---|---|---|"
        )?;
        for row in &self.rows {
            let (old, new) = row.values;
            let verdict = match row.verdict {
                Some(Verdict::Worse) => "**worse**",
                Some(verdict) => verdict.as_str(),
                None => "too few to say",
            };
            let (name, change) = (&row.name, row.change());
            writeln!(f, "| {name} | {old:.2} | {new:.2} | {change} | {verdict} |")?;
        }
        writeln!(f, "\nThe second run was: {}", self.verdict().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grew_by_more_than_both_limits_is_worse() {
        for (values, expected) in [
            ((100.0, 114.0), Verdict::Same),
            ((100.0, 116.0), Verdict::Worse),
            ((116.0, 100.0), Verdict::Better),
            // Twice as long, and nobody would notice.
            ((2.0, 4.0), Verdict::Same),
            ((0.0, 6.0), Verdict::Worse),
        ] {
            assert_eq!(grew(values, 15.0, 5.0), expected, "{values:?}");
        }
    }

    #[test]
    fn one_worse_number_makes_a_run_worse() {
        let row = |verdict| Row {
            name: "n".to_owned(),
            values: (1.0, 2.0),
            verdict,
        };
        let of = |verdicts: &[Option<Verdict>]| Comparison {
            title: String::new(),
            rows: verdicts.iter().copied().map(row).collect(),
        };
        let (better, worse) = (Some(Verdict::Better), Some(Verdict::Worse));
        assert_eq!(of(&[better, worse, None]).verdict(), Verdict::Worse);
        assert_eq!(
            of(&[better, Some(Verdict::Same)]).verdict(),
            Verdict::Better
        );
        assert_eq!(of(&[None]).verdict(), Verdict::Same);
        assert!(
            of(&[worse])
                .to_string()
                .contains("| +100.0 % | **worse** |")
        );
    }
}
