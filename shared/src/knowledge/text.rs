//! Texts as they are stored, compared and split.

use unicode_normalization::UnicodeNormalization as _;

use crate::crypto::sha256;
use crate::domain::{EntryText, estimate_tokens};

/// Tokens of a text that is embedded as a whole, and of the overlap where a longer one is split.
const CHUNK_TOKENS: u32 = 500;
const OVERLAP_WORDS: usize = 30;

/// Characters that are there and cannot be seen: zero-width ones, joiners, marks of direction, the
/// mark of byte order, the soft hyphen.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

/// The text as it is stored: composed (NFC), without what cannot be seen, with plain spaces and without
/// blanks around lines.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.nfc().filter(|character| !is_invisible(*character)) {
        match character {
            '\n' => {
                cleaned.truncate(cleaned.trim_end_matches(' ').len());
                cleaned.push('\n');
            }
            _ if character.is_whitespace() => {
                if !cleaned.ends_with([' ', '\n']) && !cleaned.is_empty() {
                    cleaned.push(' ');
                }
            }
            _ if character.is_control() => {}
            _ => cleaned.push(character),
        }
    }
    cleaned.trim().to_owned()
}

/// The text as it is compared: cleaned, in lower case, one blank between words.
#[must_use]
pub fn fold(text: &str) -> String {
    let folded = clean(text).to_lowercase();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The words of a text in lower case, without punctuation.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let folded = fold(text);
    let words: Vec<String> = folded
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.into_iter()
}

/// What makes a row the same entry as another: menu and issue, or menu and solution where there is no
/// issue.
#[must_use]
pub fn entry_key(entry: &EntryText) -> [u8; 32] {
    let (kind, about) = match entry.issue.is_empty() {
        true => ("solution", &entry.solution),
        false => ("issue", &entry.issue),
    };
    sha256(&[
        kind.as_bytes(),
        fold(&entry.menu).as_bytes(),
        fold(about).as_bytes(),
    ])
}

/// What makes an entry unchanged: all its fields, as JSON with its keys in their order.
#[must_use]
pub fn canonical_hash(entry: &EntryText) -> [u8; 32] {
    let json = serde_json::to_string(entry).unwrap_or_default();
    sha256(&[b"balas.knowledge.1", json.as_bytes()])
}

/// What a question is matched against.
#[must_use]
pub fn search_text(entry: &EntryText) -> String {
    let about = match entry.issue.is_empty() {
        true => &entry.solution,
        false => &entry.issue,
    };
    match entry.menu.is_empty() {
        true => about.clone(),
        false => format!("{}: {about}", entry.menu),
    }
}

/// The texts that are embedded: a single one, unless the entry is very long.
#[must_use]
pub fn match_texts(entry: &EntryText) -> Vec<String> {
    let text = search_text(entry);
    if estimate_tokens(&text) <= CHUNK_TOKENS {
        return vec![text];
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut texts = Vec::new();
    let mut start = 0;
    loop {
        let (chunk, end) = as_much(&words, start);
        texts.push(chunk);
        if end >= words.len() {
            return texts;
        }
        start = end.saturating_sub(OVERLAP_WORDS).max(start + 1);
    }
}

/// The words from `start` on that fit into a chunk, at least one, and where they end.
fn as_much(words: &[&str], start: usize) -> (String, usize) {
    let mut chunk = words[start].to_owned();
    for (place, word) in words.iter().enumerate().skip(start + 1) {
        let longer = format!("{chunk} {word}");
        if estimate_tokens(&longer) > CHUNK_TOKENS {
            return (chunk, place);
        }
        chunk = longer;
    }
    (chunk, words.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(menu: &str, issue: &str) -> EntryText {
        EntryText {
            menu: menu.to_owned(),
            issue: issue.to_owned(),
            ..EntryText::default()
        }
    }

    #[test]
    fn what_cannot_be_seen_makes_no_difference() {
        let odd = "\u{feff}Gagal\u{a0}\u{a0}log\u{200b}in \r\n  Cafe\u{301}\u{ad} ";
        assert_eq!(clean(odd), "Gagal login\nCafé");
        assert_eq!(fold(odd), "gagal login café");
        assert_eq!(
            entry_key(&entry("SPP ", "Gagal\u{a0}simpan")),
            entry_key(&entry("spp", "gagal  SIMPAN"))
        );
        assert_ne!(
            entry_key(&entry("SPP", "gagal simpan")),
            entry_key(&entry("SPM", "gagal simpan"))
        );
    }

    #[test]
    fn every_field_counts_for_the_hash() {
        let plain = entry("SPP", "gagal");
        let mut other = plain.clone();
        other.note_qa = "x".to_owned();
        assert_ne!(canonical_hash(&plain), canonical_hash(&other));
        assert_eq!(canonical_hash(&plain), canonical_hash(&plain.clone()));
    }

    #[test]
    fn only_a_very_long_entry_is_split_and_nothing_of_it_is_lost() {
        assert_eq!(match_texts(&entry("SPP", "gagal")), ["SPP: gagal"]);
        let long: Vec<String> = (0..2000).map(|number| format!("kata{number}")).collect();
        let texts = match_texts(&entry("SPP", &long.join(" ")));
        assert!(texts.len() > 3, "{}", texts.len());
        for word in &long {
            assert!(
                texts
                    .iter()
                    .any(|text| text.split(' ').any(|part| part == word)),
                "{word}"
            );
        }
        for text in &texts {
            assert!(estimate_tokens(text) <= CHUNK_TOKENS);
        }
    }
}
