//! The line of progress: redrawn on a terminal, one each second elsewhere.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Run, take};
use crate::driver::measure::read;

/// Seconds whose slowest replies the little chart shows.
const SHOWN: usize = 24;

/// Characters of the bar.
const BAR: usize = 20;

const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Shows progress until dropped.
pub(crate) fn start(quiet: bool, run: Arc<Run>) -> DropGuard {
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    if !quiet {
        drop(crate::task::spawn(show(stop, run)));
    }
    guard
}

async fn show(stop: CancellationToken, run: Arc<Run>) {
    let redraws = std::io::stderr().is_terminal();
    let (start, total) = (Instant::now(), run.plan.seconds());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    let mut slowest = VecDeque::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let mut recent = take(&run.recent);
        recent.sort_unstable();
        if slowest.len() == SHOWN {
            slowest.pop_front();
        }
        slowest.push_back(quantile(&recent, 0.99));
        let counters = &run.counters;
        let line = format!(
            "{}  {} {:>4.0}/{total:.0} s  accepted {}  completed {}  under way {}  failed {}  p50 {:.0} ms  p99 {:.0} ms {}",
            run.plan.name,
            bar(start.elapsed().as_secs_f64() / total),
            start.elapsed().as_secs_f64(),
            read(&counters.accepted),
            read(&counters.completed),
            run.board.under_way(),
            read(&counters.failed),
            quantile(&recent, 0.5),
            quantile(&recent, 0.99),
            chart(&slowest),
        );
        // Standard error may be closed; the run goes on without its progress.
        let _ = match redraws {
            true => write!(std::io::stderr(), "\r\x1b[2K{line}"),
            false => writeln!(std::io::stderr(), "{line}"),
        };
    }
    if redraws {
        let _ = writeln!(std::io::stderr());
    }
}

/// A quantile of sorted durations, in milliseconds; 0 of none.
fn quantile(sorted: &[Duration], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .map_or(0.0, |duration| duration.as_secs_f64() * 1_000.0)
}

fn bar(part: f64) -> String {
    let full = (part.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// One character for each value, as high as it is beside the highest.
fn chart(values: &VecDeque<f64>) -> String {
    let highest = values.iter().copied().fold(1e-9, f64::max);
    let height = |value: &f64| HEIGHTS[((value / highest * 7.0).round() as usize).min(7)];
    values.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_drawn_from_the_numbers() {
        assert_eq!(bar(0.25), "█████░░░░░░░░░░░░░░░");
        assert_eq!(bar(7.0).chars().count(), BAR);
        assert_eq!(chart(&VecDeque::from([0.0, 50.0, 100.0])), "▁▅█");
        let millis: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(
            (quantile(&millis, 0.5), quantile(&millis, 0.99)),
            (50.0, 99.0)
        );
        assert_eq!(quantile(&[], 0.5).to_bits(), 0.0_f64.to_bits());
    }
}
