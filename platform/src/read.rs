//! What the services' answers mean. They come bare or inside of `data`, in snake or camel case.

use serde_json::{Map, Value};
use shared::domain::assessment::{AssessmentData, Language};
use uuid::Uuid;

/// The longest name that is used, in characters.
const MAX_NAME_CHARS: usize = 60;

/// The archive's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// Whose they are, where the archive says so.
    pub owner: Option<Uuid>,
    /// What the assessment found.
    pub data: AssessmentData,
}

/// What is known of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// What the person is called.
    pub name: Option<String>,
    /// The language that the person chose.
    pub language: Option<Language>,
}

/// The parts of assessment data.
const PARTS: [&str; 8] = [
    "riasec",
    "ocean",
    "viaIs",
    "via_is",
    "personaProfile",
    "persona_profile",
    "assessmentDate",
    "assessment_date",
];
/// Where they may be.
const WRAPPED: [&str; 5] = [
    "data",
    "results",
    "result",
    "assessment_data",
    "assessmentData",
];

impl Results {
    /// Reads an answer. None when it is no answer of an archive.
    pub(crate) fn read(answer: &Value) -> Option<Self> {
        let top = answer.as_object()?;
        let mut parts = Map::new();
        let mut owner = None;
        gather(top, 0, &mut parts, &mut owner);
        let data = AssessmentData::read(&Value::Object(parts)).ok()?;
        Some(Self { owner, data })
    }
}

/// Collects the parts of the object and of what is wrapped in it; what stands deeper wins.
fn gather(
    object: &Map<String, Value>,
    depth: u32,
    parts: &mut Map<String, Value>,
    owner: &mut Option<Uuid>,
) {
    for name in PARTS {
        if let Some(value) = object.get(name).filter(|value| !value.is_null()) {
            parts.insert(name.to_owned(), value.clone());
        }
    }
    let said = ["user_id", "userId"]
        .iter()
        .find_map(|name| object.get(*name)?.as_str());
    if let Some(said) = said.and_then(|text| text.parse().ok()) {
        *owner = Some(said);
    }
    let wrapped = WRAPPED
        .iter()
        .filter_map(|name| object.get(*name)?.as_object());
    for inner in wrapped.take_while(|_| depth < 3) {
        gather(inner, depth + 1, parts, owner);
    }
}

impl Profile {
    /// Reads an answer. None when it is no answer of an auth service.
    pub(crate) fn read(answer: &Value) -> Option<Self> {
        let top = answer.as_object()?;
        let data = top.get("data").and_then(Value::as_object);
        let user =
            |object: &Map<String, Value>| object.get("user").and_then(Value::as_object).cloned();
        let places = [
            data.and_then(user),
            data.cloned(),
            user(top),
            Some(top.clone()),
        ];
        let text = |names: &[&str]| {
            let mut found = places.iter().flatten();
            found.find_map(|object| {
                names
                    .iter()
                    .find_map(|name| Some(object.get(*name)?.as_str()?.to_owned()))
            })
        };
        let name = text(&["name", "full_name", "fullName", "display_name", "username"]);
        let language = text(&[
            "language",
            "locale",
            "preferred_language",
            "preferredLanguage",
        ]);
        Some(Self {
            name: name.as_deref().and_then(clean),
            language: language.as_deref().and_then(Language::of_tag),
        })
    }
}

/// A name as it may stand in a sentence.
fn clean(name: &str) -> Option<String> {
    let kept = |c: &char| c.is_alphanumeric() || " .'’-".contains(*c);
    let name: String = name.chars().filter(kept).take(MAX_NAME_CHARS).collect();
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_found_however_they_are_wrapped() {
        let user = Uuid::from_u128(7);
        let bare = json!({ "riasec": { "R": 5 }, "userId": user });
        let deep = json!({ "success": true, "data": {
            "id": 1, "user_id": user, "persona_profile": { "summary": "x" },
            "assessment_data": { "riasec": { "R": 5 } },
        } });
        for answer in [bare, deep] {
            let results = Results::read(&answer).unwrap();
            assert_eq!(results.owner, Some(user));
            assert_eq!(results.data.interests()[0].1, 5.0);
        }
        assert!(Results::read(&json!([1])).is_none());
        assert!(Results::read(&json!({ "riasec": { "R": 500 } })).is_none());
        assert!(
            Results::read(&json!({ "status": "fine" }))
                .unwrap()
                .data
                .is_empty()
        );
    }

    #[test]
    fn a_profile_gives_a_name_and_a_language() {
        let answer =
            json!({ "data": { "user": { "username": "<<<Ayu> Lestari", "locale": "id_ID" } } });
        let profile = Profile::read(&answer).unwrap();
        assert_eq!(profile.name.as_deref(), Some("Ayu Lestari"));
        assert_eq!(profile.language, Some(Language::Indonesian));
        assert_eq!(Profile::read(&json!({})), Some(Profile::default()));
    }
}
