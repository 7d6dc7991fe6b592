//! What a run found, as Markdown.

use std::collections::BTreeMap;
use std::fmt;

use super::measure::Summary;
use super::shape::Record;

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// The scenario and its load, in one line.
    pub title: String,
    /// Numbers with their names, in order.
    pub figures: Vec<(String, String)>,
    /// Latencies with their names, in order.
    pub latencies: Vec<(String, Summary)>,
    /// What went wrong, and how often.
    pub failures: BTreeMap<String, u64>,
    /// What the reader must know to judge the numbers.
    pub notes: Vec<String>,
    /// The same for programs and charts, where the scenario follows a shape over time.
    pub record: Option<Record>,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: impl fmt::Display) {
        self.figures.push((name.into(), value.to_string()));
    }

    pub(crate) fn latency(&mut self, name: impl Into<String>, summary: Summary) {
        self.latencies.push((name.into(), summary));
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds the failures, and what they usually mean.
    pub(crate) fn fail(&mut self, failures: BTreeMap<String, u64>) {
        if failures.keys().any(|what| what.contains("429")) {
            self.note(
                "The API answered 429: start it with higher limits (RATE_LIMIT_MESSAGES_PER_HOUR, \
                 RATE_LIMIT_CONVERSATIONS_PER_DAY) or spread the load over more --users.",
            );
        }
        self.failures = failures;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        if !self.figures.is_empty() {
            writeln!(f, "| figure | value |\n|---|---|")?;
            for (name, value) in &self.figures {
                writeln!(f, "| {name} | {value} |")?;
            }
            writeln!(f)?;
        }
        if !self.latencies.is_empty() {
            writeln!(
                f,
                "| latency in ms | count | p50 | p90 | p99 | p99.9 | max |\n|---|---|---|---|---|---|---|"
            )?;
            for (name, summary) in self
                .latencies
                .iter()
                .filter(|(_, summary)| summary.count > 0)
            {
                let Summary {
                    count,
                    p50,
                    p90,
                    p99,
                    p999,
                    max,
                } = summary;
                writeln!(
                    f,
                    "| {name} | {count} | {p50:.2} | {p90:.2} | {p99:.2} | {p999:.2} | {max:.2} |"
                )?;
            }
            writeln!(f)?;
        }
        if !self.failures.is_empty() {
            writeln!(f, "| what went wrong | count |\n|---|---|")?;
            for (what, count) in &self.failures {
                writeln!(
                    f,
                    "| {} | {count} |",
                    what.replace('|', "\\|").replace('\n', " ")
                )?;
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "{note}\n")?;
        }
        Ok(())
    }
}
