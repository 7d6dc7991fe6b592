//! The two legs of a search.

use uuid::Uuid;

use crate::knowledge::Term;
use crate::store::{StoreResult, UserTx};

/// A text that has words of the question.
#[derive(Clone, Debug)]
pub struct WordHit {
    /// The entry it belongs to.
    pub document_id: Uuid,
    /// The weights of the terms it has, each by how prominently it has it.
    pub score: f64,
    /// The weights of the terms it has.
    pub covered: f64,
    /// How many terms it has.
    pub matched: i64,
}

/// A text that is near.
#[derive(Clone, Debug)]
pub struct VectorHit {
    /// The entry it belongs to.
    pub document_id: Uuid,
    /// Its cosine similarity.
    pub similarity: f64,
}

/// The texts that have the most telling words of the question, best first. A term is looked for under all
/// its names and counts by the best of those a text has; what stands in menu or issue counts ten times as
/// much as what stands in the answer. Common terms count in the texts that the others find, and are looked
/// for only where those find nothing.
///
/// # Errors
/// When the database fails.
pub async fn by_words(
    tx: &mut UserTx,
    collection: &str,
    terms: &[Term],
    limit: i64,
) -> StoreResult<Vec<WordHit>> {
    let hits = hits(tx, collection, terms, limit, true).await?;
    if hits.is_empty() && terms.iter().any(|term| term.common) {
        return self::hits(tx, collection, terms, limit, false).await;
    }
    Ok(hits)
}

async fn hits(
    tx: &mut UserTx,
    collection: &str,
    terms: &[Term],
    limit: i64,
    spare_common: bool,
) -> StoreResult<Vec<WordHit>> {
    let mut places: Vec<i32> = Vec::new();
    let (mut names, mut weights, mut common) = (Vec::new(), Vec::new(), Vec::new());
    for (term, place) in terms.iter().zip(0..) {
        for alternative in &term.alternatives {
            places.push(place);
            names.push(alternative.text.clone());
            weights.push(alternative.weight);
            common.push(spare_common && term.common);
        }
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let hits = sqlx::query_as!(
        WordHit,
        r#"WITH names AS MATERIALIZED (
               SELECT n.place, n.weight, n.common, plainto_tsquery('pg_catalog.indonesian', n.name) AS query
               FROM unnest($2::integer[], $3::text[], $4::float8[], $5::boolean[]) n (place, name, weight, common)
           ), found AS MATERIALIZED (
               SELECT c.id, c.document_id, n.place, n.weight,
                      n.weight * ts_rank('{0.06, 0.1, 0.4, 1.0}', c.words, n.query) AS score
               FROM names n JOIN chat.knowledge_chunks c ON c.words @@ n.query AND c.collection = $1
               WHERE NOT n.common AND numnode(n.query) > 0
           ), beside AS (
               SELECT f.id, f.document_id, n.place, n.weight,
                      n.weight * ts_rank('{0.06, 0.1, 0.4, 1.0}', c.words, n.query) AS score
               FROM (SELECT * FROM names WHERE common AND numnode(query) > 0) n
               CROSS JOIN (SELECT DISTINCT id, document_id FROM found) f
               CROSS JOIN LATERAL (SELECT o.words FROM chat.knowledge_chunks o WHERE o.id = f.id OFFSET 0) c
               WHERE c.words @@ n.query
           ), hits AS (
               SELECT a.id, a.document_id, a.place, max(a.weight) AS weight, max(a.score) AS score
               FROM (SELECT * FROM found UNION ALL SELECT * FROM beside) a
               GROUP BY a.id, a.document_id, a.place
           )
           SELECT h.document_id AS "document_id!", sum(h.score)::float8 AS "score!", sum(h.weight)::float8 AS "covered!",
                  count(*) AS "matched!"
           FROM hits h GROUP BY h.id, h.document_id
           ORDER BY 2 DESC, 3 DESC, h.id LIMIT $6"#,
        collection,
        &places,
        &names,
        &weights,
        &common,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(hits)
}

/// The texts whose vectors are nearest, best first.
///
/// # Errors
/// When the database fails.
pub async fn by_vector(
    tx: &mut UserTx,
    profile_id: Uuid,
    collection: &str,
    vector: &[f32],
    limit: i64,
) -> StoreResult<Vec<VectorHit>> {
    let hits = sqlx::query_as!(
        VectorHit,
        r#"SELECT c.document_id AS "document_id!", n.similarity AS "similarity!"
           FROM chat.nearest($1, $2, $3, $4) n JOIN chat.knowledge_chunks c ON c.id = n.chunk_id
           ORDER BY n.similarity DESC, c.id"#,
        profile_id,
        text(vector),
        collection,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(hits)
}

/// A vector as pgvector reads it.
#[must_use]
pub fn text(vector: &[f32]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(vector.len() * 12);
    for (place, number) in vector.iter().enumerate() {
        let _ = write!(text, "{}{number}", if place == 0 { '[' } else { ',' });
    }
    text.push(']');
    text
}
