//! Everything embedded anew by another model, beside the one that serves; when nothing is missing any more the
//! new one is tried out and takes over in one transaction.

use std::sync::Arc;

use shared::domain::EmbeddingProfile;
use shared::store::StoreResult;
use shared::store::knowledge::indexes::{self, Which};
use shared::store::knowledge::ingestions::{self, Held};
use shared::store::knowledge::profiles;
use shared::store::knowledge::reindex::{self, Swap, Tried};
use uuid::Uuid;

use super::ingest::{Stop, TEXTS, embed_all};
use crate::context::Context;

/// The most texts in a hundred that a model may refuse and still take over.
const MOST_REFUSED: i64 = 5;
/// The fewest in a hundred that must be found by their own vectors.
const LEAST_FOUND: i64 = 80;

/// How it ended, unless it was stopped.
pub(super) enum Ended {
    /// The new model serves, and the ingestion has ended with that.
    Swapped,
    /// It is not fit to.
    Unfit(String),
}

/// Builds the profile of an ingestion and lets it serve.
pub(super) async fn run(context: &Context, held: &Held) -> Result<Ended, Stop> {
    if !context.embedder.config().is_enabled() {
        return Ok(Ended::Unfit("no embedding provider is set".to_owned()));
    }
    let Some(profile) = profile(context, held).await? else {
        return Ok(Ended::Unfit("the profile is gone".to_owned()));
    };
    let mut tx = context.db.user(held.created_by).await?;
    reindex::count(&mut tx, held, profile.id).await?;
    tx.commit().await?;
    loop {
        fill(context, held, &profile).await?;
        let mut tx = context.db.user(held.created_by).await?;
        let tried = reindex::try_out(&mut tx, profile.id).await?;
        drop(tx);
        if let Some(problem) = unfit(&tried) {
            return Ok(Ended::Unfit(problem));
        }
        index(context).await;
        let refused = (tried.refused > 0).then(|| {
            format!(
                "the model refused {} of {} texts; they are found by their words only",
                tried.refused, tried.texts
            )
        });
        let mut tx = context.db.user(held.created_by).await?;
        match reindex::swap(&mut tx, held, profile.id, refused.as_deref()).await? {
            Swap::Done => {
                tx.commit().await?;
                tracing::info!(ingestion.id = %held.id, profile.id = %profile.id, embedding.model = profile.model, "another embedding model serves");
                return Ok(Ended::Swapped);
            }
            // Entries came meanwhile.
            Swap::Incomplete => drop(tx),
            Swap::Lost => return Err(Stop::Lost),
        }
    }
}

async fn profile(context: &Context, held: &Held) -> StoreResult<Option<Arc<EmbeddingProfile>>> {
    let Some(id) = held.profile_id else {
        return Ok(None);
    };
    let mut tx = context.db.user(held.created_by).await?;
    Ok(profiles::find(&mut tx, id).await?.map(Arc::new))
}

/// Embeds what is missing, until one pass over all texts finds nothing.
async fn fill(context: &Context, held: &Held, profile: &Arc<EmbeddingProfile>) -> Result<(), Stop> {
    let mut after = Uuid::nil();
    loop {
        let mut tx = context.db.user(held.created_by).await?;
        let missing = reindex::missing(&mut tx, held, profile.id, after, TEXTS)
            .await?
            .ok_or(Stop::Lost)?;
        tx.commit().await?;
        let Some(last) = missing.last() else {
            return Ok(());
        };
        after = last.id;
        embed_all(context, held, profile, &missing).await?;
    }
}

fn unfit(tried: &Tried) -> Option<String> {
    if tried.refused * 100 > tried.texts * MOST_REFUSED {
        return Some(format!(
            "the model refused {} of {} texts, so the one before still serves",
            tried.refused, tried.texts
        ));
    }
    (tried.found * 100 < tried.looked_for * LEAST_FOUND).then(|| {
        format!(
            "only {} of {} texts are found by their own vectors, so the model before still serves",
            tried.found, tried.looked_for
        )
    })
}

/// A large collection gets its index before it is searched by the new vectors; without one they are all
/// compared, so a failure is no reason to stop.
async fn index(context: &Context) {
    let rules = context.config.knowledge.index;
    match indexes::arrange(&context.config.db, rules, Which::ServingAndNext).await {
        Ok(changed) => tracing::debug!(?changed, "indexes of vectors were looked at"),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the new vectors have no index yet"
        ),
    }
}

/// Ends an ingestion whose model is not fit; what it has of vectors stays for another try.
pub(super) async fn give_up(context: &Context, held: &Held, problem: &str) -> StoreResult<()> {
    tracing::warn!(ingestion.id = %held.id, problem, "the embedding model stays as it was");
    let mut tx = context.db.user(held.created_by).await?;
    ingestions::finish(&mut tx, held, Some(problem), true).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_refuses_much_or_tells_nothing_apart_is_unfit() {
        let tried = |refused, found| Tried {
            texts: 100,
            refused,
            looked_for: 20,
            found,
        };
        assert_eq!(unfit(&tried(5, 20)), None);
        assert!(unfit(&tried(6, 20)).is_some_and(|problem| problem.contains("refused 6 of 100")));
        assert_eq!(unfit(&tried(0, 16)), None);
        assert!(unfit(&tried(0, 15)).is_some_and(|problem| problem.contains("15 of 20")));
        let empty = Tried {
            texts: 0,
            refused: 0,
            looked_for: 0,
            found: 0,
        };
        assert_eq!(
            unfit(&empty),
            None,
            "an empty knowledge base fits any model"
        );
    }
}
