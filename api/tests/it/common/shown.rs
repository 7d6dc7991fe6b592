//! Answers as text that is the same in every run: ids are numbered, times and measurements hidden.

use std::collections::HashMap;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

pub(super) fn answer(status: u16, body: &Value, raw: &str) -> String {
    if body.is_null() {
        return format!("{status} {raw}").trim_end().to_owned();
    }
    let mut body = body.clone();
    hide(&mut body, &mut HashMap::new(), "");
    format!("{status}\n{}", serde_json::to_string_pretty(&body).unwrap())
}

fn hide(value: &mut Value, ids: &mut HashMap<Uuid, usize>, name: &str) {
    match value {
        Value::String(text) => *text = hidden(text, ids),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, ids, name)),
        Value::Object(fields) => fields
            .iter_mut()
            .for_each(|(name, item)| hide(item, ids, name)),
        Value::Number(_) if name.ends_with("_ms") => *value = Value::from("[ms]"),
        Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

fn hidden(text: &str, ids: &mut HashMap<Uuid, usize>) -> String {
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return "[time]".to_owned();
    }
    // Ids also stand inside of links and event ids.
    let mut shown = String::new();
    let mut rest = text;
    while let Some((at, id)) = first_id(rest) {
        let next = ids.len() + 1;
        let number = ids.entry(id).or_insert(next);
        shown.push_str(&rest[..at]);
        shown.push_str(&format!("[id {number}]"));
        rest = &rest[at + 36..];
    }
    shown + rest
}

fn first_id(text: &str) -> Option<(usize, Uuid)> {
    let starts = text.char_indices().map(|(at, _)| at);
    starts
        .filter_map(|at| Some((at, Uuid::try_parse(text.get(at..at + 36)?).ok()?)))
        .next()
}
