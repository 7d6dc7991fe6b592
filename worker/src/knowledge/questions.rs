//! Vectors for the API's searches, asked for through Redis.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::{EmbeddingProfile, Priority};
use shared::id;
use shared::knowledge::{Asked, Question, Questions, answer};
use shared::store::StoreResult;
use shared::store::knowledge::{self, profiles};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::Asker;
use crate::context::Context;

/// Questions answered at a time; more wait in Redis, for another worker or for nobody.
const AT_A_TIME: usize = 16;

/// Answers questions for ever. Where no provider is set it takes none, so that a worker that has one may.
pub async fn answer_questions(context: Arc<Context>) {
    if !context.embedder.config().is_enabled() {
        return std::future::pending().await;
    }
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut questions = Questions::new(context.redis.clone());
    let mut answers = tokio::task::JoinSet::new();
    loop {
        while answers.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match questions.next().await {
            Ok(None) => {}
            Ok(Some(question)) => {
                let context = Arc::clone(&context);
                answers.spawn(async move {
                    answer_one(&context, &question).await;
                    drop(place);
                });
            }
            Err(failure) => {
                tracing::debug!(%failure, "no questions heard");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

async fn answer_one(context: &Context, question: &Question) {
    let vector = vector(
        context,
        question.user_id,
        question.id,
        &question.text,
        Duration::from_millis(question.patience_ms),
    );
    let asked = vector.await.map(|(profile, vector)| Asked {
        profile_id: profile.id,
        vector: vector.to_vec(),
    });
    if let Err(failure) = answer(&context.redis, question, asked.as_ref()).await {
        tracing::debug!(%failure, "a question was not answered");
    }
}

/// The vector of somebody's question by the profile that is searched; none where there is none to be had.
pub(crate) async fn vector(
    context: &Context,
    user_id: Uuid,
    reference: Uuid,
    text: &str,
    patience: Duration,
) -> Option<(Arc<EmbeddingProfile>, Arc<Vec<f32>>)> {
    if !context.embedder.config().is_enabled() {
        return None;
    }
    let profile = match profile(context, user_id).await {
        Ok(profile) => profile?,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the embedding profile was not read"
            );
            return None;
        }
    };
    let asker = Asker {
        user_id,
        reference,
        attempt: 1,
        priority: Priority::Premium,
        patience,
    };
    match context.embedder.question(&profile, text, asker).await {
        Ok(vector) => Some((profile, vector)),
        Err(error) => {
            tracing::warn!(
                error = &*error as &dyn std::error::Error,
                "a question is searched by words only"
            );
            None
        }
    }
}

/// The profile that is searched; made from the settings where there is none yet, and none where there is no
/// pgvector.
pub(super) async fn profile(
    context: &Context,
    user_id: Uuid,
) -> StoreResult<Option<Arc<EmbeddingProfile>>> {
    let config = context.embedder.config();
    let mut tx = context.db.user(user_id).await?;
    if !knowledge::is_available(&mut tx).await? {
        return Ok(None);
    }
    let new = profiles::NewProfile {
        id: id::new(context.clock.now()),
        provider: config.base_url.host_str().unwrap_or("unknown"),
        model: &config.model,
        dimension: config.dimension,
    };
    let profile = profiles::active_or(&mut tx, &new).await?;
    tx.commit().await?;
    Ok(profile.map(Arc::new))
}
