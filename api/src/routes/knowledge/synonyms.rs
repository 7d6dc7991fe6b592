//! `/api/chat/knowledge/synonyms`: what people say for what the entries say.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::domain::Synonym;
use shared::store::knowledge::synonyms as store;
use utoipa::{IntoParams, ToSchema};

use super::super::view::OffsetPage;
use super::begin;
use crate::app::AppState;
use crate::error::{Checks, Code, Problem, Result};
use crate::extract::{Admin, Json as Body, Limit, Offset, Path, Query};

/// Characters of a word or a meaning, words of what people say, words of a meaning, and meanings of a word.
const MAX_LENGTH: usize = 100;
const MAX_SAID: usize = 2;
const MAX_WORDS: usize = 4;
const MAX_MEANINGS: usize = 20;

/// What a word means.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meanings {
    /// What entries may say instead, 1 to 20 of at most four words each.
    #[schema(min_items = 1, max_items = 20)]
    means: Vec<String>,
}

/// A word with its meanings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SynonymBody {
    synonym: Synonym,
}

/// Words with their meanings, in alphabetical order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Synonyms {
    synonyms: Vec<Synonym>,
    /// How many words there are.
    total: i64,
    pagination: OffsetPage,
}

/// Which words to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Those that begin like this.
    q: Option<String>,
    /// Words per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 500, default = 100, required = false)]
    limit: Limit<100, 500>,
    /// Words to skip.
    #[serde(default)]
    #[param(value_type = u32, maximum = 1_000_000, default = 0, required = false)]
    offset: Offset,
}

/// Lists words that people say for others.
#[utoipa::path(
    get, path = "/api/chat/knowledge/synonyms", operation_id = "list_synonyms", tag = "knowledge", params(ListQuery),
    responses((status = 200, body = Synonyms), (status = 403, description = "admin_required"), (status = 503, description = "knowledge_unavailable"))
)]
pub(crate) async fn list(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Query(query): Query<ListQuery>,
) -> Result<Json<Synonyms>> {
    let (limit, offset) = (query.limit.get(), query.offset.get());
    let like = query.q.as_deref().map(shared::knowledge::fold);
    let mut tx = begin(&app, &admin).await?;
    let (synonyms, total) = store::list(&mut tx, like.as_deref(), limit, offset).await?;
    let listed = i64::try_from(synonyms.len()).unwrap_or(i64::MAX);
    let pagination = OffsetPage {
        limit,
        offset,
        has_more: offset + listed < total,
    };
    Ok(Json(Synonyms {
        synonyms,
        total,
        pagination,
    }))
}

/// Says what a word or a phrase means, in place of what it meant. The next search knows it.
#[utoipa::path(
    put, path = "/api/chat/knowledge/synonyms/{word}", operation_id = "replace_synonym", tag = "knowledge",
    params(("word" = String, Path, description = "One word or two.")), request_body = Meanings,
    responses(
        (status = 200, body = SynonymBody),
        (status = 403, description = "admin_required"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn replace(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(word): Path<String>,
    Body(body): Body<Meanings>,
) -> Result<Json<SynonymBody>> {
    let mut checks = Checks::default();
    let word = phrase(&mut checks, "word", &word, MAX_SAID);
    let count = body.means.len();
    checks.require(
        (1..=MAX_MEANINGS).contains(&count),
        "means",
        "must be 1 to 20",
    );
    let mut means: Vec<String> = body
        .means
        .iter()
        .take(MAX_MEANINGS)
        .map(|text| phrase(&mut checks, "means", text, MAX_WORDS))
        .collect();
    checks.require(!means.contains(&word), "means", "must be another word");
    checks.finish()?;
    means.sort();
    means.dedup();
    let mut tx = begin(&app, &admin).await?;
    store::replace(&mut tx, &word, &means).await?;
    tx.commit().await?;
    let synonym = Synonym { word, means };
    Ok(Json(SynonymBody { synonym }))
}

/// Takes a word's meanings away.
#[utoipa::path(
    delete, path = "/api/chat/knowledge/synonyms/{word}", operation_id = "delete_synonym", tag = "knowledge",
    params(("word" = String, Path)),
    responses(
        (status = 204),
        (status = 403, description = "admin_required"),
        (status = 404, description = "synonym_not_found"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(word): Path<String>,
) -> Result<StatusCode> {
    let mut checks = Checks::default();
    let word = phrase(&mut checks, "word", &word, MAX_SAID);
    checks.finish()?;
    let mut tx = begin(&app, &admin).await?;
    if store::replace(&mut tx, &word, &[]).await? == 0 {
        return Err(Problem::of(Code::SynonymNotFound));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A phrase as questions are read: its words in lower case, apart by single blanks.
fn phrase(checks: &mut Checks, field: &str, text: &str, most: usize) -> String {
    let words: Vec<String> = shared::knowledge::words(text).collect();
    let phrase = words.join(" ");
    let fits = (1..=most).contains(&words.len()) && phrase.chars().count() <= MAX_LENGTH;
    checks.require(
        fits,
        field,
        format!("must be 1 to {most} words of at most {MAX_LENGTH} characters together"),
    );
    phrase
}
