//! What a question asks the words for: its telling words, corrected, with what else they may be called.

use super::text::words;
use super::vocabulary::Vocabulary;
use crate::desk::{Language, Text, language};

/// What another name for a word counts beside the word itself.
const SYNONYM: f64 = 0.8;
/// What a word counts that no entry has. It tells that the question is about something else, but it may
/// also be a name, or a word for which there is another.
const UNKNOWN: f64 = 0.6;
/// The same in an English question, where most words are none of the entries' language.
const UNKNOWN_ENGLISH: f64 = 0.3;
/// The most words of a question that are looked for; the first ones.
const MOST_TERMS: usize = 32;

/// Words that say how something is asked and not what.
const STOP_WORDS: &[&str] = &[
    "ada",
    "adakah",
    "adalah",
    "agar",
    "akan",
    "aku",
    "anda",
    "apa",
    "apakah",
    "apabila",
    "atau",
    "bagaimana",
    "bagaimanakah",
    "bagi",
    "bang",
    "bapak",
    "bu",
    "buat",
    "caranya",
    "cara",
    "dalam",
    "dan",
    "dapat",
    "dari",
    "dengan",
    "di",
    "dong",
    "deh",
    "gimana",
    "gmn",
    "bgmn",
    "hai",
    "halo",
    "hello",
    "hi",
    "hal",
    "ibu",
    "ini",
    "itu",
    "itulah",
    "jadi",
    "jika",
    "juga",
    "kak",
    "kakak",
    "kalau",
    "kalo",
    "kami",
    "kamu",
    "karena",
    "ke",
    "kenapa",
    "knp",
    "kepada",
    "ketika",
    "kita",
    "klo",
    "kok",
    "lagi",
    "loh",
    "mah",
    "maaf",
    "mana",
    "mas",
    "mau",
    "mbak",
    "mengapa",
    "min",
    "admin",
    "minta",
    "mohon",
    "nih",
    "nya",
    "oleh",
    "pada",
    "padahal",
    "pak",
    "para",
    "pas",
    "permisi",
    "pun",
    "saat",
    "saja",
    "saya",
    "sebagai",
    "sebuah",
    "selamat",
    "pagi",
    "siang",
    "sore",
    "malam",
    "seperti",
    "serta",
    "siapa",
    "sih",
    "sudah",
    "supaya",
    "tapi",
    "tentang",
    "terima",
    "kasih",
    "makasih",
    "terus",
    "tetapi",
    "tolong",
    "untuk",
    "waktu",
    "ya",
    "yaa",
    "yang",
    "yuk",
    "bantu",
    "bantuan",
    "bantuannya",
    "solusinya",
    "harus",
    "perlu",
    "ingin",
    "pengen",
    "bisa",
    "bs",
    "the",
    "a",
    "an",
    "is",
    "are",
    "was",
    "were",
    "be",
    "been",
    "am",
    "i",
    "my",
    "me",
    "we",
    "our",
    "you",
    "your",
    "it",
    "its",
    "he",
    "she",
    "they",
    "their",
    "to",
    "of",
    "in",
    "on",
    "at",
    "for",
    "from",
    "by",
    "with",
    "and",
    "or",
    "but",
    "how",
    "what",
    "why",
    "when",
    "where",
    "which",
    "who",
    "do",
    "does",
    "did",
    "can",
    "could",
    "should",
    "would",
    "will",
    "shall",
    "may",
    "please",
    "help",
    "this",
    "that",
    "these",
    "those",
    "there",
    "have",
    "has",
    "had",
    "if",
    "so",
    "as",
    "after",
    "before",
    "into",
    "than",
    "then",
    "there's",
    "s",
    "t",
    "re",
    "ve",
    "ll",
    "m",
    "d",
    "get",
    "any",
    "some",
    "about",
    "want",
    "need",
    "thanks",
    "hey",
];

/// One of the names under which a term is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    /// A word or several.
    pub text: String,
    /// What an entry with it gains.
    pub weight: f64,
}

/// A telling word of the question.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What the term counts, whether anything is found of it or not.
    pub weight: f64,
    /// Its names; an entry gains the best of those it has.
    pub alternatives: Vec<Alternative>,
}

/// What is looked for by words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The terms, in the order of the question.
    pub terms: Vec<Term>,
    /// What was taken for a slip of the keyboard, and for what.
    pub corrected: Vec<(String, String)>,
}

impl Plan {
    /// Reads a question.
    #[must_use]
    pub fn of(question: &str, vocabulary: &Vocabulary) -> Self {
        let words: Vec<String> = words(question).collect();
        let unknown = match language(&Text::of(question)) {
            Language::En => UNKNOWN_ENGLISH,
            Language::Id => UNKNOWN,
        };
        let mut plan = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (place, word) in words.iter().enumerate() {
            let pair = words.get(place + 1).map(|next| format!("{word} {next}"));
            let pair_means = pair
                .as_deref()
                .map_or(&[][..], |pair| vocabulary.meanings(pair));
            let is_stop = STOP_WORDS.contains(&word.as_str());
            if (is_stop && pair_means.is_empty())
                || seen.contains(word)
                || plan.terms.len() >= MOST_TERMS
            {
                continue;
            }
            seen.push(word.clone());
            plan.add(word, pair_means, unknown, vocabulary);
        }
        plan
    }

    /// What all terms count together.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.terms.iter().map(|term| term.weight).sum()
    }

    fn add(&mut self, word: &str, pair_means: &[String], unknown: f64, vocabulary: &Vocabulary) {
        let meanings = vocabulary.meanings(word);
        let mut own = word;
        if !vocabulary.has(word)
            && meanings.is_empty()
            && pair_means.is_empty()
            && let Some(meant) = vocabulary.correction(word)
        {
            self.corrected.push((word.to_owned(), meant.to_owned()));
            own = meant;
        }
        let mut alternatives = Vec::new();
        if vocabulary.has(own) {
            alternatives.push(Alternative {
                text: own.to_owned(),
                weight: vocabulary.weight(own),
            });
        }
        // A corrected word may have other names, too.
        let others = if own == word {
            meanings
        } else {
            vocabulary.meanings(own)
        };
        for text in others.iter().chain(pair_means) {
            let weight = text
                .split(' ')
                .map(|part| vocabulary.weight(part))
                .fold(0.0, f64::max);
            if text.split(' ').all(|part| vocabulary.has(part)) {
                alternatives.push(Alternative {
                    text: text.clone(),
                    weight: SYNONYM * weight,
                });
            }
        }
        let best = alternatives
            .iter()
            .map(|one| one.weight)
            .fold(0.0, f64::max);
        let weight = match alternatives.is_empty() {
            true => unknown * vocabulary.weight(own),
            false => best,
        };
        // The forms of a word that the entries do not write are found by their stem.
        if alternatives.is_empty() {
            alternatives.push(Alternative {
                text: own.to_owned(),
                weight,
            });
        }
        self.terms.push(Term {
            weight,
            alternatives,
        });
    }
}

/// The words of a text that say what it is about, as they are written, in lower case.
pub fn telling_words(text: &str) -> impl Iterator<Item = String> {
    words(text).filter(|word| !STOP_WORDS.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::Word;
    use super::*;

    fn vocabulary() -> Vocabulary {
        let words = ["gagal", "simpan", "laporan", "password", "tidak", "login"];
        let words = words.iter().enumerate().map(|(place, word)| Word {
            word: (*word).to_owned(),
            lexeme: (*word).to_owned(),
            documents: 2 + u32::try_from(place).unwrap(),
        });
        let synonyms = [
            ("ga", "tidak"),
            ("kata sandi", "password"),
            ("lap", "laporan"),
            ("vendor", "rekanan"),
        ];
        let synonyms = synonyms.map(|(word, means)| (word.to_owned(), means.to_owned()));
        Vocabulary::new(60, words.collect(), synonyms.to_vec())
    }

    fn looked_for(question: &str) -> Vec<String> {
        let plan = Plan::of(question, &vocabulary());
        let names = |term: &Term| {
            let names: Vec<_> = term
                .alternatives
                .iter()
                .map(|one| one.text.as_str())
                .collect();
            names.join("|")
        };
        plan.terms.iter().map(names).collect()
    }

    #[test]
    fn a_question_is_reduced_to_what_it_is_about() {
        assert_eq!(
            looked_for("Min, kenapa ya laporannya gagal disimpan?"),
            ["laporannya", "gagal", "disimpan"]
        );
        assert_eq!(looked_for("lap ga ada"), ["laporan", "tidak"]);
        assert_eq!(looked_for("kata sandi saya"), ["password", "sandi"]);
        assert_eq!(looked_for("lpaoran gagl gagl"), ["laporan", "gagal"]);
        assert_eq!(looked_for("how do I get this?"), Vec::<String>::new());
    }

    #[test]
    fn what_was_corrected_is_told_and_what_is_unknown_counts_against_it() {
        let plan = Plan::of("laproan kucing", &vocabulary());
        assert_eq!(
            plan.corrected,
            [("laproan".to_owned(), "laporan".to_owned())]
        );
        assert!(plan.weight() > plan.terms[0].weight);
        let synonym = Plan::of("vendor", &vocabulary());
        assert_eq!(
            synonym.terms[0].alternatives[0].text, "vendor",
            "no entry has what it means"
        );
    }
}
