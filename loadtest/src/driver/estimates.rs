//! What the 202 said of the time a reply would take, beside the time it took.

use std::time::Duration;

use super::report::Report;

/// An estimate holds when the reply takes no more than this part more or less.
const TOLERANCE: f64 = 0.25;

/// Estimates and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Estimates {
    /// The time that was taken, as a part of the time that was estimated.
    ratios: Vec<f64>,
    /// Replies that nothing could be said about.
    without: usize,
}

impl Estimates {
    pub(crate) fn record(&mut self, estimated_ms: Option<u64>, taken: Duration) {
        match estimated_ms {
            Some(estimated) => self
                .ratios
                .push(taken.as_secs_f64() * 1e3 / estimated.max(1) as f64),
            None => self.without += 1,
        }
    }

    /// Adds how good the estimates were; nothing where none was made.
    pub(crate) fn report(mut self, report: &mut Report) {
        if self.ratios.is_empty() {
            return;
        }
        self.ratios.sort_unstable_by(f64::total_cmp);
        report.figure(
            "202s with an estimate, and without",
            format!("{} and {}", self.ratios.len(), self.without),
        );
        report.figure(
            "replies within ± 25 % of their estimate",
            format!("{:.1} %", self.kept() * 100.0),
        );
        report.figure(
            "time taken / time estimated: p5, p50, p95",
            format!(
                "{:.2}, {:.2}, {:.2}",
                self.quantile(0.05),
                self.quantile(0.5),
                self.quantile(0.95)
            ),
        );
    }

    fn kept(&self) -> f64 {
        let good = |ratio: &&f64| (**ratio - 1.0).abs() <= TOLERANCE;
        self.ratios.iter().filter(good).count() as f64 / self.ratios.len() as f64
    }

    fn quantile(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.ratios.len() as f64).ceil() as usize;
        let ratio = self.ratios.get(rank.saturating_sub(1));
        ratio.copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_more_or_less_is_good_enough() {
        let mut estimates = Estimates::default();
        for taken in [740, 750, 1_000, 1_250, 1_260] {
            estimates.record(Some(1_000), Duration::from_millis(taken));
        }
        estimates.record(None, Duration::from_secs(9));
        assert_eq!((estimates.kept(), estimates.without), (0.6, 1));
        assert_eq!(estimates.quantile(0.5), 1.0);
        assert_eq!(estimates.quantile(0.95), 1.26);
    }
}
