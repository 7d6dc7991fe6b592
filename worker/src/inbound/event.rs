//! What a delivery says.

use lapin::message::Delivery;
use lapin::types::AMQPValue;
use serde_json::{Map, Value};
use shared::crypto::{hex, sha256};
use shared::domain::assessment::{AssessmentData, Stage};
use uuid::Uuid;

/// A larger event is none that an assessment makes.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// The longest id of an event that is used as it is.
const LONGEST_ID: usize = 190;

/// Why an event is of no use; for operators, and without content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) String);

/// An event that makes sense.
#[derive(Clone, Debug)]
pub(super) struct Inbound {
    /// The same on every repetition.
    pub(super) id: String,
    /// The stage that it tells of.
    pub(super) kind: Stage,
    pub(super) user_id: Uuid,
    pub(super) assessment_id: Uuid,
    /// Results that came with it.
    pub(super) data: Option<AssessmentData>,
    pub(super) request_id: Option<String>,
    pub(super) traceparent: Option<String>,
}

/// Reads a delivery.
pub(super) fn read(delivery: &Delivery) -> Result<Inbound, Refusal> {
    let message_id = delivery.properties.message_id().as_ref();
    let mut event = parse(&delivery.data, message_id.map(|id| id.as_str()))?;
    event.request_id = header(delivery, "x-request-id");
    event.traceparent = header(delivery, "traceparent");
    Ok(event)
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    let headers = delivery.properties.headers().as_ref()?;
    let text = match headers.inner().get(name)? {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        _ => return None,
    };
    let is_plain = text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then_some(text)
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(reason.into()))
}

/// Reads the body of an event, whose publisher may have named it.
fn parse(body: &[u8], message_id: Option<&str>) -> Result<Inbound, Refusal> {
    if body.len() > MAX_BYTES {
        return refuse(format!("too large: {} bytes", body.len()));
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return refuse("not JSON");
    };
    let Some(fields) = value.as_object() else {
        return refuse("not a JSON object");
    };
    let kind = kind(fields)?;
    let user_id = id(fields, &["user_id", "userId"])?;
    let assessment_id = id(
        fields,
        &["assessment_id", "assessmentId", "result_id", "resultId"],
    )?;
    let data = match first(fields, &["results", "assessment_data", "assessmentData"]) {
        Some(results) => Some(AssessmentData::read(results).map_err(|wrong| {
            let wrong: Vec<String> = wrong.iter().take(5).map(ToString::to_string).collect();
            Refusal(format!("results make no sense: {}", wrong.join("; ")))
        })?),
        None => None,
    };
    let said = first(fields, &["event_id", "eventId", "id"]).and_then(Value::as_str);
    let said = message_id.or(said).map(str::trim);
    let said =
        said.filter(|id| (1..=LONGEST_ID).contains(&id.len()) && !id.contains(char::is_control));
    let event_id = match said {
        // One name may stand over several events of a publisher that numbers them by assessment.
        Some(said) => format!("{said}/{}", kind.rank()),
        None => format!("sha256:{}", hex(&sha256(&[body]))),
    };
    Ok(Inbound {
        id: event_id,
        kind,
        user_id,
        assessment_id,
        data: data.filter(|data| !data.is_empty()),
        request_id: None,
        traceparent: None,
    })
}

fn first<'a>(fields: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    let found = names.iter().find_map(|name| fields.get(*name));
    found.filter(|value| !value.is_null())
}

fn kind(fields: &Map<String, Value>) -> Result<Stage, Refusal> {
    let name = first(fields, &["event", "type"]).and_then(Value::as_str);
    match name.map(|name| name.replace('.', "_")).as_deref() {
        Some("assessment_submitted") => Ok(Stage::Submitted),
        Some("analysis_started") => Ok(Stage::Started),
        Some("analysis_complete" | "analysis_completed") => Ok(Stage::Complete),
        Some("analysis_failed") => Ok(Stage::Failed),
        Some(_) => refuse("event: not one that is known"),
        None => refuse("event: is missing"),
    }
}

fn id(fields: &Map<String, Value>, names: &[&str]) -> Result<Uuid, Refusal> {
    let Some(value) = first(fields, names) else {
        return refuse(format!("{}: is missing", names.first().unwrap_or(&"")));
    };
    let parsed = value
        .as_str()
        .and_then(|text| Uuid::parse_str(text.trim()).ok());
    parsed
        .filter(|id| !id.is_nil())
        .ok_or_else(|| Refusal(format!("{}: is no UUID", names.first().unwrap_or(&""))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ids() -> (Uuid, Uuid) {
        (Uuid::from_u128(1), Uuid::from_u128(2))
    }

    fn parsed(value: &Value) -> Result<Inbound, String> {
        parse(value.to_string().as_bytes(), None).map_err(|Refusal(reason)| reason)
    }

    #[test]
    fn quirks_of_publishers_are_accepted() {
        let (user, assessment) = ids();
        for event in [
            json!({ "event": "analysis_complete", "user_id": user, "assessment_id": assessment }),
            json!({ "type": "analysis_complete", "userId": user, "assessmentId": assessment, "results": null }),
            json!({ "type": "analysis.complete", "userId": user, "resultId": assessment, "extra": [1] }),
        ] {
            let read = parsed(&event).unwrap();
            assert_eq!((read.user_id, read.assessment_id), (user, assessment));
            assert_eq!((read.kind, read.data), (Stage::Complete, None));
        }
        let results = json!({ "event": "analysis_complete", "user_id": user, "assessment_id": assessment,
                              "results": { "riasec": { "R": 50 } } });
        assert!(parsed(&results).unwrap().data.is_some());
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        let (user, assessment) = ids();
        let with = |name: &str, value: Value| {
            let mut event = json!({ "event": "analysis_complete", "user_id": user, "assessment_id": assessment });
            event[name] = value;
            parsed(&event).unwrap_err()
        };
        assert_eq!(with("user_id", json!("5")), "user_id: is no UUID");
        assert_eq!(
            with("assessment_id", Value::Null),
            "assessment_id: is missing"
        );
        assert_eq!(
            with("event", json!("party")),
            "event: not one that is known"
        );
        let scores = with("results", json!({ "riasec": { "R": 101 } }));
        assert_eq!(
            scores,
            "results make no sense: riasec.R: must be a number between 0 and 100"
        );
        for (body, reason) in [
            (&b"{"[..], "not JSON"),
            (b"[]", "not a JSON object"),
            (&vec![b' '; MAX_BYTES + 1], "too large: 2097153 bytes"),
        ] {
            assert_eq!(parse(body, None).unwrap_err().0, reason);
        }
    }

    #[test]
    fn a_repetition_has_the_same_id_and_another_event_has_not() {
        let (user, assessment) = ids();
        let event =
            |kind: &str| json!({ "event": kind, "user_id": user, "assessment_id": assessment });
        let one = parsed(&event("analysis_started")).unwrap().id;
        assert_eq!(one, parsed(&event("analysis_started")).unwrap().id);
        assert_ne!(one, parsed(&event("analysis_complete")).unwrap().id);
        let named = |kind: &str| {
            parse(event(kind).to_string().as_bytes(), Some("m1"))
                .unwrap()
                .id
        };
        assert_ne!(named("analysis_started"), named("analysis_complete"));
    }
}
