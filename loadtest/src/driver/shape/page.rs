//! A run, or two, as a page that needs nothing but a browser.

use std::fmt::Write as _;

use super::compare::{Comparison, Verdict};
use super::draw::{Chart, Line, Scale, escape, number};
use super::record::{Bucket, Curve, Record};

const STYLE: &str = include_str!("page.css");

/// The charts and tables of one run.
pub(crate) fn of_run(record: &Record) -> String {
    let mut body = String::new();
    let title = format!("{}: {}", record.scenario, record.title);
    let _ = write!(
        body,
        "<h1>{}</h1><p class=\"when\">{}</p>",
        escape(&title),
        escape(&record.began_at)
    );
    tiles(&mut body, record);
    for curve in record.curves.iter().filter(|curve| !is_part(curve)) {
        body.push_str(&over_time(record, curve).svg());
    }
    body.push_str(&rates(record).svg());
    body.push_str(&under_way(record).svg());
    body.push_str(&spectrum(&[record]).svg());
    latencies(&mut body, &record.curves);
    pairs(&mut body, "Figures", &record.figures);
    if !record.failures.is_empty() {
        let failures = record.failures.iter();
        let rows: Vec<_> = failures
            .map(|(what, count)| (what.clone(), count.to_string()))
            .collect();
        pairs(&mut body, "What went wrong", &rows);
    }
    pairs(&mut body, "Conditions", &record.conditions);
    page(&title, &body)
}

/// Two runs side by side.
pub(crate) fn of_two(before: &Record, after: &Record, comparison: &Comparison) -> String {
    let mut body = String::new();
    let verdict = comparison.verdict();
    let _ = write!(
        body,
        "<h1>{}</h1><p class=\"when\">before: {} · after: {}</p><p class=\"verdict {}\">The second run was: {}</p>",
        escape(&comparison.title),
        escape(&before.began_at),
        escape(&after.began_at),
        verdict.as_str(),
        verdict.as_str()
    );
    judged(&mut body, comparison);
    for old in before.curves.iter().filter(|curve| !is_part(curve)) {
        if let Some(new) = after.curve(&old.key) {
            body.push_str(&both(after, old, new).svg());
        }
    }
    body.push_str(&spectrum(&[before, after]).svg());
    for (name, record) in [("before", before), ("after", after)] {
        pairs(
            &mut body,
            &format!("Conditions, {name}"),
            &record.conditions,
        );
        pairs(&mut body, &format!("Figures, {name}"), &record.figures);
    }
    page(&format!("compare {}", comparison.title), &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>\n{body}</main></body></html>\n",
        escape(title)
    )
}

fn tiles(body: &mut String, record: &Record) {
    let counts = &record.counts;
    let lost = counts.failed + counts.unfinished;
    let quantiles = |key: &str| {
        record.curve(key).map_or_else(String::new, |curve| {
            let (middle, high) = (number(curve.summary.p50), number(curve.summary.p99));
            format!("{middle} / {high} ms")
        })
    };
    let tiles = [
        ("completed per second", number(counts.completed_per_second)),
        (
            "replies",
            format!("{} of {}", counts.completed, counts.sent),
        ),
        ("failed or unfinished", lost.to_string()),
        ("202, p50 / p99", quantiles("accept")),
        ("first text, p50 / p99", quantiles("first-text")),
        ("reply, p50 / p99", quantiles("reply")),
    ];
    body.push_str("<dl class=\"tiles\">");
    for (name, value) in tiles {
        let class = if name.starts_with("failed") && lost > 0 {
            " class=\"worse\""
        } else {
            ""
        };
        let _ = write!(
            body,
            "<div{class}><dt>{name}</dt><dd>{}</dd></div>",
            escape(&value)
        );
    }
    body.push_str("</dl>\n");
}

fn line<'a>(name: &'a str, class: &'a str, curve: &Curve, of: impl Fn(&Bucket) -> f64) -> Line<'a> {
    let points = curve.over_time.iter();
    Line {
        name,
        class,
        points: points.map(|bucket| (bucket.at, of(bucket))).collect(),
    }
}

fn marks(record: &Record) -> Vec<(&str, f64, f64)> {
    let marks = record.marks.iter();
    marks
        .map(|mark| (mark.name.as_str(), mark.from, mark.until))
        .collect()
}

/// Where the charts over time end.
fn end(record: &Record) -> f64 {
    let last = record.rates.last().map_or(0.0, |rate| rate.at);
    last + record.bucket_seconds
}

/// A part of another curve, cut out for the table: its chart would show nothing new.
fn is_part(curve: &Curve) -> bool {
    curve.summary.count == 0
        || ["reply-before", "reply-noise", "reply-after"].contains(&&*curve.key)
}

fn over_time<'a>(record: &'a Record, curve: &'a Curve) -> Chart<'a> {
    Chart {
        title: &curve.name,
        x: "seconds",
        y: "ms",
        x_scale: Scale::Linear,
        x_to: end(record),
        y_scale: Scale::Logarithmic,
        lines: vec![
            line("p50", "low", curve, |bucket| bucket.p50),
            line("p90", "middle", curve, |bucket| bucket.p90),
            line("p99", "high", curve, |bucket| bucket.p99),
        ],
        marks: marks(record),
    }
}

fn both<'a>(after: &'a Record, old: &Curve, new: &'a Curve) -> Chart<'a> {
    Chart {
        title: &new.name,
        x: "seconds",
        y: "ms",
        x_scale: Scale::Linear,
        x_to: end(after),
        y_scale: Scale::Logarithmic,
        lines: vec![
            line("p50 before", "old dashed", old, |bucket| bucket.p50),
            line("p99 before", "old", old, |bucket| bucket.p99),
            line("p50 after", "new dashed", new, |bucket| bucket.p50),
            line("p99 after", "new", new, |bucket| bucket.p99),
        ],
        marks: marks(after),
    }
}

fn rates(record: &Record) -> Chart<'_> {
    let line = |name, class, of: fn(&super::record::Rate) -> f64| Line {
        name,
        class,
        points: record
            .rates
            .iter()
            .map(|rate| (rate.at, of(rate)))
            .collect(),
    };
    Chart {
        title: "Messages per second",
        x: "seconds",
        y: "per second",
        x_scale: Scale::Linear,
        x_to: end(record),
        y_scale: Scale::Linear,
        lines: vec![
            line("planned", "old dashed", |rate| rate.planned),
            line("accepted", "low", |rate| rate.accepted),
            line("completed", "new", |rate| rate.completed),
        ],
        marks: marks(record),
    }
}

fn under_way(record: &Record) -> Chart<'_> {
    let rates = record.rates.iter();
    let failed = record.rates.iter();
    Chart {
        title: "Under way, and failures",
        x: "seconds",
        y: "messages",
        x_scale: Scale::Linear,
        x_to: end(record),
        y_scale: Scale::Linear,
        lines: vec![
            Line {
                name: "under way",
                class: "high",
                points: rates.map(|rate| (rate.at, rate.under_way as f64)).collect(),
            },
            Line {
                name: "failed",
                class: "bad",
                points: failed.map(|rate| (rate.at, rate.failed as f64)).collect(),
            },
        ],
        marks: marks(record),
    }
}

/// Latency by percentile, of one run or of two.
fn spectrum<'a>(records: &[&'a Record]) -> Chart<'a> {
    let keys = [
        ("accept", "202"),
        ("first-text", "first text"),
        ("reply", "reply"),
    ];
    let classes = [
        ["low", "middle", "high"],
        ["low dashed", "middle dashed", "high dashed"],
    ];
    let names = match records {
        [_] => [["202", "first text", "reply"], [""; 3]],
        _ => [
            ["202 before", "first text before", "reply before"],
            ["202 after", "first text after", "reply after"],
        ],
    };
    // What was is dashed where two are shown.
    let order: &[usize] = if records.len() == 1 { &[0] } else { &[1, 0] };
    let mut lines = Vec::new();
    for (record, (names, style)) in records.iter().zip(names.iter().zip(order)) {
        for (index, (key, _)) in keys.iter().enumerate() {
            if let Some(curve) = record.curve(key) {
                lines.push(Line {
                    name: names[index],
                    class: classes[*style][index],
                    points: curve.spectrum.clone(),
                });
            }
        }
    }
    Chart {
        title: "Latency by percentile",
        x: "percentile",
        y: "ms",
        x_scale: Scale::Percentile,
        x_to: 0.0,
        y_scale: Scale::Logarithmic,
        lines,
        marks: Vec::new(),
    }
}

fn latencies(body: &mut String, curves: &[Curve]) {
    body.push_str(
        "<table><caption>Latencies in ms</caption><thead><tr><th>latency</th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr></thead><tbody>",
    );
    for curve in curves.iter().filter(|curve| curve.summary.count > 0) {
        let summary = &curve.summary;
        let _ = write!(
            body,
            "<tr><th>{}</th><td>{}</td>",
            escape(&curve.name),
            summary.count
        );
        for value in [
            summary.p50,
            summary.p90,
            summary.p99,
            summary.p999,
            summary.max,
        ] {
            let _ = write!(body, "<td>{}</td>", number(value));
        }
        body.push_str("</tr>");
    }
    body.push_str("</tbody></table>\n");
}

fn judged(body: &mut String, comparison: &Comparison) {
    body.push_str(
        "<table><caption>Both runs</caption><thead><tr><th>figure</th><th>before</th><th>after</th><th>change</th><th></th></tr></thead><tbody>",
    );
    for row in &comparison.rows {
        let (old, new) = row.values;
        let verdict = row.verdict.map_or("too few to say", Verdict::as_str);
        let class = row.verdict.map_or("", Verdict::as_str);
        let _ = write!(
            body,
            "<tr class=\"{class}\"><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{verdict}</td></tr>",
            escape(&row.name),
            number(old),
            number(new),
            row.change()
        );
    }
    body.push_str("</tbody></table>\n");
}

fn pairs(body: &mut String, caption: &str, rows: &[(String, String)]) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        body,
        "<table class=\"pairs\"><caption>{}</caption><tbody>",
        escape(caption)
    );
    for (name, value) in rows {
        let (name, value) = (escape(name), escape(value));
        let _ = write!(body, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    body.push_str("</tbody></table>\n");
}
