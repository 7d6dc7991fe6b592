//! Judging the rows against the ledger and the model's calls.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::facts::{Call, GenerationRow, MessageRow};
use super::{ENDS, Facts, Verdict};
use crate::load::{Answers, Request, Seen};
use crate::weather::Weather;

/// A worker hears of a cancellation at once, or else when it next renews its lease.
const HEARD_OF_CANCEL_US: u64 = 3_000_000;

fn has_reply(status: &str) -> bool {
    matches!(status, "completed" | "incomplete")
}

/// I1 to I4, I8, and the model's calls. `expected` is the reply that the model gives to a question.
pub(crate) fn judge(
    facts: &Facts,
    weather: &Weather,
    refused: Vec<String>,
    expected: impl Fn(&str) -> String,
) -> Vec<Verdict> {
    let rows: HashMap<Uuid, &GenerationRow> =
        facts.generations.iter().map(|row| (row.id, row)).collect();
    vec![
        ends(facts, &rows, refused),
        replies(facts),
        sources(facts),
        attempts(facts),
        order(facts, &rows, expected),
        calls(facts, &rows, weather),
    ]
}

/// I1: what was acknowledged ends in exactly one way.
fn ends(facts: &Facts, rows: &HashMap<Uuid, &GenerationRow>, refused: Vec<String>) -> Verdict {
    let mut breaches = refused;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (number, request) in facts.books.requests.iter().enumerate() {
        let [acknowledged] = request.acknowledged[..] else {
            let count = request.acknowledged.len();
            // That it was never answered has been told already.
            if count > 1 {
                breaches.push(format!(
                    "message {number} was acknowledged as {count} things"
                ));
            }
            continue;
        };
        let Some(row) = rows.get(&acknowledged.generation) else {
            breaches.push(format!(
                "message {number} was acknowledged as {}, which does not exist",
                acknowledged.generation
            ));
            continue;
        };
        if !ENDS.contains(&row.status.as_str()) {
            breaches.push(format!("message {number} ({}) is {}", row.id, row.status));
        }
        if request.cancelled && row.status != "cancelled" {
            breaches.push(format!(
                "message {number} ({}) was cancelled and is {}",
                row.id, row.status
            ));
        }
        let what = row.error.as_ref().map_or(row.status.clone(), |error| {
            format!("{} ({error})", row.status)
        });
        *counts.entry(what).or_default() += 1;
    }
    for row in facts.generations.iter().filter(|row| row.is_title) {
        if !ENDS.contains(&row.status.as_str()) {
            breaches.push(format!("the title {} is {}", row.id, row.status));
        }
    }
    let acknowledged = counts.values().sum::<usize>();
    let counts: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    Verdict {
        name: "I1",
        promise: "what is acknowledged ends once",
        counts: format!("{acknowledged} acknowledged: {}", counts.join(", ")),
        breaches,
    }
}

/// I2: one reply, and one row of usage. Of several replies to one message each but the last stays,
/// superseded by the one after it.
fn replies(facts: &Facts) -> Verdict {
    let mut breaches = Vec::new();
    let mut stored: HashMap<Option<Uuid>, Vec<&MessageRow>> = HashMap::new();
    for message in facts.messages.iter().filter(|message| message.is_reply) {
        stored.entry(message.parent).or_default().push(message);
    }
    let mut by_message: HashMap<Option<Uuid>, Vec<&GenerationRow>> = HashMap::new();
    for row in facts.generations.iter().filter(|row| !row.is_title) {
        by_message.entry(row.user_message).or_default().push(row);
        if row.reply.is_some() != has_reply(&row.status) {
            breaches.push(format!(
                "{} is {} with reply {:?}",
                row.id, row.status, row.reply
            ));
        }
        if row.usages != i64::from(has_reply(&row.status)) {
            breaches.push(format!(
                "{} is {} with {} rows of usage",
                row.id, row.status, row.usages
            ));
        }
    }
    let (mut replies, mut superseded) = (0, 0);
    for (message, rows) in &by_message {
        let found = stored.get(message).map_or(&[][..], Vec::as_slice);
        // Both in the order in which they came.
        let wanted: Vec<Uuid> = rows.iter().filter_map(|row| row.reply).collect();
        let ids: Vec<Uuid> = found.iter().map(|reply| reply.id).collect();
        if ids != wanted {
            breaches.push(format!(
                "the generations of {message:?} have the replies {wanted:?}, and stored are {ids:?}"
            ));
        }
        let next = ids.iter().skip(1).map(|id| Some(*id)).chain([None]);
        for (reply, next) in found.iter().zip(next) {
            if reply.superseded_by != next {
                breaches.push(format!(
                    "the reply {} is superseded by {:?} and not by {next:?}",
                    reply.id, reply.superseded_by
                ));
            }
        }
        replies += ids.len();
        superseded += ids.len().saturating_sub(1);
    }
    let strays = stored
        .keys()
        .filter(|message| !by_message.contains_key(*message));
    breaches.extend(strays.map(|parent| format!("a reply to {parent:?}, which nobody asked for")));
    Verdict {
        name: "I2",
        promise: "at most one reply each",
        counts: format!("{replies} replies, {superseded} of them superseded"),
        breaches,
    }
}

/// I3: nothing is made that nobody asked for, and nothing twice.
fn sources(facts: &Facts) -> Verdict {
    let mut breaches = Vec::new();
    let known: HashMap<Uuid, usize> = facts
        .books
        .requests
        .iter()
        .enumerate()
        .flat_map(|(number, request)| {
            let named = request.acknowledged.iter();
            named.map(move |named| (named.generation, number))
        })
        .collect();
    let replies: Vec<&GenerationRow> = facts
        .generations
        .iter()
        .filter(|row| !row.is_title)
        .collect();
    for row in &replies {
        if !known.contains_key(&row.id) {
            breaches.push(format!(
                "{} is {} and was acknowledged to nobody",
                row.id, row.status
            ));
        }
    }
    for (number, request) in facts.books.requests.iter().enumerate() {
        let named = request.acknowledged.first().map(|named| named.generation);
        let kept = facts.kept.get(&request.key).copied();
        if kept != named {
            breaches.push(format!(
                "message {number} was acknowledged as {named:?}, and its key stands for {kept:?}"
            ));
        }
    }
    Verdict {
        name: "I3",
        promise: "nothing without a request, one per key",
        counts: format!("{} generations, {} keys", replies.len(), facts.kept.len()),
        breaches,
    }
}

/// I4: the cap of attempts.
fn attempts(facts: &Facts) -> Verdict {
    let counted = |row: &GenerationRow| row.attempt - row.forgiven;
    let mut histogram: BTreeMap<i64, usize> = BTreeMap::new();
    let mut breaches = Vec::new();
    for row in &facts.generations {
        *histogram.entry(counted(row)).or_default() += 1;
        if counted(row) > row.max_attempts {
            breaches.push(format!("{} had {} attempts", row.id, counted(row)));
        }
        if row.error.as_deref() == Some("attempts_exhausted") && counted(row) < row.max_attempts {
            breaches.push(format!(
                "{} was given up after {} attempts",
                row.id,
                counted(row)
            ));
        }
    }
    let counts: Vec<String> = histogram
        .iter()
        .map(|(attempts, count)| format!("{count} × {attempts}"))
        .collect();
    Verdict {
        name: "I4",
        promise: "no more attempts than allowed",
        counts: format!("generations × attempts: {}", counts.join(", ")),
        breaches,
    }
}

/// I8: messages and replies stand in the order in which they were sent, and each reply is the one to
/// its own question.
fn order(
    facts: &Facts,
    rows: &HashMap<Uuid, &GenerationRow>,
    expected: impl Fn(&str) -> String,
) -> Verdict {
    let mut breaches = Vec::new();
    let messages: HashMap<Uuid, &MessageRow> = facts
        .messages
        .iter()
        .map(|message| (message.id, message))
        .collect();
    let mut conversations: BTreeMap<usize, Vec<(usize, &Request)>> = BTreeMap::new();
    for (number, request) in facts.books.requests.iter().enumerate() {
        if !request.acknowledged.is_empty() {
            let place = request.conversation;
            conversations
                .entry(place)
                .or_default()
                .push((number, request));
        }
    }
    for (place, requests) in &conversations {
        let id = facts.books.conversations[*place].id;
        let (mut last_message, mut last_reply) = (None, None);
        for (number, request) in requests {
            let acknowledged = request.acknowledged[0];
            let mut broken = |what: &str| breaches.push(format!("message {number}: {what}"));
            match messages.get(&acknowledged.message) {
                None => broken("is not stored"),
                Some(row) if row.conversation != id => broken("stands in another conversation"),
                Some(row) if row.content != request.question => broken("is another text"),
                Some(row) if row.is_reply => broken("is a reply"),
                Some(_) => {}
            }
            match request.again {
                None if last_message > Some(acknowledged.message) => {
                    broken("stands before an earlier one");
                }
                None => last_message = Some(acknowledged.message),
                Some(first) => {
                    let first = facts.books.requests[first].acknowledged.first();
                    if first.map(|first| first.message) != Some(acknowledged.message) {
                        broken("is a reply to another message");
                    }
                }
            }
            let Some(row) = rows.get(&acknowledged.generation) else {
                continue;
            };
            if row.conversation != id || row.user_message != Some(acknowledged.message) {
                broken("its generation answers another one");
            }
            let Some(reply) = row.reply.and_then(|reply| messages.get(&reply)) else {
                continue;
            };
            if reply.conversation != id {
                broken("its reply stands in another conversation");
            }
            if reply.id < acknowledged.message || last_reply > Some(reply.id) {
                broken("its reply stands before an earlier one");
            }
            if reply.content != expected(&request.question) {
                broken("its reply is another text");
            }
            last_reply = Some(reply.id);
        }
    }
    Verdict {
        name: "I8",
        promise: "order and text of every conversation",
        counts: format!(
            "{} conversations, {} messages",
            conversations.len(),
            facts.messages.len()
        ),
        breaches,
    }
}

/// The model is asked once for each attempt, unless an answer got lost, and not for what has ended.
fn calls(facts: &Facts, rows: &HashMap<Uuid, &GenerationRow>, weather: &Weather) -> Verdict {
    let mut by_number: HashMap<Option<usize>, Vec<&Call>> = HashMap::new();
    for call in &facts.calls {
        by_number.entry(call.number).or_default().push(call);
    }
    let mut breaches = Vec::new();
    let (mut repeated, mut in_vain) = (0, 0);
    for (number, calls) in &by_number {
        let request = number.and_then(|number| facts.books.requests.get(number));
        let row = request
            .and_then(|request| request.acknowledged.first())
            .and_then(|named| rows.get(&named.generation));
        let (Some(number), Some(row)) = (number, row) else {
            let count = calls.len();
            breaches.push(format!(
                "the model was asked {count} times for what nobody has sent"
            ));
            continue;
        };
        let lost = |call: &&&Call| !call.is_answered || weather.disturbed(&call.worker, call.at_us);
        let excused = calls.iter().filter(lost).count();
        let attempts = usize::try_from(row.attempt).unwrap_or(0);
        repeated += calls.len().saturating_sub(1);
        let about = request.map(|request| request.again.unwrap_or(*number));
        if calls.iter().any(|call| call.asked != about) {
            breaches.push(format!(
                "the model was shown another message for {number} ({})",
                row.id
            ));
        }
        if calls.len() > attempts + excused {
            breaches.push(format!(
                "the model was asked {} times for message {number} ({}), in {attempts} attempts",
                calls.len(),
                row.id
            ));
        }
        let grace = if row.status == "cancelled" {
            HEARD_OF_CANCEL_US
        } else {
            0
        };
        for call in calls {
            if row.finished_us.is_some_and(|end| call.at_us > end + grace) {
                in_vain += 1;
                if !weather.disturbed(&call.worker, call.at_us) {
                    breaches.push(format!(
                        "{} asked the model for message {number} ({}) after it had ended",
                        call.worker, row.id
                    ));
                }
            }
        }
    }
    Verdict {
        name: "calls",
        promise: "the model is asked again only for a reason",
        counts: format!(
            "{} calls, {repeated} of them repeated, {in_vain} for what had ended",
            facts.calls.len()
        ),
        breaches,
    }
}

/// Nobody is refused but while a replica has no database.
pub(crate) fn judge_answers(answers: &Answers, weather: &Weather) -> Verdict {
    let mut breaches = Vec::new();
    let mut excused = 0;
    for refusal in &answers.refusals {
        let ordinary = ["idempotency_in_progress", "generation_ended"]
            .iter()
            .any(|code| refusal.what.ends_with(code));
        if refusal.unavailable && weather.excuses_refusal(refusal.sent, refusal.at) {
            excused += 1;
        } else if !ordinary {
            breaches.push(refusal.what.clone());
        }
    }
    let count = |what: &str| answers.counts.get(what).copied().unwrap_or(0);
    let both = |status| {
        count(&format!("POST message: {status}")) + count(&format!("POST regenerate: {status}"))
    };
    let (accepted, waited) = (both(202), both(200));
    let lost: u64 = answers
        .counts
        .iter()
        .filter(|(what, _)| what.ends_with("no answer"))
        .map(|(_, count)| count)
        .sum();
    Verdict {
        name: "answers",
        promise: "nobody is refused but without a database",
        counts: format!(
            "{accepted} × 202, {waited} × 200, {lost} connections broken, {excused} × 503 while the database was away"
        ),
        breaches,
    }
}

/// Streams that were followed through the faults.
pub(crate) fn judge_streams(streams: &[(usize, Seen)]) -> Verdict {
    let mut breaches = Vec::new();
    for (number, seen) in streams {
        let faults = seen.faults.iter();
        breaches.extend(faults.map(|fault| format!("message {number}: {fault}")));
        if seen.end.is_none() {
            breaches.push(format!(
                "message {number}: its stream never ended, by {}, resumed {} times, the last event was {:?}",
                seen.by, seen.resumed, seen.last
            ));
        }
    }
    let resumed: u32 = streams.iter().map(|(_, seen)| seen.resumed).sum();
    Verdict {
        name: "streams",
        promise: "followed without gap, repetition or second end",
        counts: format!("{} followed, {resumed} times resumed", streams.len()),
        breaches,
    }
}
