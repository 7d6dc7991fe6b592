//! `/api/chat/knowledge/search`: what a question would find.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::figures::Figure;
use shared::knowledge::{Searched, ask, search};
use shared::store::knowledge::profiles;
use utoipa::IntoParams;

use super::{begin, collection};
use crate::app::AppState;
use crate::error::{Problem, Result};
use crate::extract::{Admin, Limit, Query};

/// How long a worker may take to find the question's vector; after that, words must do.
const PATIENCE: Duration = Duration::from_secs(4);

/// What to search for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// The question, at most `MAX_MESSAGE_LENGTH` characters.
    #[param(min_length = 1)]
    q: String,
    /// Entries to find.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 50, default = 5, required = false)]
    top_k: Limit<5, 50>,
    /// Where to search; `default` without one.
    collection: Option<String>,
}

/// Finds what a question would find, with its places by words, by vectors and fused.
#[utoipa::path(
    get, path = "/api/chat/knowledge/search", operation_id = "search_knowledge", tag = "knowledge", params(SearchQuery),
    responses((status = 200, body = Searched), (status = 403, description = "admin_required"), (status = 503, description = "knowledge_unavailable"))
)]
pub(crate) async fn find(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Query(query): Query<SearchQuery>,
) -> Result<Json<Searched>> {
    let collection = collection(query.collection.as_deref())?;
    let most = app.gate.config.limits.max_message_length;
    if query.q.trim().is_empty() || query.q.chars().count() > most {
        return Err(Problem::field(
            "q",
            format!("must not be blank and have at most {most} characters"),
        ));
    }
    drop(begin(&app, &admin).await?);
    let asked = match ask(&app.redis, admin.id, &query.q, PATIENCE).await {
        Ok(asked) => asked,
        Err(failure) => {
            tracing::debug!(%failure, "searched without a vector");
            None
        }
    };
    let mut tx = app.db.user(admin.id).await?;
    // A vector is searched among those of its own model. That model may have been replaced since the worker
    // looked, and is searched to the end of this question all the same.
    let profile = match &asked {
        Some(asked) => profiles::searchable(&mut tx, asked.profile_id).await?,
        None => None,
    };
    let vector = profile.as_ref().zip(asked.as_ref());
    let vector = vector.map(|(profile, asked)| (profile, asked.vector.as_slice()));
    let top_k = usize::try_from(query.top_k.get()).unwrap_or(5);
    let began = std::time::Instant::now();
    let found = search(
        &mut tx,
        &app.vocabularies,
        collection,
        &query.q,
        vector,
        top_k,
    )
    .await?;
    let degraded = if found.degraded { "true" } else { "false" };
    metrics::histogram!(shared::metrics::KNOWLEDGE_SEARCH_DURATION, "degraded" => degraded)
        .record(began.elapsed().as_secs_f64());
    app.figures
        .note(Figure::Search, began.elapsed(), found.degraded);
    Ok(Json(found))
}
