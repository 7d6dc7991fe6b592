//! JSON bodies.

use axum::extract::{FromRef, FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use super::body;
use super::object::Object;
use crate::error::{Code, FieldError, Problem, Result};
use crate::gate::Gate;

/// Deeper nesting than this has no use here, and every reader of stored JSON pays for it.
const MAX_DEPTH: usize = 64;

/// A JSON body of type `T`. No body at all counts as `{}`, so that a POST whose fields are all
/// optional needs none.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    Gate: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let bytes = read(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// Reads a body that is declared as JSON.
pub(super) async fn read<S>(request: Request, state: &S) -> Result<Bytes>
where
    Gate: FromRef<S>,
{
    let limit = Gate::from_ref(state).config.limits.max_body_bytes;
    let (parts, body) = request.into_parts();
    let declared = parts.headers.contains_key(header::CONTENT_TYPE);
    if declared && !is_json(&parts.headers) {
        return Err(Problem::of(Code::UnsupportedMediaType));
    }
    if is_encoded(&parts.headers) {
        let detail = "the body must come as it is, without a Content-Encoding";
        let problem = Problem::new(Code::UnsupportedMediaType, detail);
        // RFC 9110, 12.5.3: what would be taken instead.
        return Err(problem.with_header(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        ));
    }
    let bytes = body::read(&parts.headers, body, limit).await?;
    match (declared, bytes.is_empty()) {
        (false, true) => Ok(Bytes::from_static(b"{}")),
        (false, false) => Err(Problem::of(Code::UnsupportedMediaType)),
        (true, _) => Ok(bytes),
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    encodings.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Parses a JSON object: 400 when it is not JSON, 422 naming the field when it is not a `T`.
///
/// # Errors
/// `malformed_json` or `validation_failed`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    refuse_depth(bytes)?;
    refuse_nul(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut deserializer);
    let Object(value) = read.map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        // Of a name that is no text, and of a number that nothing can hold, serde says that it is not JSON.
        let text = error.to_string();
        if (text.starts_with("expected value") || text.starts_with("number out of range"))
            && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
        {
            return wrong(&path, "has the wrong type, or is out of range");
        }
        explain(&path, error)
    })?;
    deserializer.end().map_err(|error| explain("", error))?;
    Ok(value)
}

fn explain(path: &str, error: serde_json::Error) -> Problem {
    let text = error.to_string();
    if error.classify() != Category::Data {
        return Problem::new(Code::MalformedJson, format!("the body is not JSON: {text}"));
    }
    let message = text
        .split_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    wrong(path, message)
}

fn wrong(path: &str, message: &str) -> Problem {
    Problem::fields(vec![FieldError {
        field: field_of(path, message),
        message: message.to_owned(),
    }])
}

/// The path to the field; for a field that is not there serde only knows the path to its parent.
pub(super) fn field_of(path: &str, message: &str) -> String {
    let parent = if path == "." { "" } else { path };
    let missing = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    match missing {
        Some(name) if parent.is_empty() => name.to_owned(),
        Some(name) => format!("{parent}.{name}"),
        None if parent.is_empty() => "body".to_owned(),
        None => parent.to_owned(),
    }
}

fn refuse_depth(bytes: &[u8]) -> Result<()> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Problem::new(
                Code::MalformedJson,
                "the body is nested deeper than 64 levels",
            ));
        }
    }
    Ok(())
}

/// Postgres stores no NUL characters, and a person never types one.
fn refuse_nul(bytes: &[u8]) -> Result<()> {
    // A backslash may precede the escape itself, so a hit is only a reason to look closely.
    if !bytes.windows(6).any(|window| window == b"\\u0000") {
        return Ok(());
    }
    // What is not JSON gets its own error later.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return Ok(());
    };
    match nul_in(&value, String::new()) {
        Some(field) => Err(Problem::field(field, "must not contain NUL characters")),
        None => Ok(()),
    }
}

fn nul_in(value: &Value, path: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(path),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| nul_in(item, format!("{path}[{index}]"))),
        Value::Object(fields) => fields.iter().find_map(|(name, item)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            if name.contains('\0') {
                Some(path.replace('\0', "\u{fffd}"))
            } else {
                nul_in(item, path)
            }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
