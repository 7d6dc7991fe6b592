//! Judging what the notification service was told against the rows.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::facts::{Facts, GenerationRow, MessageRow};
use super::{ENDS, Verdict};
use crate::load::Request;
use crate::receiver::{Said, Telling};

/// What was told of one generation, in the order in which it came: places among all tellings.
type Heard<'a> = HashMap<Uuid, Vec<(usize, &'a Telling)>>;

/// Every end is told under one id, with the same bytes and by the rules, and nothing else is; of a
/// conversation in the order in which they ended, each after the one before was confirmed.
pub(crate) fn judge_told(facts: &Facts) -> Verdict {
    let mut breaches = facts.told.faults.clone();
    let mut heard: Heard<'_> = HashMap::new();
    let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, telling) in facts.told.tellings.iter().enumerate() {
        let of_generation = heard.entry(telling.generation).or_default();
        of_generation.push((place, telling));
        *answers.entry(telling.said.name()).or_default() += 1;
    }
    let judging = Judging::new(facts);
    let replies = facts.generations.iter().filter(|row| !row.is_title);
    let ended: Vec<&GenerationRow> = replies
        .filter(|row| ENDS.contains(&row.status.as_str()))
        .collect();
    for row in &ended {
        let tellings = heard.get(&row.id).map_or(&[][..], Vec::as_slice);
        breaches.extend(judging.one(row, tellings));
    }
    breaches.extend(strangers(&heard, &ended));
    breaches.extend(order(&heard, &ended));
    if facts.untold > 0 {
        breaches.push(format!("{} notifications are left", facts.untold));
    }
    let answers: Vec<String> = answers
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    Verdict {
        name: "told",
        promise: "every end under one id, in order, nothing else",
        counts: format!(
            "{} ends, {} told, {} tellings: {}",
            ended.len(),
            heard.len(),
            facts.told.tellings.len(),
            answers.join(", ")
        ),
        breaches,
    }
}

/// What tellings are held against.
struct Judging<'a> {
    requests: HashMap<Uuid, &'a Request>,
    messages: HashMap<Uuid, &'a MessageRow>,
}

impl<'a> Judging<'a> {
    fn new(facts: &'a Facts) -> Self {
        let requests = facts.books.requests.iter().flat_map(|request| {
            let named = request.acknowledged.iter();
            named.map(move |named| (named.generation, request))
        });
        let messages = facts.messages.iter();
        Self {
            requests: requests.collect(),
            messages: messages.map(|message| (message.id, message)).collect(),
        }
    }

    /// What is wrong with what was told of one generation.
    fn one(&self, row: &GenerationRow, tellings: &[(usize, &Telling)]) -> Vec<String> {
        let Some((_, first)) = tellings.first() else {
            return vec![format!("{} is {} and was not told", row.id, row.status)];
        };
        let mut breaches = Vec::new();
        let mut broken = |what: &str| breaches.push(format!("{} ({}) {what}", row.id, row.status));
        if tellings.iter().any(|(_, telling)| telling.id != first.id) {
            broken("was told under two ids");
        }
        if tellings.iter().all(|(_, told)| told.said != Said::Fine) {
            broken("was never confirmed");
        }
        if row.finished_us.is_none_or(|end| first.at_us < end) {
            broken("was told before it ended");
        }
        if (first.user, first.conversation) != (row.user, row.conversation) {
            broken("was told of somebody else, or of another conversation");
        }
        let request = self.requests.get(&row.id);
        if first.request_id.as_ref() != request.map(|request| &request.key) {
            broken("was told with another request's id");
        }
        let made = match request.and_then(|request| request.again) {
            Some(_) => "regenerate",
            None => "reply",
        };
        if first.made != made || first.message != row.user_message {
            broken("was told as another kind, or of another message");
        }
        let kind = match row.status.as_str() {
            "failed" => "chat.generation.failed",
            "cancelled" => "chat.generation.cancelled",
            _ => "chat.generation.completed",
        };
        if first.kind != kind || first.status != row.status || first.error != row.error {
            broken("was told with another end");
        }
        let reply = row.reply.and_then(|reply| self.messages.get(&reply));
        let stored = reply.map(|reply| (reply.id, &reply.content));
        let told = first.reply.as_ref().map(|reply| (reply.id, &reply.content));
        if stored != told {
            broken("was told with another reply");
        }
        breaches
    }
}

/// Those that were told and have not ended, or do not exist, or are not told of.
fn strangers(heard: &Heard<'_>, ended: &[&GenerationRow]) -> Vec<String> {
    let known: HashMap<Uuid, &str> = ended
        .iter()
        .map(|row| (row.id, row.status.as_str()))
        .collect();
    let strangers = heard.keys().filter(|id| !known.contains_key(*id));
    strangers
        .map(|id| format!("{id} was told, and is nothing that has ended"))
        .collect()
}

/// Of two that ended at the same time nobody knows which was first: one did so before another only if
/// it was committed before the other's end.
fn order(heard: &Heard<'_>, ended: &[&GenerationRow]) -> Vec<String> {
    let mut conversations: HashMap<Uuid, Vec<(&GenerationRow, usize, usize)>> = HashMap::new();
    for row in ended {
        let tellings = heard.get(&row.id).map_or(&[][..], Vec::as_slice);
        let confirmed = tellings.iter().find(|(_, told)| told.said == Said::Fine);
        if let (Some((first, _)), Some((confirmed, _))) = (tellings.first(), confirmed) {
            let of_conversation = conversations.entry(row.conversation).or_default();
            of_conversation.push((row, *first, *confirmed));
        }
    }
    let mut breaches = Vec::new();
    for told in conversations.values_mut() {
        told.sort_by_key(|(_, first, _)| *first);
        for (place, (row, first, _)) in told.iter().enumerate() {
            let before = &told[..place];
            if before.iter().any(|(_, _, confirmed)| confirmed > first) {
                breaches.push(format!(
                    "{} was told before an earlier one was confirmed",
                    row.id
                ));
            }
            let overtook = before
                .iter()
                .find(|(other, ..)| row.changed_us.is_some() && row.changed_us < other.finished_us);
            if let Some((other, ..)) = overtook {
                breaches.push(format!(
                    "{} was told after {}, which ended later",
                    row.id, other.id
                ));
            }
        }
    }
    breaches
}
