//! Words of people as editors may read them: without addresses, links and long numbers, which name somebody.

use crate::knowledge::clean;

/// Digits from which on a number is one that names somebody or something: telephone, NIP, NIK, NPWP, account.
/// Years, amounts in short and codes of menus have fewer.
const LONG: usize = 7;

/// What stands for what is not shown.
pub(super) const MASKS: [&str; 3] = ["[email]", "[link]", "[number]"];

/// The text line by line, cut to so many characters, with e-mail addresses, links and long numbers
/// replaced. Names written as words stay: nothing tells them from the names of menus.
#[must_use]
pub fn mask(text: &str, longest: usize) -> String {
    let cleaned = clean(text);
    let lines = cleaned.lines().map(|line| {
        let words = line.split(' ').map(word);
        numbers(&words.collect::<Vec<_>>().join(" "))
    });
    let masked = lines.collect::<Vec<_>>().join("\n");
    match masked.char_indices().nth(longest) {
        // The last character says that something is missing.
        Some(_) => masked
            .chars()
            .take(longest.saturating_sub(1))
            .chain(['…'])
            .collect(),
        None => masked,
    }
}

fn word(word: &str) -> String {
    let lower = word.to_lowercase();
    let is_address = lower.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && host.contains(|c: char| c.is_alphanumeric())
    });
    if is_address {
        "[email]".to_owned()
    } else if lower.contains("://") || lower.starts_with("www.") || lower.contains("wa.me/") {
        "[link]".to_owned()
    } else {
        word.to_owned()
    }
}

/// Replaces runs of digits, also those with dots, hyphens, blanks, brackets and slashes between them.
fn numbers(line: &str) -> String {
    let characters: Vec<char> = line.chars().collect();
    let mut masked = String::with_capacity(line.len());
    let mut at = 0;
    while at < characters.len() {
        if !characters[at].is_numeric() {
            masked.push(characters[at]);
            at += 1;
            continue;
        }
        let (mut digits, mut end, mut next) = (0, at, at);
        while next < characters.len() {
            if characters[next].is_numeric() {
                digits += 1;
                end = next + 1;
            } else if !matches!(characters[next], '.' | '-' | ' ' | '/' | '(' | ')')
                || next >= end + 2
            {
                break;
            }
            next += 1;
        }
        if digits >= LONG {
            masked.push_str("[number]");
        } else {
            masked.extend(&characters[at..end]);
        }
        at = end;
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn what_names_somebody_is_not_kept() {
        for (text, masked) in [
            (
                "email saya siti.aminah@pemda.go.id, tolong",
                "email saya [email] tolong",
            ),
            ("NIP 198503122010012003 terkunci", "NIP [number] terkunci"),
            ("hubungi 0812-3456-7890 ya", "hubungi [number] ya"),
            ("hubungi +62 812 3456 7890", "hubungi +[number]"),
            ("NPWP 01.234.567.8-901.000 ditolak", "NPWP [number] ditolak"),
            ("lihat https://sipd.example/x?u=1", "lihat [link]"),
            (
                "SPP tahun 2025 menu 1.2.3 gagal",
                "SPP tahun 2025 menu 1.2.3 gagal",
            ),
            ("pagu 500.000 kurang", "pagu 500.000 kurang"),
            ("NIK ٣١٧٤٠٥١٢٣٤٥٦", "NIK [number]"),
        ] {
            assert_eq!(mask(text, 200), masked);
        }
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let cut = mask(&"é".repeat(600), 500);
        assert_eq!((cut.chars().count(), cut.ends_with("é…")), (500, true));
        assert_eq!(mask("abc", 3), "abc");
        assert_eq!(mask("a\nb", 9), "a\nb");
    }
}
