//! What `/metrics` says, read.

use std::collections::BTreeMap;

use super::Client;

/// One answer of `/metrics`.
pub(crate) struct Scrape {
    pub(crate) text: String,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    pub(crate) async fn of(client: &Client) -> Self {
        let text = client.anonymous().get("/metrics").await.raw;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter(|line| !line.is_empty()).map(sample).collect();
        Self { text, samples }
    }

    /// The samples of a metric with these labels, added up.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|had| had == value))
        };
        self.samples
            .iter()
            .filter(has)
            .map(|sample| sample.value)
            .sum()
    }

    /// The labels of each sample of a metric, in the order of the alphabet.
    pub(crate) fn labels(&self, name: &str) -> Vec<Vec<&str>> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples
            .map(|sample| sample.labels.keys().map(String::as_str).collect())
            .collect()
    }

    /// The values that a label has in all metrics.
    pub(crate) fn values(&self, label: &str) -> Vec<&str> {
        let mut values: Vec<&str> = self
            .samples
            .iter()
            .filter_map(|sample| sample.labels.get(label).map(String::as_str))
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The names of all samples.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.iter().map(|sample| sample.name.as_str())
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(|pair| {
            let (label, value) = pair.split_once("=\"")?;
            Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
        });
    Sample {
        name: name.to_owned(),
        labels: labels.collect(),
        value: value.parse().unwrap(),
    }
}
