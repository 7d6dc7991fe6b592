//! Judging what clients can read in the end, through the API.

use std::collections::HashMap;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Facts, Verdict};
use crate::load::{Conversation, Load, Seen, follow_again};

/// Messages on a page, the most there may be.
const PAGE: usize = 200;
/// Event logs that are read once more.
const LOGS: usize = 200;
const AT_ONCE: usize = 8;

/// The `most` longest conversations, read through the API, are those in the tables: same messages, same order.
pub(crate) async fn judge_reading(load: &Arc<Load>, facts: &Facts, most: usize) -> Verdict {
    let mut breaches = Vec::new();
    let mut read = 0;
    let mut sizes = HashMap::new();
    for message in &facts.messages {
        *sizes.entry(message.conversation).or_insert(0) += 1;
    }
    let mut conversations: Vec<&Conversation> = facts.books.conversations.iter().collect();
    conversations.sort_by_key(|one| std::cmp::Reverse(sizes.get(&one.id).copied().unwrap_or(0)));
    conversations.truncate(most);
    for conversation in &conversations {
        let stored: Vec<String> = facts
            .messages
            .iter()
            .filter(|message| message.conversation == conversation.id)
            .map(|message| message.id.to_string())
            .collect();
        match pages(load, conversation).await {
            Ok(shown) if shown == stored => {}
            Ok(shown) => breaches.push(format!(
                "conversation {} shows {} messages and has {}, or in another order",
                conversation.id,
                shown.len(),
                stored.len()
            )),
            Err(what) => breaches.push(format!("conversation {}: {what}", conversation.id)),
        }
        read += stored.len();
    }
    Verdict {
        name: "reading",
        promise: "the API shows what is stored",
        counts: format!("{} conversations, {read} messages", conversations.len()),
        breaches,
    }
}

/// The ids of all messages, page by page.
async fn pages(load: &Load, conversation: &Conversation) -> Result<Vec<String>, String> {
    let mut ids: Vec<String> = Vec::new();
    loop {
        let mut path = format!(
            "/api/chat/conversations/{}/messages?limit={PAGE}",
            conversation.id
        );
        // Everything is after the conversation's own id.
        let after = ids.last().map_or(conversation.id.to_string(), Clone::clone);
        path.push_str(&format!("&after_id={after}"));
        let api = &load.api;
        let request = api.request(api.turn(), Method::GET, &path, &conversation.authorization);
        let answer = api.once("GET messages", request).await;
        let answer = answer.ok_or("was not answered")?;
        if answer.status != StatusCode::OK {
            return Err(format!("answered {}", answer.status));
        }
        let messages = answer.body["messages"].as_array().cloned();
        let id = |message: &Value| message["id"].as_str().map(str::to_owned);
        ids.extend(messages.unwrap_or_default().iter().filter_map(id));
        if answer.body["pagination"]["has_more"] != true {
            return Ok(ids);
        }
    }
}

/// The event logs of the newest replies, read from the beginning, have one end, the one of the row.
pub(crate) async fn judge_logs(load: &Arc<Load>, facts: &Facts) -> Verdict {
    let mut breaches = Vec::new();
    let mut left = facts
        .generations
        .iter()
        .rev()
        .filter(|row| !row.is_title)
        .take(LOGS);
    let mut readers: JoinSet<(String, String, Seen)> = JoinSet::new();
    let mut read = 0;
    loop {
        while readers.len() < AT_ONCE
            && let Some(row) = left.next()
        {
            let requests = facts.books.requests.iter().enumerate();
            let mut found = requests.filter(|(_, request)| {
                let mut named = request.acknowledged.iter();
                named.any(|named| named.generation == row.id)
            });
            // Generations that nobody asked for are another verdict's.
            if let Some((number, _)) = found.next() {
                let load = Arc::clone(load);
                let (id, status) = (row.id, row.status.clone());
                readers.spawn(async move {
                    let seen = follow_again(&load, number, id).await;
                    (id.to_string(), status, seen)
                });
            }
        }
        let Some(ended) = readers.join_next().await else {
            break;
        };
        let Ok((id, status, seen)) = ended else {
            continue;
        };
        read += 1;
        breaches.extend(seen.faults.iter().map(|fault| format!("{id}: {fault}")));
        let wanted = match status.as_str() {
            "completed" | "incomplete" => "generation.completed",
            "failed" => "generation.failed",
            _ => "generation.cancelled",
        };
        let end = seen.end.map(|(kind, _)| kind);
        if end.as_deref() != Some(wanted) {
            breaches.push(format!("{id} is {status} and its log ends with {end:?}"));
        }
    }
    Verdict {
        name: "logs",
        promise: "one end each, also when read again",
        counts: format!("{read} read"),
        breaches,
    }
}
