//! What people ask and the knowledge base does not answer, as groups of questions about the same. The same
//! questions give the same groups: nothing here depends on chance, on time or on the order of a hash.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use super::mask::MASKS;
use crate::domain::Gap;
use crate::knowledge::telling_words;

/// The share of their words that two questions about the same have in common (twice the common ones by all).
const ALIKE: f64 = 0.5;
/// What is before and behind the part of an Indonesian word that is compared, and how short that may become.
/// The rules are coarse: they only have to make the same of the same.
const BEFORE: [&str; 11] = [
    "meng", "mem", "men", "peng", "pem", "pen", "ber", "ter", "di", "me", "nge",
];
const BEHIND: [&str; 6] = ["nya", "kah", "lah", "kan", "an", "i"];
const LEFT: usize = 4;
/// Questions of a group that are shown.
const EXAMPLES: usize = 5;
/// Words of a question that are compared, so that a long one costs no more than that.
const WORDS: usize = 24;

/// Questions about the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The question that most of them resemble; the oldest of several.
    pub question: String,
    /// How many there are.
    pub count: usize,
    /// Those that were not answered.
    pub unanswered: usize,
    /// Those whose answer did not help.
    pub down_voted: usize,
    /// Conversations they were asked in.
    pub conversations: usize,
    /// What they are about, the most frequent first.
    pub intents: Vec<String>,
    /// Different ways they were asked, the newest first, at most five.
    pub examples: Vec<String>,
    /// When it was asked first.
    pub first_at: OffsetDateTime,
    /// When it was asked last.
    pub last_at: OffsetDateTime,
}

/// Words of a question as they are compared.
type Words = BTreeSet<String>;

struct Group {
    /// The words of its first question, to which others are compared: a group does not wander.
    words: Words,
    members: Vec<usize>,
}

/// Groups questions, which are given oldest first. The largest group comes first; of equal ones, the one that
/// was asked last.
#[must_use]
pub fn clusters(gaps: &[Gap]) -> Vec<Cluster> {
    let words: Vec<Words> = gaps.iter().map(|gap| compared(&gap.question)).collect();
    let mut groups: Vec<Group> = Vec::new();
    let mut by_word: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (member, its) in words.iter().enumerate() {
        let group = nearest(&groups, &by_word, its).unwrap_or_else(|| {
            for word in its {
                by_word.entry(word.clone()).or_default().push(groups.len());
            }
            groups.push(Group {
                words: its.clone(),
                members: Vec::new(),
            });
            groups.len() - 1
        });
        groups[group].members.push(member);
    }
    let mut clusters: Vec<Cluster> = groups
        .iter()
        .map(|group| cluster(gaps, &words, &group.members))
        .collect();
    clusters.sort_by(|left, right| {
        (right.count, right.last_at, &left.question).cmp(&(
            left.count,
            left.last_at,
            &right.question,
        ))
    });
    clusters
}

fn compared(question: &str) -> Words {
    // What stands for something that is not shown says nothing.
    let shown = MASKS
        .iter()
        .fold(question.to_owned(), |text, mask| text.replace(mask, " "));
    telling_words(&shown)
        .map(|word| stem(&word).to_owned())
        .take(WORDS)
        .collect()
}

fn stem(word: &str) -> &str {
    let long = |rest: &&str| rest.chars().count() >= LEFT;
    let mut stem = word;
    let front = BEFORE.iter().find_map(|start| stem.strip_prefix(start));
    if let Some(rest) = front.filter(long) {
        stem = rest;
    }
    // One may follow another: `pencetakannya`.
    for end in BEHIND {
        if let Some(rest) = stem.strip_suffix(end).filter(long) {
            stem = rest;
        }
    }
    stem
}

/// The group that is most alike, the oldest of several; none where none is alike enough.
fn nearest(
    groups: &[Group],
    by_word: &BTreeMap<String, Vec<usize>>,
    words: &Words,
) -> Option<usize> {
    let mut common: BTreeMap<usize, usize> = BTreeMap::new();
    for word in words {
        for group in by_word.get(word).into_iter().flatten() {
            *common.entry(*group).or_default() += 1;
        }
    }
    let mut best: Option<(usize, f64)> = None;
    for (group, common) in common {
        let alike = share(common, words.len(), groups[group].words.len());
        if alike >= ALIKE && best.is_none_or(|(_, most)| alike > most) {
            best = Some((group, alike));
        }
    }
    // Questions without any word to compare are one group.
    let wordless = || groups.iter().position(|group| group.words.is_empty());
    match words.is_empty() {
        true => wordless(),
        false => best.map(|(group, _)| group),
    }
}

fn share(common: usize, one: usize, other: usize) -> f64 {
    2.0 * common as f64 / (one + other).max(1) as f64
}

fn cluster(gaps: &[Gap], words: &[Words], members: &[usize]) -> Cluster {
    let of = |filter: fn(&Gap) -> bool| members.iter().filter(|at| filter(&gaps[**at])).count();
    let conversations: BTreeSet<_> = members.iter().map(|at| gaps[*at].conversation_id).collect();
    let mut intents: BTreeMap<&str, usize> = BTreeMap::new();
    for at in members {
        *intents.entry(&gaps[*at].intent).or_default() += 1;
    }
    let mut intents: Vec<(&str, usize)> = intents.into_iter().collect();
    intents.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(right.0)));
    let mut examples: Vec<String> = Vec::new();
    for at in members.iter().rev() {
        let question = &gaps[*at].question;
        if examples.len() < EXAMPLES && !examples.contains(question) {
            examples.push(question.clone());
        }
    }
    let times = || members.iter().map(|at| gaps[*at].asked_at);
    Cluster {
        question: gaps[typical(words, members)].question.clone(),
        count: members.len(),
        unanswered: of(|gap| !gap.answered),
        down_voted: of(|gap| gap.answered),
        conversations: conversations.len(),
        intents: intents
            .into_iter()
            .map(|(intent, _)| intent.to_owned())
            .collect(),
        examples,
        first_at: times().min().unwrap_or(OffsetDateTime::UNIX_EPOCH),
        last_at: times().max().unwrap_or(OffsetDateTime::UNIX_EPOCH),
    }
}

/// The member whose words are those of most others. Each is compared with how often a word occurs in the
/// group, so that a large group takes no longer than its words.
fn typical(words: &[Words], members: &[usize]) -> usize {
    let mut frequent: BTreeMap<&str, usize> = BTreeMap::new();
    for at in members {
        for word in &words[*at] {
            *frequent.entry(word).or_default() += 1;
        }
    }
    let weight = |at: usize| -> f64 {
        let sum: usize = words[at].iter().map(|word| frequent[word.as_str()]).sum();
        // Long questions hold many frequent words and much else.
        sum as f64 / (words[at].len() + 2) as f64
    };
    let mut best = members.first().copied().unwrap_or(0);
    for at in members {
        if weight(*at) > weight(best) {
            best = *at;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn asked(questions: &[&str]) -> Vec<Gap> {
        let gap = |(place, question): (usize, &&str)| Gap {
            id: Uuid::from_u128(place as u128),
            conversation_id: Uuid::from_u128(place as u128 / 2),
            question: (*question).to_owned(),
            intent: if place % 3 == 0 {
                "login_issue"
            } else {
                "technical_issue"
            }
            .to_owned(),
            answered: place % 4 == 3,
            asked_at: OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(place as i64),
        };
        questions.iter().enumerate().map(gap).collect()
    }

    const QUESTIONS: [&str; 8] = [
        "Bagaimana cara cetak bukti potong pajak?",
        "token TTE saya kedaluwarsa",
        "min, bukti potong pajaknya ga bisa dicetak, cetak di mana?",
        "Di mana mencetak bukti potong pajak",
        "tte token kedaluwarsa gimana ya",
        "???",
        "cuaca hari ini",
        "cetak bukti potong pajak",
    ];

    #[test]
    fn questions_about_the_same_are_one_group() {
        let clusters = clusters(&asked(&QUESTIONS));
        let shown: Vec<(&str, usize)> = clusters
            .iter()
            .map(|cluster| (cluster.question.as_str(), cluster.count))
            .collect();
        assert_eq!(
            shown,
            [
                ("Bagaimana cara cetak bukti potong pajak?", 4),
                ("token TTE saya kedaluwarsa", 2),
                ("cuaca hari ini", 1),
                ("???", 1)
            ]
        );
        let first = &clusters[0];
        assert_eq!((first.unanswered, first.down_voted), (2, 2));
        assert_eq!(first.conversations, 3);
        assert_eq!(first.examples[0], "cetak bukti potong pajak");
        assert_eq!(first.intents, ["login_issue", "technical_issue"]);
        assert!(first.first_at < first.last_at);
    }

    #[test]
    fn forms_of_a_word_are_the_same_word() {
        for forms in [
            ["cetak", "mencetak", "dicetaknya"],
            ["simpan", "tersimpan", "simpankan"],
            ["laporan", "laporannya", "lapor"],
        ] {
            assert_eq!(forms.map(stem), [stem(forms[0]); 3]);
        }
        assert_eq!(stem("dia"), "dia");
    }

    #[test]
    fn the_same_questions_give_the_same_groups_whatever_else_was_asked() {
        let gaps = asked(&QUESTIONS);
        assert_eq!(clusters(&gaps), clusters(&gaps));
        assert_eq!(clusters(&[]), []);
        let mut more = gaps.clone();
        more.extend(asked(&["resep rendang daging sapi"]));
        assert_eq!(clusters(&more)[0], clusters(&gaps)[0]);
    }

    #[test]
    fn thousands_of_questions_are_grouped_by_their_words_alone() {
        let many: Vec<String> = (0..2000)
            .map(|place| format!("kendala modul{} langkah{}", place % 40, place % 40))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let clusters = clusters(&asked(&many));
        assert_eq!(clusters.len(), 40, "{:?}", clusters[0]);
        assert!(clusters.iter().all(|cluster| cluster.count == 50));
        assert!(clusters.iter().all(|cluster| cluster.examples.len() == 1));
    }
}
