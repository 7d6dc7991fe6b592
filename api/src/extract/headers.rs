//! Headers that change what a request means.

use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};

use crate::error::{Problem, Result};

/// The longest time an answer may be held.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// `Prefer` of RFC 7240. Of its preferences `wait` is honoured; other well-formed ones are ignored,
/// as the RFC demands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefer {
    /// How long the answer may be held until the generation has ended.
    pub wait: Option<Duration>,
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        wait_of(&parts.headers).map(|wait| Self { wait })
    }
}

/// The `wait` preference.
///
/// # Errors
/// When the header cannot be parsed, or `wait` is not 0 to 60 seconds.
pub fn wait_of(headers: &HeaderMap) -> Result<Option<Duration>> {
    const NAME: &str = "Prefer";
    let mut wait = None;
    for value in headers.get_all("prefer") {
        let text = value
            .to_str()
            .map_err(|_| Problem::field(NAME, "must be visible ASCII"))?;
        for preference in split_outside_quotes(text, ',') {
            let mut parts = split_outside_quotes(preference, ';');
            let (name, value) = match parts.next().unwrap_or_default().split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (
                    preference.split(';').next().unwrap_or_default().trim(),
                    None,
                ),
            };
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(Problem::field(
                    NAME,
                    "must be a list of preferences such as wait=10",
                ));
            }
            // RFC 7240, 2: of a preference given twice the first counts.
            if name.eq_ignore_ascii_case("wait") && wait.is_none() {
                wait = Some(seconds(value)?);
            }
        }
    }
    Ok(wait)
}

fn seconds(value: Option<&str>) -> Result<Duration> {
    let digits =
        value.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = digits
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    seconds.filter(|wait| *wait <= MAX_WAIT).ok_or_else(|| {
        Problem::field(
            "Prefer",
            "wait must be a number of seconds between 0 and 60",
        )
    })
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `If-Match` of RFC 9110: the versions the client believes to be current.
#[derive(Clone, Debug)]
pub enum IfMatch {
    /// No condition.
    Absent,
    /// `*`: any version of an existing resource.
    Any,
    /// One of these, without their quotes.
    OneOf(Vec<String>),
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let mut tags = Vec::new();
        for value in parts.headers.get_all(header::IF_MATCH) {
            let text = value.to_str().map_err(|_| malformed_tag())?;
            if text.trim() == "*" {
                return Ok(Self::Any);
            }
            for tag in split_outside_quotes(text, ',').map(str::trim) {
                // A weak tag never matches here (RFC 9110, 13.1.1), but it is not malformed.
                let (weak, opaque) = match tag.strip_prefix("W/") {
                    Some(rest) => (true, rest),
                    None => (false, tag),
                };
                let inner = opaque
                    .strip_prefix('"')
                    .and_then(|rest| rest.strip_suffix('"'));
                let inner = inner
                    .filter(|inner| !inner.contains('"'))
                    .ok_or_else(malformed_tag)?;
                tags.push(if weak {
                    format!("W/{inner}")
                } else {
                    inner.to_owned()
                });
            }
        }
        Ok(if parts.headers.contains_key(header::IF_MATCH) {
            Self::OneOf(tags)
        } else {
            Self::Absent
        })
    }
}

impl IfMatch {
    /// Whether a change to the version with this tag is wanted.
    #[must_use]
    pub fn allows(&self, tag: &str) -> bool {
        match self {
            Self::Absent | Self::Any => true,
            Self::OneOf(tags) => tags.iter().any(|wanted| wanted == tag),
        }
    }
}

fn malformed_tag() -> Problem {
    Problem::field("If-Match", "must be * or a list of quoted entity tags")
}
