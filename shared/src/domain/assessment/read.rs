//! Reading assessment data that others wrote: what is wrong is named, what is too long is cut, and
//! what is unknown is left out.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::data::{AssessmentData, Interest, Trait};
use super::words;

/// The most bytes of a persona that are kept; what comes later is left out.
pub const MAX_PERSONA_BYTES: usize = 32 * 1024;
/// The most characters of one text in it.
const MAX_TEXT_CHARS: usize = 4_000;
/// The most entries of one list or object in it.
const MAX_ENTRIES: usize = 60;
/// How deep it may be nested.
const MAX_DEPTH: u32 = 6;
/// The most strengths that are kept; VIA knows 24.
const MAX_STRENGTHS: usize = 60;
/// The longest name of a strength, in characters.
const MAX_NAME_CHARS: usize = 60;

/// A part that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where, for example `riasec.R`.
    pub field: String,
    /// What is wrong with it.
    pub message: &'static str,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

const NO_OBJECT: &str = "must be an object";
const NO_SCORE: &str = "must be a number between 0 and 100";

impl AssessmentData {
    /// Reads what an event or the archive says. Missing parts are no mistake; scales that are not
    /// known are left out; long texts are cut.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn read(value: &Value) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let Value::Object(fields) = value else {
            return Err(vec![Wrong {
                field: "results".to_owned(),
                message: NO_OBJECT,
            }]);
        };
        let part = |names: &[&'static str]| {
            let found = names
                .iter()
                .find_map(|name| Some((*name, fields.get(*name)?)));
            found.filter(|(_, value)| !value.is_null())
        };
        let data = Self {
            riasec: part(&["riasec"])
                .map(|(name, value)| scores(name, value, interest, &mut wrong))
                .unwrap_or_default(),
            ocean: part(&["ocean"])
                .map(|(name, value)| scores(name, value, one_trait, &mut wrong))
                .unwrap_or_default(),
            via_is: part(&["viaIs", "via_is", "via"])
                .map(|(name, value)| scores(name, value, strength, &mut wrong))
                .unwrap_or_default(),
            persona_profile: part(&["personaProfile", "persona_profile"])
                .map(|(name, value)| persona(name, value, &mut wrong))
                .unwrap_or_default(),
            assessment_date: part(&["assessmentDate", "assessment_date"])
                .and_then(|(name, value)| date(name, value, &mut wrong)),
        };
        if wrong.is_empty() {
            Ok(data)
        } else {
            Err(wrong)
        }
    }
}

/// The known scales of a group. Names that mean the same scale twice keep the first.
fn scores<T: Ord>(
    group: &str,
    value: &Value,
    scale: fn(&str) -> Option<T>,
    wrong: &mut Vec<Wrong>,
) -> BTreeMap<T, f64> {
    let mut scores = BTreeMap::new();
    let Value::Object(fields) = value else {
        wrong.push(Wrong {
            field: group.to_owned(),
            message: NO_OBJECT,
        });
        return scores;
    };
    for (name, value) in fields {
        let Some(scale) = scale(name) else { continue };
        if scores.len() >= MAX_STRENGTHS || value.is_null() {
            continue;
        }
        match value.as_f64().filter(|score| (0.0..=100.0).contains(score)) {
            Some(score) => {
                scores.entry(scale).or_insert(score);
            }
            None => wrong.push(Wrong {
                field: format!("{group}.{name}"),
                message: NO_SCORE,
            }),
        }
    }
    scores
}

/// By letter or by English name.
fn interest(name: &str) -> Option<Interest> {
    let by_letter = Interest::from_str(&name.to_ascii_uppercase()).ok();
    by_letter.or_else(|| {
        let all = Interest::ALL.iter().copied();
        all.into_iter()
            .find(|one| name.eq_ignore_ascii_case(words::interest(*one).english))
    })
}

fn one_trait(name: &str) -> Option<Trait> {
    let by_letter = Trait::from_str(&name.to_ascii_uppercase()).ok();
    by_letter.or_else(|| {
        let all = Trait::ALL.iter().copied();
        all.into_iter()
            .find(|one| name.eq_ignore_ascii_case(words::one_trait(*one).english))
    })
}

fn strength(name: &str) -> Option<String> {
    let name = clean(name);
    let name = name.trim();
    let length = name.chars().count();
    (1..=MAX_NAME_CHARS)
        .contains(&length)
        .then(|| name.to_owned())
}

/// A description; a bare text is its summary.
fn persona(name: &str, value: &Value, wrong: &mut Vec<Wrong>) -> Map<String, Value> {
    let mut room = MAX_PERSONA_BYTES;
    match value {
        Value::String(text) => match bounded(&Value::String(text.clone()), 0, &mut room) {
            Some(summary) => Map::from_iter([("summary".to_owned(), summary)]),
            None => Map::new(),
        },
        // The summary has room before anything else.
        Value::Object(fields) => {
            let mut kept = Map::new();
            let summary = fields.get_key_value("summary");
            let rest = fields.iter().filter(|(name, _)| *name != "summary");
            for (name, value) in summary.into_iter().chain(rest).take(MAX_ENTRIES) {
                keep(&mut kept, name, value, 1, &mut room);
            }
            kept
        }
        _ => {
            wrong.push(Wrong {
                field: name.to_owned(),
                message: NO_OBJECT,
            });
            Map::new()
        }
    }
}

fn keep(kept: &mut Map<String, Value>, name: &str, value: &Value, depth: u32, room: &mut usize) {
    let name: String = clean(name).chars().take(MAX_NAME_CHARS).collect();
    if name.is_empty() || *room < name.len() + 4 {
        return;
    }
    *room -= name.len() + 4;
    if let Some(value) = bounded(value, depth, room) {
        kept.insert(name, value);
    }
}

/// The value as far as there is room; its size is taken from the room.
fn bounded(value: &Value, depth: u32, room: &mut usize) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Bool(_) => take(room, 5).then(|| value.clone()),
        // Postgres keeps numbers in decimal; the largest ones would come back as infinite.
        Value::Number(number) => {
            let fits = number.as_f64().is_some_and(|number| number.abs() <= 1e15);
            (fits && take(room, 24)).then(|| value.clone())
        }
        Value::String(text) => {
            let text: String = clean(text).chars().take(MAX_TEXT_CHARS).collect();
            let end = text.floor_char_boundary((*room).min(text.len()));
            let text = text[..end].trim();
            (!text.is_empty() && take(room, text.len())).then(|| Value::from(text))
        }
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => None,
        Value::Array(items) => {
            let items = items.iter().take(MAX_ENTRIES);
            Some(
                items
                    .filter_map(|item| bounded(item, depth + 1, room))
                    .collect(),
            )
        }
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (name, value) in fields.iter().take(MAX_ENTRIES) {
                keep(&mut kept, name, value, depth + 1, room);
            }
            Some(Value::Object(kept))
        }
    }
}

fn take(room: &mut usize, bytes: usize) -> bool {
    let fits = *room >= bytes;
    *room = room.saturating_sub(bytes);
    fits
}

/// Without control characters, some of which Postgres stores in no text.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// A moment, or a day.
fn date(name: &str, value: &Value, wrong: &mut Vec<Wrong>) -> Option<OffsetDateTime> {
    let text = value.as_str().map(str::trim).unwrap_or_default();
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    let day = || Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
    let date = moment.or_else(|| Some(day()?.midnight().assume_utc()));
    // Beyond these years neither Postgres nor a calendar means anything by it.
    let date = date.filter(|date| (1970..=2200).contains(&date.year()));
    if date.is_none() {
        wrong.push(Wrong {
            field: name.to_owned(),
            message: "must be a date or a time of RFC 3339",
        });
    }
    date
}
