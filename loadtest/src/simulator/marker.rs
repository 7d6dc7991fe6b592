//! Markers: lists of directives in the midst of a message.

use std::borrow::Cow;

const OPEN: &str = "[[sim:";
const CLOSE: &str = "]]";

/// A marker found in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker<'a> {
    /// The whole text, brackets included.
    pub text: &'a str,
    /// The list of directives inside.
    pub list: &'a str,
}

/// The markers in `message`, in order.
pub fn markers(message: &str) -> impl Iterator<Item = Marker<'_>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let open = rest.find(OPEN)?;
        let length = rest[open..].find(CLOSE)?;
        let text = &rest[open..open + length + CLOSE.len()];
        rest = &rest[open + text.len()..];
        Some(Marker {
            text,
            list: &text[OPEN.len()..text.len() - CLOSE.len()],
        })
    })
}

/// `message` without its markers and the white space they leave behind.
pub fn without_markers(message: &str) -> Cow<'_, str> {
    if !message.contains(OPEN) {
        return Cow::Borrowed(message.trim());
    }
    let mut plain = message.to_owned();
    for marker in markers(message) {
        plain = plain.replacen(marker.text, "", 1);
    }
    Cow::Owned(plain.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_markers_of_a_message() {
        let message =
            "Hi [[sim:ttft=3000]] there [[sim:status=503,retry_after=2,times=2]] [[sim:broken";
        let found: Vec<&str> = markers(message).map(|marker| marker.list).collect();
        assert_eq!(found, ["ttft=3000", "status=503,retry_after=2,times=2"]);
        assert_eq!(without_markers("Hi [[sim:429]] there"), "Hi there");
        assert_eq!(without_markers(" plain  text "), "plain  text");
    }
}
