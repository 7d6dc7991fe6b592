//! What the person at the terminal sees: a line per fault while it goes on, a table in the end.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use crate::check::Verdict;
use crate::fault::{Fault, Outcome};
use crate::load::Answers;

/// Breaches of one promise that are printed; the rest is a number.
const SHOWN: usize = 10;

/// Prints a line; a reader that went away does not stop the run.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// How often each fault was done.
#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<&'static str, (u32, u32)>);

impl Faults {
    pub(crate) fn note(&mut self, fault: Fault, outcome: &Outcome) {
        let counts = self.0.entry(fault.name()).or_default();
        match outcome {
            Outcome::Done(_) => counts.0 += 1,
            Outcome::Missed(_) => counts.1 += 1,
            Outcome::Skipped(_) => {}
        }
    }

    /// A fault whose moment never came tests nothing: somebody has moved the moment.
    pub(crate) fn judge(&self) -> Verdict {
        let never = self
            .0
            .iter()
            .filter(|(_, (done, missed))| *done == 0 && *missed > 0);
        let total: u32 = self.0.values().map(|(done, _)| done).sum();
        let missed: u32 = self.0.values().map(|(_, missed)| missed).sum();
        Verdict {
            name: "faults",
            promise: "every fault that was tried was done",
            counts: format!(
                "{total} of {} kinds of {}, {missed} missed",
                self.0.values().filter(|(done, _)| *done > 0).count(),
                Fault::ALL.len()
            ),
            breaches: never
                .map(|(name, (_, missed))| {
                    format!("{name} was missed {missed} times and never done")
                })
                .collect(),
        }
    }
}

/// Prints the line of a fault that is over.
pub(crate) fn fault(
    at: Duration,
    fault: Fault,
    outcome: &Outcome,
    took: Duration,
    acknowledged: usize,
    left: u64,
) {
    let text = match outcome {
        Outcome::Done(text) => text.clone(),
        Outcome::Missed(why) => format!("MISSED: {why}"),
        Outcome::Skipped(why) => format!("skipped: {why}"),
    };
    line(&format!(
        "{:>6.1} s  {:<30} {:>5.1} s  {acknowledged:>6} acknowledged  {:>6} done  {text}",
        at.as_secs_f64(),
        fault.name(),
        took.as_secs_f64(),
        (acknowledged as u64).saturating_sub(left),
    ));
}

/// Prints everything that was answered, then the verdicts. Returns whether all promises were kept.
pub(crate) fn verdicts(answers: &Answers, verdicts: &[Verdict]) -> bool {
    line("\nanswers:");
    for (what, count) in &answers.counts {
        line(&format!("  {count:>7} × {what}"));
    }
    line("");
    for verdict in verdicts {
        let mark = if verdict.breaches.is_empty() {
            "kept".to_owned()
        } else {
            format!("BROKEN × {}", verdict.breaches.len())
        };
        line(&format!(
            "{:<8} {mark:<10} {}: {}",
            verdict.name, verdict.promise, verdict.counts
        ));
        for breach in verdict.breaches.iter().take(SHOWN) {
            line(&format!("         ! {breach}"));
        }
        if let Some(more) = verdict.breaches.len().checked_sub(SHOWN + 1) {
            line(&format!("         ! … and {} more", more + 1));
        }
    }
    verdicts.iter().all(|verdict| verdict.breaches.is_empty())
}

/// Prints the faults and what they do.
pub(crate) fn list() {
    for fault in Fault::ALL {
        line(&format!("{:<30} {}", fault.name(), fault.what()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_is_always_missed_is_a_breach() {
        let mut faults = Faults::default();
        let missed = Outcome::Missed("nobody came".to_owned());
        faults.note(Fault::RedisFlush, &missed);
        assert_eq!(faults.judge().breaches.len(), 1);
        faults.note(Fault::RedisFlush, &Outcome::Done(String::new()));
        assert!(faults.judge().breaches.is_empty());
    }
}
