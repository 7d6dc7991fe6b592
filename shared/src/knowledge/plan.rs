//! What a question asks the words for: its telling words, corrected, with what else they may be called.

use super::english;
use super::stop_words::is_stop_word;
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
/// What more entries have than this is common. Scoring a text for a term takes about a microsecond.
const COMMON: u32 = 2_000;

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
    /// So many entries have it that looking for it costs more than it tells.
    pub common: bool,
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
        let mut is_told = false;
        for (place, word) in words.iter().enumerate() {
            // The second word of a pair that means something has been read with the first.
            let is_read = std::mem::take(&mut is_told) && !vocabulary.knows(word);
            let pair = words.get(place + 1).map(|next| format!("{word} {next}"));
            let pair_means = pair
                .as_deref()
                .map_or(&[][..], |pair| vocabulary.meanings(pair));
            is_told = !pair_means.is_empty();
            if is_read
                || (is_stop_word(word) && pair_means.is_empty())
                || seen.contains(word)
                || plan.terms.len() >= MOST_TERMS
            {
                continue;
            }
            seen.push(word.clone());
            plan.add(word, pair_means, unknown, vocabulary);
        }
        plan.spare_common(vocabulary);
        plan
    }

    /// Marks the common terms, but for the rarest of those that entries have: something must be looked for.
    fn spare_common(&mut self, vocabulary: &Vocabulary) {
        let having = |term: &Term| {
            let having = term
                .alternatives
                .iter()
                .map(|one| vocabulary.having(&one.text));
            having.sum::<u32>()
        };
        let rarest = (0..self.terms.len())
            .filter(|place| having(&self.terms[*place]) > 0)
            .min_by_key(|place| having(&self.terms[*place]));
        for (place, term) in self.terms.iter_mut().enumerate() {
            term.common = Some(place) != rarest && having(term) > COMMON;
        }
    }

    /// What all terms count together.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.terms.iter().map(|term| term.weight).sum()
    }

    fn add(&mut self, word: &str, pair_means: &[String], unknown: f64, vocabulary: &Vocabulary) {
        let read = match pair_means.is_empty() {
            true => Read::of(word, vocabulary),
            // The pair tells what the word is, so it is none that is written wrongly.
            false => Read::as_written(word, vocabulary),
        };
        if read.corrected {
            self.corrected.push((word.to_owned(), read.own.clone()));
        }
        let own = read.own.as_str();
        let mut alternatives = Vec::new();
        if vocabulary.has(own) {
            alternatives.push(Alternative {
                text: own.to_owned(),
                weight: vocabulary.weight(own),
            });
        }
        let others = || read.meanings.iter().chain(pair_means);
        for text in others() {
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
        // Forms that the entries do not write are found by their stem.
        if alternatives.is_empty() {
            let texts = std::iter::once(own).chain(others().map(String::as_str));
            alternatives.extend(texts.map(|text| Alternative {
                text: text.to_owned(),
                weight,
            }));
        }
        self.terms.push(Term {
            weight,
            alternatives,
            common: false,
        });
    }
}

/// A word of a question as it is understood.
struct Read<'a> {
    own: String,
    /// What it stands for.
    meanings: &'a [String],
    /// It was taken for a slip of the keyboard.
    corrected: bool,
}

impl<'a> Read<'a> {
    fn as_written(word: &str, vocabulary: &'a Vocabulary) -> Self {
        Self {
            own: word.to_owned(),
            meanings: vocabulary.meanings(word),
            corrected: false,
        }
    }

    /// As it is written, or else as another form of an English word, or as one that Indonesian has borrowed, or
    /// as what was probably meant.
    fn of(word: &str, vocabulary: &'a Vocabulary) -> Self {
        let known = |word: &str| {
            let read = Self::as_written(word, vocabulary);
            (vocabulary.has(word) || !read.meanings.is_empty()).then_some(read)
        };
        let forms = english::base_forms(word);
        let written = std::iter::once(word).chain(forms.iter().map(String::as_str));
        let borrowed = written.clone().filter_map(english::borrowed);
        if let Some(read) = written
            .clone()
            .find_map(known)
            .or_else(|| borrowed.clone().find_map(|word| known(&word)))
        {
            return read;
        }
        let meant = |word: &str, wrong: usize| {
            let meant = vocabulary.nearest(word, wrong)?;
            known(meant)
        };
        let slip = |read: Self| Self {
            corrected: true,
            ..read
        };
        meant(word, 1)
            .map(slip)
            .or_else(|| borrowed.clone().find_map(|word| meant(&word, 1)))
            .or_else(|| vocabulary.correction(word).and_then(known).map(slip))
            .unwrap_or_else(|| Self::as_written(word, vocabulary))
    }
}

/// The words of a text that say what it is about, as they are written, in lower case.
pub fn telling_words(text: &str) -> impl Iterator<Item = String> {
    words(text).filter(|word| !is_stop_word(word))
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::Word;
    use super::*;

    fn vocabulary() -> Vocabulary {
        let words = [
            "gagal",
            "simpan",
            "laporan",
            "password",
            "tidak",
            "login",
            "transaksi",
        ];
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
            ("fail", "gagal"),
            ("report", "laporan"),
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
        assert_eq!(looked_for("kata sandi saya"), ["password"]);
        assert_eq!(looked_for("lpaoran gagl gagl"), ["laporan", "gagal"]);
        assert_eq!(looked_for("how do I get this?"), Vec::<String>::new());
    }

    #[test]
    fn english_words_are_found_in_other_forms_and_as_indonesian_borrowed_them() {
        // A form of a word that has a meaning, and a loan-word that has none and needs none.
        assert_eq!(looked_for("vendors"), ["vendor|rekanan"]);
        assert_eq!(looked_for("failing reports"), ["gagal", "laporan"]);
        let plan = Plan::of("the transaction is not verified", &vocabulary());
        assert_eq!(plan.terms[0].alternatives[0].text, "transaksi");
        assert_eq!(plan.corrected, [], "that is no slip of the keyboard");
    }

    #[test]
    fn what_most_entries_have_is_not_looked_for_unless_there_is_nothing_else() {
        let word = |word: &str, documents| Word {
            word: word.to_owned(),
            lexeme: word.to_owned(),
            documents,
        };
        let words = vec![
            word("gagal", 9_000),
            word("simpan", 5_000),
            word("sp2d", 30),
        ];
        let vocabulary = Vocabulary::new(10_000, words, Vec::new());
        let common = |question: &str| {
            let terms = Plan::of(question, &vocabulary).terms;
            terms.iter().map(|term| term.common).collect::<Vec<_>>()
        };
        assert_eq!(common("gagal simpan sp2d"), [true, true, false]);
        assert_eq!(common("gagal simpan"), [true, false]);
        assert_eq!(common("gagal kucing"), [false, false]);
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
