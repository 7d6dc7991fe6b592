//! English questions about Indonesian entries, without a dictionary: a word in the form in which the synonyms
//! have it, and what it would be had Indonesian borrowed it, as it has most words of offices and computers.

/// Forms that no ending makes.
const IRREGULAR: &[(&str, &str)] = &[
    ("began", "begin"),
    ("begun", "begin"),
    ("bought", "buy"),
    ("chosen", "choose"),
    ("chose", "choose"),
    ("found", "find"),
    ("gave", "give"),
    ("given", "give"),
    ("held", "hold"),
    ("kept", "keep"),
    ("lost", "lose"),
    ("made", "make"),
    ("paid", "pay"),
    ("people", "person"),
    ("sent", "send"),
    ("shown", "show"),
    ("spent", "spend"),
    ("taken", "take"),
    ("took", "take"),
    ("withdrawn", "withdraw"),
    ("written", "write"),
    ("wrote", "write"),
];
/// What is left of a word must have so many letters to be one.
const SHORTEST: usize = 3;

/// The words that this one may be a form of, most likely first; itself is none of them.
pub(super) fn base_forms(word: &str) -> Vec<String> {
    if let Some((_, base)) = IRREGULAR.iter().find(|(form, _)| *form == word) {
        return vec![(*base).to_owned()];
    }
    let mut forms = Vec::new();
    let mut add = |form: String| {
        if form.chars().count() >= SHORTEST && !forms.contains(&form) {
            forms.push(form);
        }
    };
    for (ending, instead) in [("ies", "y"), ("ied", "y")] {
        if let Some(stem) = word.strip_suffix(ending) {
            add(format!("{stem}{instead}"));
        }
    }
    if let Some(stem) = word.strip_suffix('s').filter(|stem| !stem.ends_with('s')) {
        add(stem.to_owned());
        if let Some(stem) = stem.strip_suffix('e') {
            add(stem.to_owned());
        }
    }
    for ending in ["ing", "ed"] {
        if let Some(stem) = word.strip_suffix(ending) {
            add(stem.to_owned());
            add(format!("{stem}e"));
            let mut letters = stem.chars().rev();
            if letters
                .next()
                .is_some_and(|last| letters.next() == Some(last))
            {
                let single = stem.chars().count() - 1;
                add(stem.chars().take(single).collect());
            }
        }
    }
    forms
}

/// How Indonesian writes what it borrows: endings, first match counts.
const ENDINGS: &[(&str, &str)] = &[
    ("nction", "ngsi"),
    ("nctional", "ngsional"),
    ("ctional", "ksional"),
    ("tional", "sional"),
    ("ction", "ksi"),
    ("ssion", "si"),
    ("sation", "sasi"),
    ("zation", "sasi"),
    ("tion", "si"),
    ("sion", "si"),
    ("ical", "ik"),
    ("ive", "if"),
    ("ent", "en"),
    ("ate", "at"),
    ("ity", "itas"),
    ("ics", "ik"),
    ("ic", "ik"),
    ("ist", "is"),
    ("ism", "isme"),
    ("ct", "k"),
    ("cy", "si"),
    ("gy", "gi"),
    ("my", "mi"),
    ("ry", "ri"),
    ("ty", "tas"),
];
/// Letters within a word, first match counts.
const LETTERS: &[(&str, &str)] = &[
    ("cc", "ks"),
    ("ch", "k"),
    ("ck", "k"),
    ("ce", "se"),
    ("ci", "si"),
    ("cy", "si"),
    ("ph", "f"),
    ("th", "t"),
    ("rh", "r"),
    ("qu", "kw"),
    ("ou", "u"),
    ("oo", "u"),
    ("sc", "sk"),
    ("x", "ks"),
    ("c", "k"),
    ("v", "v"),
    ("z", "s"),
    ("y", "i"),
];

/// The word as Indonesian would write it had it been borrowed; none where it would write it alike. Most such
/// words are none: whoever asks looks whether there is one.
pub(super) fn borrowed(word: &str) -> Option<String> {
    let is_plain = word.bytes().all(|letter| letter.is_ascii_lowercase());
    if !is_plain || word.len() < 4 {
        return None;
    }
    let (mut rest, ending) = ENDINGS
        .iter()
        .find_map(|(ending, instead)| Some((word.strip_suffix(ending)?, *instead)))
        .unwrap_or((word, ""));
    let mut written = String::with_capacity(word.len() + 2);
    while let Some(first) = rest.chars().next() {
        let changed = LETTERS
            .iter()
            .find_map(|(letters, instead)| Some((rest.strip_prefix(letters)?, *instead)));
        match changed {
            Some((left, instead)) => {
                written.push_str(instead);
                rest = left;
            }
            None => {
                // A double letter is written once.
                if !written.ends_with(first) || "aeiou".contains(first) {
                    written.push(first);
                }
                rest = &rest[1..];
            }
        }
    }
    written.push_str(ending);
    (written != word).then_some(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_lead_to_the_word_that_synonyms_are_kept_for() {
        for (form, base) in [
            ("printed", "print"),
            ("approved", "approve"),
            ("stopped", "stop"),
            ("verifies", "verify"),
            ("deleting", "delete"),
            ("branches", "branch"),
            ("paid", "pay"),
        ] {
            assert!(
                base_forms(form).iter().any(|one| one == base),
                "{form}: {:?}",
                base_forms(form)
            );
        }
        for word in ["print", "class", "as", "red", "bing"] {
            assert_eq!(base_forms(word), Vec::<String>::new(), "{word}");
        }
    }

    #[test]
    fn borrowed_words_are_written_as_indonesian_writes_them() {
        for (english, indonesian) in [
            ("administration", "administrasi"),
            ("transaction", "transaksi"),
            ("function", "fungsi"),
            ("session", "sesi"),
            ("application", "aplikasi"),
            ("document", "dokumen"),
            ("electronic", "elektronik"),
            ("effective", "efektif"),
            ("activity", "aktivitas"),
            ("export", "eksport"),
            ("photo", "foto"),
            ("social", "sosial"),
            ("district", "distrik"),
            ("synchronization", "sinkronisasi"),
        ] {
            assert_eq!(borrowed(english).as_deref(), Some(indonesian), "{english}");
        }
        assert_eq!(borrowed("print"), None);
        assert_eq!(borrowed("sp2d"), None);
    }
}
