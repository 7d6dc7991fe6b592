//! One search: both legs, fused by rank, the best text of each entry.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::gate::{Signals, answers, relevance};
use super::plan::Plan;
use super::vocabulary::Vocabularies;
use crate::domain::{EmbeddingProfile, KnowledgeDocument, Leg};
use crate::store::knowledge::{documents, search as store};
use crate::store::{StoreResult, UserTx};

/// Candidates of each leg.
const CANDIDATES: i64 = 50;
/// Reciprocal rank fusion: how little the first places differ.
const K: f64 = 60.0;

/// An entry that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Found {
    /// The entry.
    pub document: KnowledgeDocument,
    /// How relevant it is, 0 to 1: the share of the question's words that it has, or its similarity.
    pub score: f64,
    /// What it was ordered by; a sum of reciprocal places, which says nothing by itself.
    pub fused: f64,
    /// Its place by words, with the weight of the words it has.
    pub words: Option<Leg>,
    /// Its place by vectors, with its cosine similarity.
    pub vector: Option<Leg>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Searched {
    /// The entries, best first.
    pub results: Vec<Found>,
    /// Whether the first of them is an answer to the question.
    pub answerable: bool,
    /// What speaks for it.
    pub signals: Signals,
    /// It was searched by words only.
    pub degraded: bool,
    /// What was taken for a slip of the keyboard, and for what.
    pub corrected: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default)]
struct Candidate {
    words: Option<Leg>,
    covered: f64,
    matched: i64,
    vector: Option<Leg>,
}

/// Searches a collection for a question: by words, and by the question's vector where there is one.
///
/// # Errors
/// When the database fails.
pub async fn search(
    tx: &mut UserTx,
    vocabularies: &Vocabularies,
    collection: &str,
    question: &str,
    vector: Option<(&EmbeddingProfile, &[f32])>,
    top_k: usize,
) -> StoreResult<Searched> {
    let Some(vocabulary) = vocabularies.of(tx, collection).await? else {
        return Ok(Searched::default());
    };
    let plan = Plan::of(question, &vocabulary);
    let mut candidates: HashMap<Uuid, Candidate> = HashMap::new();
    let by_words = store::by_words(tx, collection, &plan.terms, CANDIDATES).await?;
    for (hit, rank) in by_words.into_iter().zip(1..) {
        let candidate = candidates.entry(hit.document_id).or_default();
        candidate.covered = candidate.covered.max(hit.covered);
        candidate.matched = candidate.matched.max(hit.matched);
        let leg = Leg {
            rank,
            score: hit.score,
        };
        candidate.words.get_or_insert(leg);
    }
    let mut similarities = Vec::new();
    if let Some((profile, vector)) = vector {
        let by_vector = store::by_vector(tx, profile.id, collection, vector, CANDIDATES).await?;
        for (hit, rank) in by_vector.into_iter().zip(1..) {
            let candidate = candidates.entry(hit.document_id).or_default();
            if candidate.vector.is_none() {
                similarities.push(hit.similarity);
            }
            let leg = Leg {
                rank,
                score: hit.similarity,
            };
            candidate.vector.get_or_insert(leg);
        }
    }
    let profile = vector.map(|(profile, _)| profile);
    let mut ranked: Vec<(Uuid, Candidate, f64)> = candidates
        .into_iter()
        .map(|(id, candidate)| {
            let fused = fused(&candidate, profile);
            (id, candidate, fused)
        })
        .collect();
    // Equal sums are told apart by the words, and then by age, so that the order is always the same.
    ranked.sort_by(|left, right| {
        right
            .2
            .total_cmp(&left.2)
            .then(right.1.covered.total_cmp(&left.1.covered))
            .then(left.0.cmp(&right.0))
    });
    let whole = plan.weight();
    let coverage = |candidate: &Candidate| {
        if whole > 0.0 {
            (candidate.covered / whole).min(1.0)
        } else {
            0.0
        }
    };
    // What is an answer by itself goes before what is only near the top of a list: a weak model has something
    // at the top of its list for every question.
    if let Some(profile) = profile {
        ranked.sort_by_key(|(_, candidate, _)| {
            let alone = Signals {
                coverage: coverage(candidate),
                matched: u32::try_from(candidate.matched).unwrap_or(u32::MAX),
                similarity: candidate.vector.map(|leg| leg.score),
                ..Signals::default()
            };
            !answers(&alone, profile.threshold)
        });
    }
    ranked.truncate(top_k);
    let signals = ranked
        .first()
        .map_or_else(Signals::default, |(_, best, _)| Signals {
            coverage: coverage(best),
            matched: u32::try_from(best.matched).unwrap_or(u32::MAX),
            similarity: best.vector.map(|leg| leg.score),
            margin: best.vector.map(|leg| {
                let next = similarities.iter().filter(|other| **other < leg.score);
                leg.score - next.fold(0.0, |most: f64, other| most.max(*other))
            }),
            agreed: best.words.is_some_and(|leg| leg.rank == 1)
                && best.vector.is_some_and(|leg| leg.rank == 1),
        });
    let ids: Vec<Uuid> = ranked.iter().map(|(id, ..)| *id).collect();
    let mut texts: HashMap<Uuid, KnowledgeDocument> = documents::of(tx, &ids)
        .await?
        .into_iter()
        .map(|document| (document.id, document))
        .collect();
    let results = ranked.into_iter().filter_map(|(id, candidate, fused)| {
        Some(Found {
            // An entry that was deleted meanwhile is not found.
            document: texts.remove(&id)?,
            score: relevance(coverage(&candidate), candidate.vector.map(|leg| leg.score)),
            fused,
            words: candidate.words,
            vector: candidate.vector,
        })
    });
    let results: Vec<Found> = results.collect();
    Ok(Searched {
        answerable: !results.is_empty()
            && answers(&signals, profile.map_or(1.0, |profile| profile.threshold)),
        results,
        signals,
        degraded: vector.is_none(),
        corrected: plan.corrected,
    })
}

fn fused(candidate: &Candidate, profile: Option<&EmbeddingProfile>) -> f64 {
    let place =
        |leg: Option<Leg>, weight: f64| leg.map_or(0.0, |leg| weight / (K + f64::from(leg.rank)));
    let (words, vector) = profile.map_or((1.0, 0.0), |profile| {
        (profile.word_weight, profile.vector_weight)
    });
    place(candidate.words, words) + place(candidate.vector, vector)
}
