//! What a shaped run leaves behind: a file that `compare` and other programs read.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::driver::measure::Summary;

/// The layout of the file; another number is another layout.
pub const FORMAT: u32 = 1;

/// Everything a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`] of the program that wrote it.
    pub format: u32,
    /// The scenario's name on the command line.
    pub scenario: String,
    /// Its load in words.
    pub title: String,
    /// When it began, RFC 3339.
    pub began_at: String,
    /// What the numbers depend on, with names.
    pub conditions: Vec<(String, String)>,
    /// Figures with names, as the Markdown has them.
    pub figures: Vec<(String, String)>,
    /// What became of the messages.
    pub counts: Counts,
    /// What went wrong, and how often.
    pub failures: BTreeMap<String, u64>,
    /// Latencies.
    pub curves: Vec<Curve>,
    /// What happened in each stretch of time.
    pub rates: Vec<Rate>,
    /// Length of such a stretch, in seconds.
    pub bucket_seconds: f64,
    /// Moments and times that charts mark.
    pub marks: Vec<Mark>,
}

/// What became of the messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Answered with 202.
    pub accepted: u64,
    /// With a stored reply.
    pub completed: u64,
    /// Refused, failed or cancelled, and sockets that broke.
    pub failed: u64,
    /// Accepted, and without an end when the run was over.
    pub unfinished: u64,
    /// Completed per second, from the first message to the last end.
    pub completed_per_second: f64,
}

/// One latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The same in every run of a scenario.
    pub key: String,
    /// For people.
    pub name: String,
    /// Its quantiles, without the warm-up, in milliseconds.
    pub summary: Summary,
    /// Its quantiles over time, by when a message was due.
    pub over_time: Vec<Bucket>,
    /// Percentile and milliseconds, from the median to the longest.
    pub spectrum: Vec<(f64, f64)>,
}

/// Quantiles of what was due within a stretch of time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its beginning, in seconds.
    pub at: f64,
    /// How many.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What happened within a stretch of time; all but the last two per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Its beginning, in seconds.
    pub at: f64,
    /// What the plan meant to send.
    pub planned: f64,
    /// 202s that came.
    pub accepted: f64,
    /// Replies that came.
    pub completed: f64,
    /// Messages whose end is not there yet, at the end of the stretch.
    pub under_way: u64,
    /// Failures of any kind.
    pub failed: u64,
}

/// A moment, or a time if it has a length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// What it is.
    pub name: String,
    /// From, in seconds.
    pub from: f64,
    /// Until.
    pub until: f64,
}

impl Record {
    /// The curve of this key.
    #[must_use]
    pub fn curve(&self, key: &str) -> Option<&Curve> {
        self.curves.iter().find(|curve| curve.key == key)
    }

    /// Writes `path.json` and `path.html`.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self).context("failed to serialise the record")?;
        write(&with_ending(path, "json"), &json)?;
        write(&with_ending(path, "html"), &super::page::of_run(self))
    }

    /// Reads what [`Record::save`] wrote.
    ///
    /// # Errors
    /// It is not there or not of this layout.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Layout {
            format: u32,
        }
        let shown = path.display();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("failed to read {shown}"))?;
        let Layout { format } = serde_json::from_str(&text)
            .with_context(|| format!("{shown} is no record of a run"))?;
        anyhow::ensure!(
            format == FORMAT,
            "{shown} has layout {format}; this program reads {FORMAT}"
        );
        serde_json::from_str(&text).with_context(|| format!("{shown} is no record of a run"))
    }
}

/// `path` with an ending, which it may already have.
pub(crate) fn with_ending(path: &Path, ending: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    if path.extension().is_none_or(|extension| extension != ending) {
        name.push(".");
        name.push(ending);
    }
    name.into()
}

pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}
