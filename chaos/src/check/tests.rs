//! Each promise, broken on purpose in rows that are otherwise as they should be.

use loadtest::clock::unix_micros;
use tokio::time::Instant;
use uuid::Uuid;

use super::facts::{Call, GenerationRow, MessageRow};
use super::*;
use crate::fault::Fault;
use crate::load::{Acknowledged, Answers, Conversation, Refusal, Request, Seen};
use crate::receiver::{Reply, Said, Telling};
use crate::weather::Weather;

const MINE: Uuid = Uuid::from_u128(1);
const USER: Uuid = Uuid::from_u128(3);
const OTHER: Uuid = Uuid::from_u128(2);

fn question(number: usize) -> String {
    format!("Message #{number} of conversation 0: what?")
}

fn answer(question: &str) -> String {
    format!("You asked: {question}")
}

/// Ids of the message, the generation and the reply of a request.
fn ids(number: usize) -> (Uuid, Uuid, Uuid) {
    let id = |place: usize| Uuid::from_u128(((number + 1) * 100 + place) as u128);
    (id(1), id(2), id(3))
}

fn call(number: usize) -> Call {
    Call {
        number: Some(number),
        asked: Some(number),
        worker: "worker-1".to_owned(),
        at_us: 1_000_000,
        is_answered: true,
    }
}

/// Three messages of one conversation, answered one after the other.
fn sound() -> Facts {
    let mut facts = Facts::default();
    for id in [MINE, OTHER] {
        facts.books.conversations.push(Conversation {
            id,
            authorization: "token".into(),
        });
    }
    for number in 0..3 {
        let (message, generation, reply) = ids(number);
        let key = format!("key-{number}");
        facts.kept.insert(key.clone(), generation);
        facts.books.requests.push(Request {
            conversation: 0,
            key,
            question: question(number),
            again: None,
            acknowledged: vec![Acknowledged {
                generation,
                message,
            }],
            cancelled: false,
        });
        facts.generations.push(GenerationRow {
            id: generation,
            user: USER,
            conversation: MINE,
            is_title: false,
            status: "completed".to_owned(),
            attempt: 1,
            forgiven: 0,
            max_attempts: 5,
            user_message: Some(message),
            reply: Some(reply),
            error: None,
            finished_us: Some(2_000_000 + 10 * number as u64),
            changed_us: Some(2_000_005 + 10 * number as u64),
            usages: 1,
        });
        facts.messages.push(MessageRow {
            id: message,
            conversation: MINE,
            is_reply: false,
            parent: None,
            superseded_by: None,
            content: question(number),
        });
        facts.messages.push(MessageRow {
            id: reply,
            conversation: MINE,
            is_reply: true,
            parent: Some(message),
            superseded_by: None,
            content: answer(&question(number)),
        });
        facts.calls.push(call(number));
        facts.told.tellings.push(telling(number));
    }
    facts
}

/// What is told of the end of a request.
fn telling(number: usize) -> Telling {
    let (message, generation, reply) = ids(number);
    Telling {
        id: Uuid::from_u128(1_000 + number as u128),
        generation,
        conversation: MINE,
        user: USER,
        kind: "chat.generation.completed".to_owned(),
        status: "completed".to_owned(),
        made: "reply".to_owned(),
        message: Some(message),
        reply: Some(Reply {
            id: reply,
            content: answer(&question(number)),
        }),
        error: None,
        request_id: Some(format!("key-{number}")),
        at_us: 3_000_000,
        said: Said::Fine,
    }
}

/// A fourth request: another reply to the first message.
fn regenerate(facts: &mut Facts) {
    let (message, (_, generation, reply)) = (ids(0).0, ids(3));
    facts.kept.insert("key-3".to_owned(), generation);
    let mut request = facts.books.requests[0].clone();
    (request.key, request.again) = ("key-3".to_owned(), Some(0));
    request.acknowledged[0].generation = generation;
    facts.books.requests.push(request);
    let mut row = facts.generations[0].clone();
    (row.id, row.reply) = (generation, Some(reply));
    (row.finished_us, row.changed_us) = (Some(2_000_100), Some(2_000_105));
    facts.generations.push(row);
    facts.messages[1].superseded_by = Some(reply);
    let mut stored = facts.messages[1].clone();
    (stored.id, stored.superseded_by) = (reply, None);
    facts.messages.push(stored);
    let mut call = call(0);
    call.number = Some(3);
    facts.calls.push(call);
    let mut told = telling(3);
    (told.message, told.made) = (Some(message), "regenerate".to_owned());
    told.reply = Some(Reply {
        id: reply,
        content: answer(&question(0)),
    });
    facts.told.tellings.push(told);
}

/// The names of the promises that are broken.
fn broken_in(facts: &Facts, weather: &Weather) -> Vec<&'static str> {
    let verdicts = judge(facts, weather, Vec::new(), answer).into_iter();
    verdicts
        .filter(|verdict| !verdict.breaches.is_empty())
        .map(|verdict| verdict.name)
        .collect()
}

/// What breaks when the rows are changed like this.
fn broken(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
    let mut facts = sound();
    change(&mut facts);
    broken_in(&facts, &Weather::default())
}

#[test]
fn sound_rows_break_nothing() {
    assert_eq!(broken(|_| {}), Vec::<&str>::new());
}

#[test]
fn another_reply_to_the_same_message_breaks_nothing() {
    assert_eq!(broken(regenerate), Vec::<&str>::new());
    assert_eq!(mistold(regenerate), Vec::<String>::new());
}

/// What is wrong with what was told when the facts are changed like this.
fn mistold(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = sound();
    change(&mut facts);
    judge_told(&facts).breaches
}

/// What breaks when there are two replies to one message and the rows are changed like this.
fn broken_again(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
    broken(|facts| {
        regenerate(facts);
        change(facts);
    })
}

#[test]
fn a_reply_that_is_made_anew_keeps_the_promises_of_any_other() {
    let gone = broken_again(|facts| facts.messages.retain(|row| row.id != ids(0).2));
    assert_eq!(gone, ["I2"]);
    let unmarked = broken_again(|facts| facts.messages[1].superseded_by = None);
    assert_eq!(unmarked, ["I2"]);
    let marked = broken_again(|facts| facts.messages[6].superseded_by = Some(OTHER));
    assert_eq!(marked, ["I2"]);
    let twice = broken_again(|facts| {
        let mut reply = facts.messages[6].clone();
        reply.id = Uuid::from_u128(404);
        facts.messages.push(reply);
    });
    assert_eq!(twice, ["I2"]);
    let late = Uuid::from_u128(102);
    let before = broken_again(|facts| {
        (facts.messages[6].id, facts.generations[3].reply) = (late, Some(late));
    });
    assert_eq!(before, ["I2", "I8"]);
    let other = broken_again(|facts| facts.books.requests[3].again = Some(1));
    assert_eq!(other, ["I8", "calls"]);
    let unasked = broken_again(|facts| facts.calls[3].asked = Some(2));
    assert_eq!(unasked, ["calls"]);
}

#[test]
fn what_is_told_otherwise_than_it_ended_is_a_breach() {
    let changes: [fn(&mut Facts); 14] = [
        |facts| drop(facts.told.tellings.remove(1)),
        |facts| facts.told.tellings[1].said = Said::Half,
        |facts| facts.told.tellings[1].kind = "chat.generation.failed".to_owned(),
        |facts| facts.told.tellings[1].status = "incomplete".to_owned(),
        |facts| facts.told.tellings[1].error = Some("expired".to_owned()),
        |facts| facts.told.tellings[1].user = OTHER,
        |facts| facts.told.tellings[1].conversation = OTHER,
        |facts| facts.told.tellings[1].message = None,
        |facts| facts.told.tellings[1].made = "regenerate".to_owned(),
        |facts| facts.told.tellings[1].request_id = None,
        |facts| facts.told.tellings[1].reply = None,
        |facts| facts.told.tellings[1].at_us = 2_000_009,
        |facts| facts.told.faults.push("forged".to_owned()),
        |facts| facts.untold = 1,
    ];
    for (place, change) in changes.into_iter().enumerate() {
        assert_eq!(mistold(change).len(), 1, "change {place}");
    }
    let stranger = |facts: &mut Facts| {
        let mut stranger = telling(1);
        (stranger.generation, stranger.id) = (OTHER, OTHER);
        facts.told.tellings.push(stranger);
    };
    assert_eq!(mistold(stranger).len(), 1);
    let second_id = |facts: &mut Facts| {
        let mut second = telling(2);
        second.id = OTHER;
        facts.told.tellings.push(second);
    };
    assert_eq!(mistold(second_id).len(), 1);
    let again = |facts: &mut Facts| facts.told.tellings.push(telling(0));
    assert_eq!(mistold(again), Vec::<String>::new());
}

#[test]
fn what_is_told_out_of_order_is_a_breach() {
    assert_eq!(mistold(|facts| facts.told.tellings.swap(1, 2)).len(), 1);
    let together = mistold(|facts| {
        facts.told.tellings.swap(1, 2);
        // Nobody knows which of them was first.
        facts.generations[1].changed_us = Some(2_000_020);
    });
    assert_eq!(together, Vec::<String>::new());
    let unconfirmed = mistold(|facts| {
        facts.told.tellings[1].said = Said::Half;
        facts.told.tellings.push(telling(1));
    });
    assert_eq!(unconfirmed.len(), 1);
    let confirmed = mistold(|facts| {
        let mut first = telling(1);
        first.said = Said::Half;
        facts.told.tellings.insert(1, first);
    });
    assert_eq!(confirmed, Vec::<String>::new());
}

#[test]
fn what_is_lost_or_never_ends_breaks_i1() {
    let lost = broken(|facts| {
        facts.generations.remove(1);
        facts.messages.retain(|row| row.id != ids(1).2);
        facts.calls.remove(1);
    });
    assert_eq!(lost, ["I1"]);
    let unfinished = broken(|facts| {
        facts.generations[2].status = "in_progress".to_owned();
        facts.generations[2].reply = None;
        facts.generations[2].usages = 0;
        facts.messages.pop();
    });
    assert_eq!(unfinished, ["I1"]);
    let title = broken(|facts| {
        let mut title = facts.generations[0].clone();
        (title.id, title.is_title) = (Uuid::from_u128(9), true);
        title.status = "queued".to_owned();
        facts.generations.push(title);
    });
    assert_eq!(title, ["I1"]);
    assert_eq!(
        broken(|facts| facts.books.requests[0].cancelled = true),
        ["I1"]
    );
    let refused = judge(&sound(), &Weather::default(), vec!["x".to_owned()], answer);
    assert_eq!(refused[0].breaches, ["x"]);
}

#[test]
fn a_key_that_stands_for_two_things_breaks_i1_and_i3() {
    let twice = broken(|facts| {
        let other = Acknowledged {
            generation: ids(2).1,
            message: ids(2).0,
        };
        facts.books.requests[1].acknowledged.push(other);
        facts.kept.insert("key-1".to_owned(), ids(2).1);
    });
    assert_eq!(twice, ["I1", "I3"]);
}

#[test]
fn a_second_reply_or_usage_breaks_i2() {
    let second = broken(|facts| {
        let mut reply = facts.messages[1].clone();
        reply.id = Uuid::from_u128(150);
        facts.messages.push(reply);
    });
    assert_eq!(second, ["I2"]);
    assert_eq!(broken(|facts| facts.generations[0].usages = 2), ["I2"]);
    assert_eq!(broken(|facts| facts.generations[0].usages = 0), ["I2"]);
    let stray = broken(|facts| {
        let mut reply = facts.messages[1].clone();
        (reply.id, reply.parent) = (Uuid::from_u128(150), Some(Uuid::from_u128(5)));
        facts.messages.push(reply);
    });
    assert_eq!(stray, ["I2"]);
    let none = broken(|facts| facts.messages.retain(|row| row.id != ids(1).2));
    assert_eq!(none, ["I2"]);
}

#[test]
fn a_generation_that_nobody_was_told_of_breaks_i3() {
    let unasked = broken(|facts| {
        let mut row = facts.generations[0].clone();
        row.id = Uuid::from_u128(7);
        (row.status, row.reply, row.usages) = ("cancelled".to_owned(), None, 0);
        row.user_message = Some(Uuid::from_u128(8));
        facts.generations.push(row);
    });
    assert_eq!(unasked, ["I3"]);
    let forgotten = broken(|facts| {
        facts.kept.remove("key-2");
    });
    assert_eq!(forgotten, ["I3"]);
}

#[test]
fn attempts_beyond_the_cap_and_giving_up_below_it_break_i4() {
    assert_eq!(broken(|facts| facts.generations[0].attempt = 6), ["I4"]);
    let forgiven = broken(|facts| {
        (facts.generations[0].attempt, facts.generations[0].forgiven) = (8, 3);
    });
    assert_eq!(forgiven, Vec::<&str>::new());
    let early = broken(|facts| {
        facts.generations[0].error = Some("attempts_exhausted".to_owned());
    });
    assert_eq!(early, ["I4"]);
}

#[test]
fn another_order_or_text_breaks_i8() {
    for change in [
        |facts: &mut Facts| facts.messages[1].content.push('x'),
        |facts: &mut Facts| facts.messages[0].content.push('x'),
        |facts: &mut Facts| facts.messages[1].conversation = OTHER,
        |facts: &mut Facts| facts.messages[0].conversation = OTHER,
        |facts: &mut Facts| facts.books.requests.swap(0, 1),
        |facts: &mut Facts| {
            // The first reply is stored after the second one.
            let late = Uuid::from_u128(250);
            (facts.messages[1].id, facts.generations[0].reply) = (late, Some(late));
        },
    ] {
        let mut facts = sound();
        change(&mut facts);
        // The numbers in the calls' questions do not follow the swapped requests; that is all the same.
        assert!(
            broken_in(&facts, &Weather::default()).contains(&"I8"),
            "{facts:?}"
        );
    }
}

#[test]
fn a_call_without_a_reason_is_a_breach() {
    let twice = |facts: &mut Facts| facts.calls.push(call(0));
    assert_eq!(broken(twice), ["calls"]);
    let attempts = broken(|facts| {
        twice(facts);
        facts.generations[0].attempt = 2;
    });
    assert_eq!(attempts, Vec::<&str>::new());
    let failed = broken(|facts| {
        twice(facts);
        facts.calls[0].is_answered = false;
    });
    assert_eq!(failed, Vec::<&str>::new());
    let late = |facts: &mut Facts| facts.calls[0].at_us = 2_000_001;
    assert_eq!(broken(late), ["calls"]);
    assert_eq!(broken(|facts| facts.calls[0].number = Some(77)), ["calls"]);
}

#[test]
fn a_worker_that_was_frozen_may_ask_in_vain() {
    let mut facts = sound();
    facts.calls[0].at_us = unix_micros() + 1_000_000;
    let weather = Weather::default();
    assert_eq!(broken_in(&facts, &weather), ["calls"]);
    weather.begin(Fault::WorkerFreeze);
    weather.about("worker-1");
    assert_eq!(broken_in(&facts, &weather), Vec::<&str>::new());
    weather.about("worker-2");
    assert_eq!(broken_in(&facts, &weather), ["calls"]);
}

#[test]
fn who_is_refused_with_the_database_there_was_wronged() {
    let weather = Weather::default();
    let refusal = |what: &str, unavailable| Refusal {
        sent: Instant::now(),
        at: Instant::now(),
        what: what.to_owned(),
        unavailable,
    };
    let breaches = |refusals: Vec<Refusal>| {
        let answers = Answers {
            refusals,
            ..Answers::default()
        };
        judge_answers(&answers, &weather).breaches.len()
    };
    let repeated = refusal("POST message: 409 idempotency_in_progress", false);
    assert_eq!(breaches(vec![repeated]), 0);
    let unavailable = || refusal("POST message: 503 unavailable", true);
    assert_eq!(breaches(vec![unavailable()]), 1);
    weather.begin(Fault::RedisDown);
    assert_eq!(breaches(vec![unavailable()]), 1);
    weather.begin(Fault::PostgresDown);
    assert_eq!(breaches(vec![unavailable()]), 0);
    assert_eq!(
        breaches(vec![refusal("POST message: 500 internal", false)]),
        1
    );
}

#[test]
fn a_stream_with_a_fault_or_without_an_end_is_a_breach() {
    let ended = Seen {
        end: Some(("generation.completed".to_owned(), None)),
        ..Seen::default()
    };
    assert!(judge_streams(&[(1, ended.clone())]).breaches.is_empty());
    let gap = Seen {
        faults: vec!["a gap".to_owned()],
        ..ended
    };
    let verdict = judge_streams(&[(1, gap), (2, Seen::default())]);
    assert_eq!(verdict.breaches.len(), 2);
}
