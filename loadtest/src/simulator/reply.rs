//! The text of a reply: a plausible paragraph that depends on nothing but the question.
//!
//! A test can therefore assert that the stored message equals the sent text, byte for byte.

use super::marker;

/// Sentences a reply is put together from. Multi-byte characters are among them on purpose:
/// a client that cuts UTF-8 at a chunk border must not get away with it.
const SENTENCES: &[&str] = &[
    "The short answer is **yes**, with one condition that is easy to check.",
    "Start from what you already know and write it down in one sentence.",
    "Most people find that a small, concrete step teaches more than a long plan.",
    "It helps to compare two options at a time – three or more blur quickly.",
    "Your strengths matter here: pick the path on which you would use them every week.",
    "Ask someone who does this work what an ordinary Tuesday looks like.",
    "Keep the numbers next to the opinion, then decide which one you believe.",
    "If the form refuses the entry, check the period and the unit code first.",
    "Give it two weeks, then look back at what gave you energy – and what took it.",
    "A naïve estimate is fine as long as you replace it once you have measured.",
    "There is no penalty for changing your mind after you learned something.",
    "Save a draft before you submit, so that a time-out costs you nothing.",
    "The rule is documented, and the exception is documented right below it.",
    "Curiosity is a better guide than prestige, because it lasts longer.",
    "Talk to your team lead before the deadline rather than after it.",
    "When two answers look equally good, choose the one that is easier to undo.",
];

/// Headings between paragraphs, so that a console has some Markdown to render.
const HEADINGS: &[&str] = &[
    "### Where to begin",
    "### What to watch for",
    "### A next step",
    "### Why it works",
];

/// How many words of the question a reply repeats at most.
const ECHO_WORDS: usize = 24;

/// The reply to `last_user_message` of exactly `tokens` tokens. A token is a word with the white space before
/// it, in pieces of at most twelve characters.
///
/// Markers (`[[sim:…]]`) are not repeated. Zero tokens is the empty text.
pub fn reply_text(last_user_message: &str, tokens: u32) -> String {
    let wanted = usize::try_from(tokens).unwrap_or(usize::MAX);
    let mut text = String::with_capacity(wanted.saturating_mul(7).min(1 << 24));
    let mut writer = Writer::new(last_user_message);
    let mut ends = Vec::with_capacity(wanted);
    while ends.len() <= wanted {
        let from = text.len();
        writer.next_into(&mut text);
        let added = &text[from..];
        let mut piece = Pieces::new(added);
        while let Some(end) = piece.next_end() {
            ends.push(from + end);
        }
    }
    // The last piece is still part of the text only up to the wanted count, and a reply that
    // stops inside a sentence gets its full stop there.
    let Some(last) = wanted.checked_sub(1).and_then(|index| ends.get(index)) else {
        return String::new();
    };
    text.truncate(*last);
    if !text.ends_with(['.', '”']) {
        close_sentence(&mut text);
    }
    text
}

/// Ends `text` with a full stop where that leaves the number of its tokens as it is.
fn close_sentence(text: &mut String) {
    if text.ends_with([',', ':', ';']) {
        text.pop();
        text.push('.');
        return;
    }
    let run = text
        .chars()
        .rev()
        .take_while(|character| !character.is_whitespace())
        .count();
    if text.ends_with(char::is_alphanumeric) && !run.is_multiple_of(PIECE_CHARS) {
        text.push('.');
    }
}

/// The reply to `last_user_message` of `bytes` bytes, or up to three fewer where a character
/// would be cut.
pub fn reply_of_bytes(last_user_message: &str, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 256);
    let mut writer = Writer::new(last_user_message);
    while text.len() < bytes {
        writer.next_into(&mut text);
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// A title: the first five words of the question, as a title request wants it. Where the request quotes
/// a conversation (`Person: …`, then `Assistant: …`), they are the person's.
pub fn title_text(last_user_message: &str) -> String {
    let quoted = last_user_message.trim_start().strip_prefix("Person:");
    let question = quoted.map(|rest| rest.split("\n\nAssistant:").next().unwrap_or(rest));
    let plain = marker::without_markers(question.unwrap_or(last_user_message));
    let words: Vec<&str> = plain.split_whitespace().take(5).collect();
    if words.is_empty() {
        "Conversation".to_owned()
    } else {
        words.join(" ")
    }
}

/// Byte offsets at which the tokens of `text` end. A token is a word with the white space
/// before it, in pieces of at most [`PIECE_CHARS`] characters; trailing white space belongs to the last one.
pub(crate) fn token_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::with_capacity(text.len() / 6 + 1);
    let mut pieces = Pieces::new(text);
    while let Some(end) = pieces.next_end() {
        ends.push(end);
    }
    ends
}

/// How many tokens `text` has, by the rule of [`token_ends`].
pub(crate) fn count_tokens(text: &str) -> u32 {
    let mut pieces = Pieces::new(text);
    let mut count = 0;
    while pieces.next_end().is_some() {
        count += 1;
    }
    count
}

/// The longest token in characters, white space not counted.
pub(crate) const PIECE_CHARS: usize = 12;

struct Pieces<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn next_end(&mut self) -> Option<usize> {
        if self.at >= self.text.len() {
            return None;
        }
        let mut length = 0;
        let mut end = self.text.len();
        for (offset, character) in self.text[self.at..].char_indices() {
            if character.is_whitespace() {
                if length > 0 {
                    end = self.at + offset;
                    break;
                }
            } else {
                if length == PIECE_CHARS {
                    end = self.at + offset;
                    break;
                }
                length += 1;
            }
        }
        // White space at the very end joins the last token instead of making one of its own.
        if self.text[end..].trim_start().is_empty() {
            end = self.text.len();
        }
        self.at = end;
        Some(end)
    }
}

/// Writes one sentence at a time; the choice depends on the question and the position only.
struct Writer {
    echo: String,
    seed: u64,
    position: u32,
}

impl Writer {
    fn new(last_user_message: &str) -> Self {
        let plain = marker::without_markers(last_user_message);
        let mut words = plain.split_whitespace();
        let mut echo: Vec<&str> = words.by_ref().take(ECHO_WORDS).collect();
        if words.next().is_some() {
            echo.push("…");
        }
        Self {
            echo: echo.join(" "),
            seed: hash(plain.as_bytes()),
            position: 0,
        }
    }

    fn next_into(&mut self, text: &mut String) {
        let position = self.position;
        self.position += 1;
        if position == 0 {
            text.push_str("You asked: “");
            text.push_str(&self.echo);
            text.push('”');
            return;
        }
        // An odd stride visits all sentences before any comes again: their number is a power of
        // two. Where it starts and how far it strides depends on the question.
        let stride = self.seed >> 8 | 1;
        let pick = (self.seed >> 16).wrapping_add(stride.wrapping_mul(u64::from(position)));
        let pick = usize::try_from(pick % 1_024).unwrap_or(0);
        match position % 8 {
            1 => text.push_str("\n\n"),
            4 => text.push_str("\n\n- "),
            5 => text.push_str("\n- "),
            6 => {
                text.push_str("\n\n");
                text.push_str(HEADINGS[pick % HEADINGS.len()]);
                text.push_str("\n\n");
            }
            _ => text.push(' '),
        }
        text.push_str(SENTENCES[pick % SENTENCES.len()]);
    }
}

/// FNV-1a, 64 bit: stable across platforms and releases, unlike the standard hasher.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_exactly_the_tokens_asked_for() {
        for question in [
            "",
            "Hi",
            "How do I become a data engineer in Jakarta?",
            "日本語の長い質問文ですが空白がありません",
        ] {
            for tokens in 0..200 {
                let text = reply_text(question, tokens);
                assert_eq!(
                    count_tokens(&text),
                    tokens,
                    "{question:?} {tokens}: {text:?}"
                );
            }
        }
    }

    #[test]
    fn depends_on_the_question_only_and_hides_markers() {
        assert_eq!(
            reply_text("Hello there", 50),
            reply_text("Hello there [[sim:rate=3]]", 50)
        );
        assert_ne!(reply_text("Hello there", 50), reply_text("Hello you", 50));
        assert!(reply_text("Hello there", 50).starts_with("You asked: “Hello there”\n\n"));
    }

    #[test]
    fn bytes_are_bytes() {
        let text = reply_of_bytes("x", 10_000_000);
        assert!((9_999_997..=10_000_000).contains(&text.len()));
    }

    #[test]
    fn tokens_cover_the_text() {
        let text = "  Two words,\n\nthen abcdefghijklmnopqrstuvwxyz ";
        let ends = token_ends(text);
        assert_eq!(ends.last(), Some(&text.len()));
        assert!(ends.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn titles_are_five_words() {
        assert_eq!(
            title_text("[[sim:429]] How do I become a data engineer?"),
            "How do I become a"
        );
        assert_eq!(
            title_text("Person: Hello [[sim:429]] there\n\nAssistant: Good day"),
            "Hello there"
        );
        assert_eq!(title_text("  "), "Conversation");
    }
}
