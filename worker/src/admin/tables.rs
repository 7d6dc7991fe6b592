//! Tables for people: one line per thing, numbers to the right, times as one would say them.

use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle};
use shared::domain::{DeadLetter, DeadLetterCount, FleetWorker, Queue, timestamp};
use shared::upstreams::Upstreams;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::pacing::{OpenBreaker, State};

/// A line under the heads and nothing else, so that every line can be cut out of a terminal.
const PLAIN: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::new(' ', ' ', ' '))
    .header_separator(LineStyle::new('─', '─', '─', '─'))
    .content_lines(ContentLineStyle::new(' ', ' ', ' '));
/// Of a message for the log, the table shows so many characters.
const LAST_ERROR: usize = 70;
/// What is not known, or does not apply.
pub(super) const NOTHING: &str = "-";

pub(super) fn queues(queues: &[Queue], now: OffsetDateTime) -> String {
    let mut table = table(
        &[
            "QUEUE",
            "DEPTH",
            "PARKED",
            "OLDEST",
            "IN FLIGHT",
            "RATE/S",
            "ETA",
            "STATE",
        ],
        1..7,
    );
    for queue in queues {
        table.add_row([
            queue.name.to_string(),
            queue.depth.to_string(),
            queue.parked.to_string(),
            queue.oldest_wait_seconds.map_or(NOTHING.to_owned(), span),
            queue.in_flight.to_string(),
            rate(queue.rate_per_second),
            queue.eta_seconds.map_or(NOTHING.to_owned(), span),
            state(queue, now),
        ]);
    }
    table.trim_fmt()
}

fn state(queue: &Queue, now: OffsetDateTime) -> String {
    let (Some(at), Some(by)) = (queue.paused_at, &queue.paused_by) else {
        return "open".to_owned();
    };
    let since = span((now - at).as_seconds_f64());
    match &queue.reason {
        Some(reason) => format!("paused for {since} by {by}: {}", one_line(reason, 100)),
        None => format!("paused for {since} by {by}"),
    }
}

pub(super) fn workers(workers: &[FleetWorker]) -> String {
    if workers.is_empty() {
        return "no worker was heard of in the last day".to_owned();
    }
    let heads = [
        "WORKER",
        "BOOT",
        "STATUS",
        "VERSION",
        "UP",
        "SEEN",
        "JOBS",
        "RATE/S",
        "LEASES",
        "NEXT EXPIRY",
    ];
    let mut table = table(&heads, 4..10);
    for worker in workers {
        let leases = match worker.leases_overdue {
            0 => worker.leases.to_string(),
            overdue => format!("{}, {overdue} overdue", worker.leases),
        };
        table.add_row([
            worker.name.clone(),
            worker.boot.to_string().chars().take(8).collect(),
            worker.status.to_string(),
            worker.version.clone(),
            span(worker.age_seconds as f64),
            format!("{} ago", span(worker.last_seen_seconds)),
            format!("{}/{}", worker.in_flight, worker.concurrency),
            rate(worker.rate_per_second),
            leases,
            worker
                .lease_expires_in_seconds
                .map_or(NOTHING.to_owned(), span),
        ]);
    }
    table.trim_fmt()
}

/// One table below the other; what there is nothing of is left out.
pub(super) fn upstreams(known: &Upstreams) -> String {
    if known.workers == 0 {
        return "no worker has told of it".to_owned();
    }
    let seconds = |seconds: f64| {
        if seconds > 0.0 {
            span(seconds)
        } else {
            NOTHING.to_owned()
        }
    };
    let number = |number: Option<u64>| number.map_or(NOTHING.to_owned(), |n| n.to_string());
    let mut buckets = table(
        &[
            "ACCOUNT",
            "MODELS",
            "A MINUTE",
            "NEXT CALL IN",
            "WAITING",
            "CLOSED FOR",
            "LEFT TODAY",
        ],
        2..7,
    );
    for bucket in &known.buckets {
        buckets.add_row([
            bucket.account.clone(),
            bucket.models.clone(),
            number(bucket.calls_per_minute.map(u64::from)),
            seconds(bucket.next_call_seconds),
            bucket.waiting.to_string(),
            seconds(bucket.closed_seconds),
            number(bucket.left_today),
        ]);
    }
    let mut keys = table(&["KEY", "WORKER", "RESTS FOR", "FOR PAID MODELS"], 2..4);
    for key in &known.keys {
        keys.add_row([
            key.label.clone(),
            key.worker.clone(),
            seconds(key.rests_seconds),
            seconds(key.rests_for_paid_seconds),
        ]);
    }
    let mut breakers = table(&["MODEL", "ERROR", "STATE", "TRIED IN"], 3..4);
    for breaker in &known.breakers {
        breakers.add_row([
            breaker.model.clone(),
            breaker.error.clone(),
            breaker.state.replace('_', " "),
            seconds(breaker.seconds_left),
        ]);
    }
    let mut parts = vec![buckets.trim_fmt(), keys.trim_fmt()];
    if known.breakers.is_empty() {
        parts.push("all models are called".to_owned());
    } else {
        parts.push(breakers.trim_fmt());
    }
    if let Some(credits) = &known.credits {
        let at = timestamp::format(credits.read_at);
        parts.push(format!("{} credits are left, as of {at}", credits.left));
    }
    parts.join("\n\n")
}

pub(super) fn breakers(breakers: &[OpenBreaker]) -> String {
    if breakers.is_empty() {
        return "all models are called".to_owned();
    }
    let mut table = table(&["MODEL", "ERROR", "STATE", "TRIED IN"], 3..4);
    for breaker in breakers {
        let (state, tried) = match breaker.state {
            State::Open => ("open", span(breaker.seconds_left)),
            State::HalfOpen | State::Closed => ("half open", NOTHING.to_owned()),
        };
        table.add_row([
            breaker.model.clone(),
            breaker.error.to_string(),
            state.to_owned(),
            tried,
        ]);
    }
    table.trim_fmt()
}

pub(super) fn dead_letters(
    letters: &[DeadLetter],
    has_more: bool,
    counts: &[DeadLetterCount],
) -> String {
    let all: i64 = counts.iter().map(|count| count.count).sum();
    let by_reason: Vec<String> = counts
        .iter()
        .map(|count| format!("{} {}", count.count, count.error_code))
        .collect();
    let summary = match all {
        0 => "no dead letters".to_owned(),
        all => format!("{all} in all: {}", by_reason.join(", ")),
    };
    if letters.is_empty() {
        return summary;
    }
    let heads = [
        "DEAD LETTER",
        "AGE",
        "TRIES",
        "KIND",
        "QUEUE",
        "REASON",
        "MODEL",
        "USER",
        "LAST ERROR",
    ];
    let mut table = table(&heads, 1..3);
    for letter in letters {
        table.add_row([
            letter.id.to_string(),
            span(letter.age_seconds as f64),
            letter.attempts.to_string(),
            letter.kind.to_string(),
            letter.queue.to_string(),
            letter.error.code.to_string(),
            letter.models.first().cloned().unwrap_or_default(),
            letter.user_id.to_string(),
            one_line(letter.last_error.as_deref().unwrap_or(NOTHING), LAST_ERROR),
        ]);
    }
    let more = match letters.last() {
        Some(last) if has_more => format!(
            "\nmore with --before {} (accepted {})",
            last.id,
            timestamp::format(last.queued_at)
        ),
        _ => String::new(),
    };
    format!("{}\n\n{summary}{more}", table.trim_fmt())
}

pub(super) fn settled(
    settled: &[(Uuid, Option<Uuid>)],
    refused: &[(Uuid, &'static str)],
    done: &str,
) -> String {
    let mut table = table(&["DEAD LETTER", "OUTCOME"], 0..0);
    for (letter, generation) in settled {
        let outcome = match generation {
            Some(generation) => format!("{done} as {generation}"),
            None => done.to_owned(),
        };
        table.add_row([letter.to_string(), outcome]);
    }
    for (letter, why) in refused {
        table.add_row([letter.to_string(), format!("left alone: {why}")]);
    }
    let summary = format!("{done} {}, left alone {}", settled.len(), refused.len());
    match settled.len() + refused.len() {
        0 => summary,
        _ => format!("{}\n\n{summary}", table.trim_fmt()),
    }
}

pub(super) fn table(heads: &[&str], numbers: std::ops::Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_style(PLAIN).set_header(heads.to_vec());
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.2}"),
        rate => format!("{rate:.0}"),
    }
}

/// Seconds in the two largest units that say something.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 0.0 {
        return format!("-{}", span(-seconds));
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {}m", minutes % 60),
        (days, hours, _) => format!("{days}d {}h", hours % 24),
    }
}

/// No line breaks, no control characters, and not too long.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.chars().take(most).map(plain).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use shared::domain::{FailureCode, GenerationError, GenerationKind, Priority, WorkerStatus};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    fn queue(name: Priority) -> Queue {
        Queue {
            name,
            depth: 0,
            parked: 0,
            oldest_wait_seconds: None,
            in_flight: 0,
            rate_per_second: 0.0,
            eta_seconds: None,
            paused: false,
            paused_at: None,
            paused_by: None,
            reason: None,
        }
    }

    #[test]
    fn spans_are_said_in_the_two_units_that_matter() {
        for (seconds, said) in [
            (0.0, "0.0s"),
            (9.94, "9.9s"),
            (9.96, "10s"),
            (59.4, "59s"),
            (59.6, "1m 0s"),
            (3_599.0, "59m 59s"),
            (3_600.0, "1h 0m"),
            (86_399.0, "23h 59m"),
            (90_000.0, "1d 1h"),
            (-5.25, "-5.2s"),
        ] {
            assert_eq!(span(seconds), said, "{seconds}");
        }
    }

    #[test]
    fn queues_are_one_line_each() {
        let busy = Queue {
            depth: 12_345,
            parked: 830,
            oldest_wait_seconds: Some(192.0),
            in_flight: 640,
            rate_per_second: 61.25,
            eta_seconds: Some(201.5),
            ..queue(Priority::Standard)
        };
        let paused = Queue {
            depth: 7,
            oldest_wait_seconds: Some(4_000.0),
            paused: true,
            paused_at: Some(NOW - time::Duration::minutes(65)),
            paused_by: Some("terminal of ana".to_owned()),
            reason: Some("the upstream\nis down".to_owned()),
            ..queue(Priority::Background)
        };
        let shown = queues(&[queue(Priority::Premium), busy, paused], NOW);
        let lines: Vec<&str> = shown.lines().filter(|line| !line.contains('─')).collect();
        let expected = [
            "  QUEUE        DEPTH   PARKED   OLDEST   IN FLIGHT   RATE/S      ETA   STATE",
            "  premium          0        0        -           0        0        -   open",
            "  standard     12345      830   3m 12s         640       61   3m 22s   open",
            "  background       7        0    1h 6m           0        0        -   paused for 1h 5m by terminal of ana: the upstream is down",
        ];
        assert_eq!(lines, expected, "{shown}");
    }

    #[test]
    fn a_worker_in_trouble_shows() {
        let worker = FleetWorker {
            name: "worker-1".to_owned(),
            boot: Uuid::from_u128(0x1234_5678 << 96),
            version: "0.1.0".to_owned(),
            status: WorkerStatus::Lost,
            started_at: NOW,
            age_seconds: 7_260,
            last_seen_at: NOW,
            last_seen_seconds: 41.0,
            concurrency: 64,
            in_flight: 5,
            leases: 5,
            leases_overdue: 2,
            lease_expires_in_seconds: Some(-11.0),
            rate_per_second: 0.5,
        };
        let shown = workers(&[worker]);
        let line = shown.lines().last().unwrap();
        for part in [
            "worker-1",
            "12345678",
            "lost",
            "0.1.0",
            "2h 1m",
            "41s ago",
            "5/64",
            "0.50",
            "5, 2 overdue",
            "-11s",
        ] {
            assert!(line.contains(part), "{part} is missing in\n{shown}");
        }
        assert_eq!(workers(&[]), "no worker was heard of in the last day");
    }

    #[test]
    fn dead_letters_come_with_their_sum_and_the_way_to_the_rest() {
        let code = FailureCode::UpstreamExhausted;
        let letter = DeadLetter {
            id: Uuid::from_u128(1),
            user_id: Uuid::from_u128(2),
            conversation_id: Uuid::from_u128(3),
            kind: GenerationKind::Reply,
            queue: Priority::Premium,
            models: vec!["a/b".to_owned(), "c/d".to_owned()],
            attempts: 5,
            error: GenerationError::from(code),
            last_error: Some(format!("\u{1b}[31mno\nanswer {}", "x".repeat(100))),
            worker: None,
            request_id: None,
            queued_at: NOW,
            failed_at: NOW,
            age_seconds: 61,
        };
        let counts = [DeadLetterCount {
            error_code: code,
            count: 2,
        }];
        let shown = dead_letters(&[letter], true, &counts);
        assert!(shown.contains("1m 1s") && shown.contains("a/b"), "{shown}");
        assert!(
            shown.contains(" [31mno answer xxx") && shown.contains("xx…"),
            "{shown}"
        );
        assert!(
            !shown.contains('\u{1b}'),
            "a log's line must not steer a terminal"
        );
        let end = "\n\n2 in all: 2 upstream_exhausted\nmore with --before 00000000-0000-0000-0000-000000000001 (accepted 2026-11-22T12:00:00.000Z)";
        assert!(shown.ends_with(end), "{shown}");
        assert_eq!(dead_letters(&[], false, &[]), "no dead letters");
    }
}
