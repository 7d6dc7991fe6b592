//! The words of a collection: how rare each is, what a misspelt one was meant to be, and what people say
//! for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::knowledge::words;
use crate::store::{StoreResult, UserTx};

/// Shorter words have too many neighbours to be corrected.
const SHORTEST: usize = 4;
/// From this length on two letters may be wrong, but not the first.
const TWO_WRONG: usize = 8;
/// Vocabularies a process keeps, one for each collection.
const KEPT: usize = 16;

/// A word as it is written in the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// In lower case.
    pub word: String,
    /// What full text search reduces it to.
    pub lexeme: String,
    /// Entries it is in.
    pub documents: u32,
}

/// The words of a collection at one version of it.
#[derive(Debug, Default)]
pub struct Vocabulary {
    documents: f64,
    words: HashMap<String, (u32, String)>,
    lexemes: HashMap<String, u32>,
    by_length: HashMap<usize, Vec<(Vec<char>, u32)>>,
    synonyms: HashMap<String, Vec<String>>,
}

impl Vocabulary {
    /// The vocabulary of so many entries, with what people say for what it has.
    #[must_use]
    pub fn new(documents: u32, words: Vec<Word>, synonyms: Vec<(String, String)>) -> Self {
        let mut vocabulary = Self {
            documents: f64::from(documents),
            ..Self::default()
        };
        for Word {
            word,
            lexeme,
            documents,
        } in words
        {
            *vocabulary.lexemes.entry(lexeme.clone()).or_default() += documents;
            let letters: Vec<char> = word.chars().collect();
            vocabulary
                .by_length
                .entry(letters.len())
                .or_default()
                .push((letters, documents));
            vocabulary.words.insert(word, (documents, lexeme));
        }
        for (word, means) in synonyms {
            vocabulary.synonyms.entry(word).or_default().push(means);
        }
        vocabulary
    }

    /// Whether an entry has the word, in any of its forms that the entries use.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.words.contains_key(word)
    }

    /// What the word, or the words together, stand for.
    #[must_use]
    pub fn meanings(&self, word: &str) -> &[String] {
        self.synonyms.get(word).map_or(&[], Vec::as_slice)
    }

    /// Whether an entry has the word, or somebody has said what it means.
    #[must_use]
    pub fn knows(&self, word: &str) -> bool {
        self.has(word) || self.synonyms.contains_key(word)
    }

    /// About how many entries have the words together, in whatever form: no more than have the rarest of them.
    #[must_use]
    pub fn having(&self, words: &str) -> u32 {
        let having = words.split(' ').map(|word| {
            let lexeme = self.words.get(word).map(|(_, lexeme)| lexeme);
            let together = lexeme.and_then(|lexeme| self.lexemes.get(lexeme));
            together.copied().unwrap_or(0)
        });
        having.min().unwrap_or(0)
    }

    /// How much a word tells: the logarithm of how rare it is. One that no entry has tells most.
    #[must_use]
    pub fn weight(&self, word: &str) -> f64 {
        let having = f64::from(self.having(word)).min(self.documents);
        (1.0 + (self.documents - having + 0.5) / (having + 0.5)).ln()
    }

    /// The word of the entries that was probably meant; none where this is one of theirs, too short to
    /// tell, or a number. The nearest one counts, among equals the one that begins alike, then the most
    /// frequent.
    #[must_use]
    pub fn correction(&self, word: &str) -> Option<&str> {
        let length = word.chars().count();
        self.nearest(word, if length < TWO_WRONG { 1 } else { 2 })
    }

    /// The same with no more than so many letters wrong, which must be fewer than [`SHORTEST`].
    pub(super) fn nearest(&self, word: &str, allowed: usize) -> Option<&str> {
        let letters: Vec<char> = word.chars().collect();
        if self.has(word) || letters.len() < SHORTEST || letters.iter().any(char::is_ascii_digit) {
            return None;
        }
        let mut best: Option<(usize, bool, std::cmp::Reverse<u32>, &[char])> = None;
        for length in letters.len() - allowed..=letters.len() + allowed {
            for (known, documents) in self.by_length.get(&length).map_or(&[][..], Vec::as_slice) {
                let Some(distance) = distance(&letters, known, allowed) else {
                    continue;
                };
                let begins_otherwise = known.first() != letters.first();
                if distance > 1 && begins_otherwise {
                    continue;
                }
                let found = (
                    distance,
                    begins_otherwise,
                    std::cmp::Reverse(*documents),
                    known.as_slice(),
                );
                if best.as_ref().is_none_or(|best| found < *best) {
                    best = Some(found);
                }
            }
        }
        let (.., known) = best?;
        let known: String = known.iter().collect();
        self.words
            .get_key_value(&known)
            .map(|(word, _)| word.as_str())
    }
}

/// Letters to insert, leave out, replace or swap with their neighbour, if they are no more than `most`.
fn distance(left: &[char], right: &[char], most: usize) -> Option<usize> {
    if left.len().abs_diff(right.len()) > most {
        return None;
    }
    let width = right.len() + 1;
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (vec![0; width], (0..width).collect());
    for (row, letter) in left.iter().enumerate() {
        let mut this = vec![row + 1; width];
        let mut smallest = row + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != other);
            let mut cost = replaced.min(last[column + 1] + 1).min(this[column] + 1);
            let swapped =
                row > 0 && column > 0 && left[row - 1] == *other && *letter == right[column - 1];
            if swapped {
                cost = cost.min(before[column - 1] + 1);
            }
            this[column + 1] = cost;
            smallest = smallest.min(cost);
        }
        if smallest > most {
            return None;
        }
        before = std::mem::replace(&mut last, this);
    }
    last.last().copied().filter(|distance| *distance <= most)
}

/// The vocabularies a process has read, read again when their collection has changed.
#[derive(Debug, Default)]
pub struct Vocabularies(Mutex<HashMap<String, (i64, Arc<Vocabulary>)>>);

impl Vocabularies {
    /// The words of a collection as they are now; none where there is no such collection.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of(
        &self,
        tx: &mut UserTx,
        collection: &str,
    ) -> StoreResult<Option<Arc<Vocabulary>>> {
        let Some(version) = words::version(tx, collection).await? else {
            return Ok(None);
        };
        if let Some((known, vocabulary)) = self.lock().get(collection)
            && *known == version
        {
            return Ok(Some(Arc::clone(vocabulary)));
        }
        let read = words::read(tx, collection).await?;
        let vocabulary = Arc::new(Vocabulary::new(read.documents, read.words, read.synonyms));
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(collection.to_owned(), (version, Arc::clone(&vocabulary)));
        Ok(Some(vocabulary))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (i64, Arc<Vocabulary>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        let word = |word: &str, lexeme: &str, documents| Word {
            word: word.to_owned(),
            lexeme: lexeme.to_owned(),
            documents,
        };
        let words = vec![
            word("gagal", "gagal", 40),
            word("laporan", "lapor", 10),
            word("pelaporan", "lapor", 5),
            word("anggaran", "anggar", 8),
            word("bendahara", "bendahara", 3),
            word("sp2d", "sp2d", 4),
        ];
        Vocabulary::new(100, words, vec![("lap".to_owned(), "laporan".to_owned())])
    }

    #[test]
    fn misspelt_words_are_found_and_known_ones_left_alone() {
        let vocabulary = vocabulary();
        for (written, meant) in [
            ("gagla", Some("gagal")),
            ("gagl", Some("gagal")),
            ("laproan", Some("laporan")),
            ("anggran", Some("anggaran")),
            ("angaran", Some("anggaran")),
            ("bedahara", Some("bendahara")),
            ("benhadara", Some("bendahara")),
            ("laporan", None),
            ("sp2", None),
            ("sp3d", None),
            ("gal", None),
            ("kucing", None),
        ] {
            assert_eq!(vocabulary.correction(written), meant, "{written}");
        }
    }

    #[test]
    fn rare_words_tell_more_and_forms_of_a_word_count_together() {
        let vocabulary = vocabulary();
        assert!(vocabulary.weight("bendahara") > vocabulary.weight("laporan"));
        assert!(vocabulary.weight("laporan") > vocabulary.weight("gagal"));
        assert_eq!(vocabulary.weight("laporan"), vocabulary.weight("pelaporan"));
        assert!(vocabulary.weight("kucing") > vocabulary.weight("bendahara"));
        assert_eq!(vocabulary.meanings("lap"), ["laporan"]);
    }
}
