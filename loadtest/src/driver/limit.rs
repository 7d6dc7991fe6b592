//! How the fleet keeps to the account's limit: whether it is ever exceeded, and in which order people are served.

use std::collections::HashMap;

use super::report::Report;
use super::tracker::Finished;
use crate::simulator::{CallRecord, Stats};

/// What a run under a limit found.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    /// Calls that went out when it was their turn in the order accepted.
    in_order: usize,
    /// The most places by which anybody was served later than in that order.
    most_late: usize,
}

/// Adds what became of the limit. `calls` are those for the replies of `finished`, by message number.
pub(super) fn fill(
    report: &mut Report,
    limit: u64,
    stats: &Stats,
    finished: &[&Finished],
    calls: &HashMap<usize, Vec<CallRecord>>,
) {
    let most = stats.free_per_minute_max;
    report.figure(
        "most calls of free models in any 60 s",
        format!("{most} (allowed: {limit})"),
    );
    let refused = stats.by_status.get(&429).copied().unwrap_or(0);
    report.figure("calls that the upstream refused with 429", refused);
    let mut served: Vec<(i64, u64)> = Vec::with_capacity(finished.len());
    for one in finished {
        if let Some(call) = calls
            .get(&one.posted.number)
            .and_then(|calls| calls.first())
        {
            served.push((one.posted.queued_us, call.at_us));
        }
    }
    let kept = order(&served);
    report.figure(
        "replies begun in the order accepted",
        format!("{} of {}", kept.in_order, served.len()),
    );
    report.figure("most places anybody came too late", kept.most_late);
    if most > limit {
        *report
            .failures
            .entry("the limit was exceeded".to_owned())
            .or_default() += most - limit;
    }
    if refused > 0 {
        *report
            .failures
            .entry("429 by the upstream".to_owned())
            .or_default() += refused;
    }
}

/// Compares the order of acceptance, the first moment of each, with that of service, the second.
fn order(served: &[(i64, u64)]) -> Kept {
    let mut accepted: Vec<usize> = (0..served.len()).collect();
    accepted.sort_by_key(|at| served[*at].0);
    let mut by_service = accepted.clone();
    by_service.sort_by_key(|at| served[*at].1);
    let mut place = vec![0; served.len()];
    for (turn, at) in by_service.iter().enumerate() {
        place[*at] = turn;
    }
    let late = accepted
        .iter()
        .enumerate()
        .map(|(turn, at)| (place[*at].saturating_sub(turn), place[*at] == turn));
    let late: Vec<(usize, bool)> = late.collect();
    Kept {
        in_order: late.iter().filter(|(_, is_turn)| *is_turn).count(),
        most_late: late.iter().map(|(late, _)| *late).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_acceptance() {
        let kept = |served: &[(i64, u64)]| {
            let kept = order(served);
            (kept.in_order, kept.most_late)
        };
        assert_eq!(kept(&[]), (0, 0));
        assert_eq!(kept(&[(30, 300), (10, 100), (20, 200)]), (3, 0));
        // The second was passed by two.
        assert_eq!(kept(&[(10, 100), (20, 400), (30, 200), (40, 300)]), (1, 2));
        assert_eq!(kept(&[(10, 200), (20, 100), (30, 300)]), (1, 1));
    }
}
