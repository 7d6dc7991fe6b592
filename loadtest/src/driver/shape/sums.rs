//! From what was seen to what is reported.

use std::time::Instant;

use super::board::{Known, Sent};
use super::plan::{Phase, Who};
use super::record::{Bucket, Counts, Curve, FORMAT, Mark, Rate, Record};
use super::{Run, take};
use crate::driver::measure::{Summary, read};
use crate::driver::report::Report;
use crate::driver::tracker::Ending;

/// Points that a chart over time has at most.
const MOST_BUCKETS: f64 = 120.0;

/// What the end of a run knows beside its messages.
pub(crate) struct Found<'a> {
    pub(crate) start: Instant,
    pub(crate) began_us: u64,
    pub(crate) warm_up: f64,
    pub(crate) within_ms: f64,
    pub(crate) marker: &'a str,
    /// Accepted generations without an end.
    pub(crate) missing: Vec<String>,
    /// Messages the model was called for more than once, where that is known.
    pub(crate) repeated: Option<usize>,
}

/// A message as numbers; times in seconds from the start, latencies in milliseconds.
struct Point {
    due: f64,
    who: Who,
    accepted: f64,
    first_text: Option<f64>,
    reply: Option<f64>,
    gap: f64,
    ended: Option<f64>,
}

/// Values with the second they belong to.
type Values = Vec<(f64, f64)>;

/// Works out everything once all has ended.
pub(crate) fn report(run: &Run, found: &Found<'_>) -> Report {
    let all = run.board.take();
    let wrong = all.iter().filter(|(_, known)| known.is_wrong).count();
    let asked = all
        .iter()
        .filter(|(_, known)| known.was_asked_for && known.end.is_some())
        .count();
    let points: Vec<Point> = all
        .iter()
        .map(|(sent, known)| point(sent, known, found.start))
        .collect();
    let width = width(run.plan.seconds());
    let curves = curves(run, found, &points, width);
    let rates = rates(run, found, &points, width);
    let counts = counts(run, &points);
    let mut report = Report::new(format!("{}: {}", run.plan.name, run.plan.title));
    describe(&mut report, run, found, &counts);
    report.figure("ends that were asked for after 10 s of silence", asked);
    if run.plan.compares_text {
        report.figure("replies whose streamed text was not the stored one", wrong);
    }
    special(&mut report, run, found, &points, &curves, &rates, width);
    for curve in &curves {
        report.latency(&curve.name, curve.summary);
    }
    let mut failures = run.counters.failures();
    if wrong > 0 {
        failures.insert("a streamed text was wrong".to_owned(), wrong as u64);
    }
    report.fail(failures);
    report.record = Some(Record {
        format: FORMAT,
        scenario: run.plan.name.to_owned(),
        title: run.plan.title.clone(),
        began_at: crate::clock::rfc3339(found.began_us),
        conditions: Vec::new(),
        figures: report.figures.clone(),
        counts: Counts {
            failed: counts.failed + wrong as u64,
            ..counts
        },
        failures: report.failures.clone(),
        curves,
        rates,
        bucket_seconds: width,
        marks: marks(run),
    });
    report
}

fn point(sent: &Sent, known: &Known, start: Instant) -> Point {
    let millis = |at: Instant| at.saturating_duration_since(sent.due).as_secs_f64() * 1_000.0;
    let end = known.end.filter(|(ending, _)| *ending == Ending::Completed);
    Point {
        due: sent.due.saturating_duration_since(start).as_secs_f64(),
        who: sent.who,
        accepted: millis(sent.accepted),
        first_text: known.first_text.map(millis),
        reply: end.map(|(_, at)| millis(at)),
        gap: known.longest_gap.as_secs_f64() * 1_000.0,
        ended: known
            .end
            .map(|(_, at)| at.saturating_duration_since(start).as_secs_f64()),
    }
}

fn counts(run: &Run, points: &[Point]) -> Counts {
    let completed = points.iter().filter(|point| point.reply.is_some()).count();
    let last = points
        .iter()
        .filter_map(|point| point.reply.and(point.ended))
        .fold(0.0, f64::max);
    Counts {
        sent: read(&run.counters.sent),
        accepted: read(&run.counters.accepted),
        completed: completed as u64,
        failed: read(&run.counters.failed),
        unfinished: points.iter().filter(|point| point.ended.is_none()).count() as u64,
        completed_per_second: if last > 0.0 {
            rounded(completed as f64 / last)
        } else {
            0.0
        },
    }
}

fn describe(report: &mut Report, run: &Run, found: &Found<'_>, counts: &Counts) {
    let (people, conversations) = (run.people.users.len(), run.people.conversations.len());
    report.figure(
        "people × conversations",
        format!("{people} × {}", conversations / people.max(1)),
    );
    report.figure(
        "directives for the model",
        if found.marker.is_empty() {
            "none"
        } else {
            found.marker
        },
    );
    report.figure("messages sent", counts.sent);
    report.figure("messages accepted (202)", counts.accepted);
    report.figure("replies completed", counts.completed);
    report.figure("replies that did not end in time", counts.unfinished);
    if !found.missing.is_empty() {
        report.figure(
            "generations of the first of those",
            found.missing[..found.missing.len().min(3)].join(" "),
        );
    }
    report.figure(
        "completed per second",
        format!("{:.1}", counts.completed_per_second),
    );
    if let Some(repeated) = found.repeated {
        report.figure("messages the model was called for more than once", repeated);
    }
}

/// What the scenario was made to show.
fn special(
    report: &mut Report,
    run: &Run,
    found: &Found<'_>,
    points: &[Point],
    curves: &[Curve],
    rates: &[Rate],
    width: f64,
) {
    let summary = |key: &str| {
        let curve = curves.iter().find(|curve| curve.key == key);
        curve.map(|curve| curve.summary)
    };
    match run.plan.name {
        "ramp" => report.figure(
            format!(
                "highest rate held (99 % of first texts within {:.0} ms)",
                found.within_ms
            ),
            held(points, rates, found.within_ms, width)
                .map_or_else(|| "none".to_owned(), |rate| format!("{rate:.0} messages/s")),
        ),
        "burst" => {
            for phase in &run.plan.phases {
                let all = points.iter().filter(|point| inside(point.due, phase));
                let last = all
                    .filter_map(|point| point.ended)
                    .fold(phase.from, f64::max);
                report.figure(
                    format!("{} worked off after", phase.name),
                    format!("{:.1} s", last - phase.from),
                );
            }
        }
        "reconnect-storm" => {
            let (cuts, sockets) = (run.plan.cuts.len(), run.ears.len());
            let back = summary("return").map_or(0, |summary| summary.count);
            report.figure("sockets cut", cuts * sockets);
            report.figure("sockets that came back", back);
            report.figure("tries to come back that failed", read(&run.turned_away));
        }
        "noisy-neighbour" => {
            let quiet = summary("reply-before").map(|summary| summary.p99);
            let noisy = summary("reply-noise").map(|summary| summary.p99);
            if let (Some(quiet), Some(noisy)) = (quiet, noisy)
                && quiet > 0.0
            {
                report.figure(
                    "others' 99th percentile in the noise, of that before",
                    format!("{:.2} ×", noisy / quiet),
                );
            }
        }
        _ => {}
    }
}

/// The rate up to which first texts came in time, without a stretch before it in which they did not.
fn held(points: &[Point], rates: &[Rate], within_ms: f64, width: f64) -> Option<f64> {
    let mut held = None;
    for rate in rates.iter().filter(|rate| rate.planned > 0.0) {
        let mine = || {
            points
                .iter()
                .filter(|point| (rate.at..rate.at + width).contains(&point.due))
        };
        let all = mine().count();
        let late = mine()
            .filter(|point| point.first_text.is_none_or(|millis| millis > within_ms))
            .count();
        if all > 0 && late as f64 > all as f64 / 100.0 || rate.failed > 0 {
            break;
        }
        if all > 0 {
            held = Some(rate.planned);
        }
    }
    held
}

fn curves(run: &Run, found: &Found<'_>, points: &[Point], width: f64) -> Vec<Curve> {
    let people = || points.iter().filter(|point| point.who == Who::People);
    let make = |key: &str, name: &str, values: Values| {
        let spans = run.plan.seconds();
        curve(key, name, &values, found.warm_up, width, spans)
    };
    let first = |point: &Point| Some((point.due, point.first_text?));
    let reply = |point: &Point| Some((point.due, point.reply?));
    let mut curves = vec![
        make(
            "accept",
            "POST to 202",
            people().map(|point| (point.due, point.accepted)).collect(),
        ),
        make(
            "first-text",
            "POST to first text",
            people().filter_map(first).collect(),
        ),
        make(
            "reply",
            "POST to whole reply",
            people().filter_map(reply).collect(),
        ),
    ];
    if run.plan.compares_text {
        let gaps = people().filter(|point| point.reply.is_some());
        curves.push(make(
            "gap",
            "longest wait for more text",
            gaps.map(|point| (point.due, point.gap)).collect(),
        ));
    }
    if !run.plan.cuts.is_empty() {
        let returns = take(&run.returns).into_iter().map(|(since, opened)| {
            let at = since.saturating_duration_since(found.start).as_secs_f64();
            (at, (opened - since).as_secs_f64() * 1_000.0)
        });
        curves.push(make("return", "cut to connected again", returns.collect()));
    }
    if run.neighbour.is_some() {
        for phase in &run.plan.phases {
            let mine = people().filter(|point| inside(point.due, phase));
            curves.push(make(
                &format!("reply-{}", phase.name),
                &format!("POST to whole reply of the others, {}", phase.name),
                mine.filter_map(reply).collect(),
            ));
        }
        let loud = points.iter().filter(|point| point.who == Who::Neighbour);
        curves.push(make(
            "reply-neighbour",
            "POST to whole reply of the neighbour",
            loud.filter_map(reply).collect(),
        ));
    }
    curves
}

fn inside(second: f64, phase: &Phase) -> bool {
    (phase.from..phase.until).contains(&second)
}

fn curve(key: &str, name: &str, values: &Values, warm_up: f64, width: f64, spans: f64) -> Curve {
    let sorted = |values: &mut dyn Iterator<Item = &(f64, f64)>| {
        let mut millis: Vec<f64> = values.map(|(_, millis)| *millis).collect();
        millis.sort_by(f64::total_cmp);
        millis
    };
    let mut measured = values.iter().filter(|(at, _)| *at >= warm_up);
    let measured = sorted(&mut measured);
    let mut over_time = Vec::new();
    for bucket in 0..(spans / width).ceil() as usize {
        let at = bucket as f64 * width;
        let mut inside = values
            .iter()
            .filter(|(due, _)| (at..at + width).contains(due));
        let inside = sorted(&mut inside);
        if !inside.is_empty() {
            over_time.push(Bucket {
                at,
                count: inside.len() as u64,
                p50: quantile(&inside, 0.5),
                p90: quantile(&inside, 0.9),
                p99: quantile(&inside, 0.99),
                max: quantile(&inside, 1.0),
            });
        }
    }
    let spectrum = [
        50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99,
    ];
    Curve {
        key: key.to_owned(),
        name: name.to_owned(),
        summary: Summary {
            count: measured.len() as u64,
            p50: quantile(&measured, 0.5),
            p90: quantile(&measured, 0.9),
            p99: quantile(&measured, 0.99),
            p999: quantile(&measured, 0.999),
            max: quantile(&measured, 1.0),
        },
        over_time,
        // A percentile that less than one value lies above says no more than the longest does.
        spectrum: spectrum
            .into_iter()
            .filter(|percent| measured.len() as f64 * (100.0 - percent) >= 100.0)
            .map(|percent| (percent, quantile(&measured, percent / 100.0)))
            .collect(),
    }
}

/// Three digits behind the point: what is written to a file and read again is then the same.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A quantile of sorted values; 0 of none.
fn quantile(sorted: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    let found = sorted.get(rank.saturating_sub(1));
    rounded(found.copied().unwrap_or_default())
}

fn rates(run: &Run, found: &Found<'_>, points: &[Point], width: f64) -> Vec<Rate> {
    let seconds = |at: Instant| at.saturating_duration_since(found.start).as_secs_f64();
    let accepted: Vec<f64> = take(&run.accepted).into_iter().map(seconds).collect();
    let failed: Vec<f64> = take(&run.failed).into_iter().map(seconds).collect();
    let ended: Vec<f64> = points.iter().filter_map(|point| point.ended).collect();
    let completed: Vec<f64> = points
        .iter()
        .filter_map(|point| point.reply.and(point.ended))
        .collect();
    let last = ended.iter().copied().fold(run.plan.seconds(), f64::max);
    let within = |all: &[f64], from: f64, until: f64| {
        all.iter().filter(|at| (from..until).contains(*at)).count()
    };
    (0..=(last / width).floor() as usize)
        .map(|bucket| {
            let at = bucket as f64 * width;
            let until = at + width;
            let begun = within(&accepted, 0.0, until);
            Rate {
                at,
                planned: rounded(run.plan.rate_at(at + width / 2.0)),
                accepted: within(&accepted, at, until) as f64 / width,
                completed: within(&completed, at, until) as f64 / width,
                under_way: begun.saturating_sub(within(&ended, 0.0, until)) as u64,
                failed: within(&failed, at, until) as u64,
            }
        })
        .collect()
}

/// The length of a stretch: a round number, so that a chart has neither too few nor too many.
fn width(seconds: f64) -> f64 {
    let round = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
    round
        .into_iter()
        .find(|width| seconds / width <= MOST_BUCKETS)
        .unwrap_or(900.0)
}

fn marks(run: &Run) -> Vec<Mark> {
    // What is before and after something needs no mark.
    let phases = run.plan.phases.iter();
    let phases = phases.filter(|phase| !["before", "after"].contains(&&*phase.name));
    let phases = phases.map(|phase| Mark {
        name: phase.name.clone(),
        from: rounded(phase.from),
        until: rounded(phase.until),
    });
    let cuts = run.plan.cuts.iter().map(|at| Mark {
        name: "all sockets cut".to_owned(),
        from: rounded(*at),
        until: rounded(*at),
    });
    phases.chain(cuts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(due: f64, first_text: Option<f64>) -> Point {
        Point {
            due,
            who: Who::People,
            accepted: 1.0,
            first_text,
            reply: first_text,
            gap: 0.0,
            ended: first_text.map(|millis| due + millis / 1_000.0),
        }
    }

    #[test]
    fn quantiles_leave_the_warm_up_out_and_charts_do_not() {
        let values: Values = (0..1_000)
            .map(|number| (f64::from(number) / 100.0, f64::from(number)))
            .collect();
        let curve = curve("k", "n", &values, 5.0, 1.0, 10.0);
        assert_eq!((curve.summary.count, curve.summary.max), (500, 999.0));
        assert_eq!((curve.summary.p50, curve.summary.p99), (749.0, 994.0));
        assert_eq!(curve.over_time.len(), 10);
        assert_eq!(
            (curve.over_time[0].count, curve.over_time[0].max),
            (100, 99.0)
        );
        // 500 values know nothing of the 99.9th percentile.
        assert_eq!(
            curve.spectrum.last().map(|(percent, _)| *percent),
            Some(99.5)
        );
    }

    #[test]
    fn a_rate_is_held_until_the_first_stretch_in_which_it_is_not() {
        let rate = |at: f64| Rate {
            at,
            planned: 10.0 * (at + 1.0),
            ..Rate::default()
        };
        let rates: Vec<Rate> = (0..4).map(|at| rate(f64::from(at))).collect();
        let mut points: Vec<Point> = (0..4).map(|due| at(f64::from(due), Some(50.0))).collect();
        assert_eq!(held(&points, &rates, 100.0, 1.0), Some(40.0));
        points.push(at(2.5, Some(500.0)));
        assert_eq!(held(&points, &rates, 100.0, 1.0), Some(20.0));
        points.push(at(0.5, None));
        assert_eq!(held(&points, &rates, 100.0, 1.0), None);
    }

    #[test]
    fn charts_have_a_readable_number_of_points() {
        for (seconds, expected) in [(3.0, 0.25), (60.0, 0.5), (90.0, 1.0), (3_600.0, 30.0)] {
            assert_eq!(
                width(seconds).to_bits(),
                f64::to_bits(expected),
                "{seconds}"
            );
        }
    }
}
