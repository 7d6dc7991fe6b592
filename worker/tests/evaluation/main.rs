//! How well the knowledge base finds what is asked for: the evaluation of docs/evaluation.md, on real
//! Postgres. `cargo xtask eval` shows its table.
//!
//! Entries and questions are written by hand and synthetic. They are split by entry: weights, thresholds
//! and synonyms come from the development half only, and what is promised is measured on the other.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod by_model;
#[path = "../common/mod.rs"]
mod common;
mod figures;
mod intents;
#[path = "../knowledge/rig.rs"]
#[expect(dead_code, reason = "each test binary uses its own part of the rig")]
mod rig;
mod speed;

use shared::domain::EmbeddingProfile;
use shared::knowledge::{Searched, Vocabularies, search};
use shared::store::knowledge::profiles;

use crate::common::Fleet;
use crate::figures::{Asked, Figures, Outcome};

const ENTRIES: &str = include_str!("../../../docs/evaluation/entries.csv");
const QUESTIONS: &str = include_str!("../../../docs/evaluation/queries.tsv");
const TOP: usize = 10;

/// The issue of each entry, in the order of the file.
fn issues() -> Vec<&'static str> {
    let rows = ENTRIES.lines().skip(1);
    rows.map(|row| row.split(',').nth(1).expect("a row has an issue"))
        .collect()
}

fn questions() -> Vec<Asked> {
    let lines = QUESTIONS.lines().enumerate();
    lines
        .map(|(number, line)| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [stratum, entry, text] = fields[..] else {
                panic!("three fields: {line}");
            };
            let entry: usize = entry.parse().unwrap();
            let is_dev = if entry == 0 {
                number.is_multiple_of(2)
            } else {
                entry.is_multiple_of(2)
            };
            Asked {
                stratum,
                entry: entry.checked_sub(1),
                is_dev,
                text,
            }
        })
        .collect()
}

fn outcome(issues: &[&str], asked: &Asked, found: &Searched) -> Outcome {
    let rank = asked.entry.and_then(|entry| {
        let place = found
            .results
            .iter()
            .position(|one| one.document.issue == issues[entry]);
        place.map(|place| place + 1)
    });
    Outcome {
        asked: *asked,
        rank,
        answered: found.answerable,
    }
}

/// Every question, by words and, where there is a vector, by both.
async fn run(fleet: &Fleet, with_vectors: bool) -> Vec<Outcome> {
    let (issues, vocabularies) = (issues(), Vocabularies::default());
    let mut outcomes = Vec::new();
    for asked in questions() {
        let vector = match with_vectors {
            true => {
                let patience = std::time::Duration::from_secs(20);
                shared::knowledge::ask(&fleet.redis, fleet.user, asked.text, patience)
                    .await
                    .unwrap()
            }
            false => None,
        };
        let mut tx = fleet.api.user(fleet.user).await.unwrap();
        let profile: Option<EmbeddingProfile> = profiles::active(&mut tx).await.unwrap();
        let vector = vector
            .as_ref()
            .map(|asked| (profile.as_ref().unwrap(), asked.vector.as_slice()));
        let found = search(&mut tx, &vocabularies, "default", asked.text, vector, TOP)
            .await
            .unwrap();
        let outcome = outcome(&issues, &asked, &found);
        if !outcome.is_right() && !with_vectors && asked.is_dev {
            let first = found.results.first().map(|one| one.document.issue.as_str());
            println!(
                "dev miss: {asked:?} rank {:?} coverage {:.2} first {first:?}",
                outcome.rank, found.signals.coverage
            );
        }
        outcomes.push(outcome);
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_of_the_words_holds_on_the_held_out_half() {
    let fleet = Fleet::new().await;
    let _worker = rig::worker(&fleet, "w1");
    let done = rig::ended(&fleet, rig::upload(&fleet, ENTRIES).await).await;
    assert_eq!(
        usize::try_from(done.documents_new).unwrap(),
        issues().len(),
        "{done:?}"
    );
    let words = run(&fleet, false).await;
    let both = run(&fleet, true).await;
    println!(
        "\nWords alone (full text, spelling, synonyms)\n{}",
        figures::table(&words)
    );
    println!(
        "\nWords and the hermetic embedder, which proves plumbing and not quality\n{}",
        figures::table(&both)
    );
    for (legs, outcomes) in [("by words", &words), ("with the hermetic embedder", &both)] {
        promised(legs, outcomes);
    }
}

/// Fails where the held-out half falls below what docs/evaluation.md promises of it.
fn promised(legs: &str, outcomes: &[Outcome]) {
    let of = |strata: &[&str]| {
        Figures::of(
            outcomes
                .iter()
                .filter(|one| !one.asked.is_dev && strata.contains(&one.asked.stratum)),
        )
    };
    let indonesian = of(&["formal", "colloquial"]).recall_5;
    let typos = of(&["typo"]).recall_5;
    let abstain = of(&["formal", "colloquial", "typo", "none"]).abstain_precision;
    let with_english = of(&["formal", "colloquial", "english", "typo", "none"]).abstain_precision;
    println!(
        "\nHeld out, {legs}: Indonesian R@5 {indonesian:.3}, typing mistakes R@5 {typos:.3}, abstain precision {abstain:.3} ({with_english:.3} with English)"
    );
    assert!(
        indonesian >= 0.90,
        "{legs}: Indonesian R@5 is {indonesian:.3}"
    );
    assert!(
        typos >= 0.95,
        "{legs}: R@5 of misspelt questions is {typos:.3}"
    );
    for precision in [abstain, with_english] {
        assert!(
            precision >= 0.9,
            "{legs}: abstain precision is {precision:.3}"
        );
    }
}
