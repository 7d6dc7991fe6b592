//! The entries that an answer of the help desk was made of, to be opened by whoever got it.

use std::collections::HashMap;

use axum::extract::State;
use serde::Serialize;
use shared::domain::{KnowledgeDocument, timestamp};
use shared::store::knowledge::documents;
use shared::store::{conversations, messages};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::conversation::not_found;
use super::support::Source;
use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::{Path, User};

/// The most entries of an answer.
const MOST: usize = 20;

/// What an answer was made of.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sources {
    /// In the order of their numbers in the answer.
    sources: Vec<OpenSource>,
}

/// An entry as it reads today.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OpenSource {
    /// What the answer calls it: `[1]`.
    number: usize,
    document_id: Uuid,
    /// Where in the application it happens.
    menu: String,
    /// What it is about.
    issue: String,
    /// How relevant it was, 0 to 1.
    score: f64,
    /// What to do about it; null where the entry was deleted since.
    solution: Option<String>,
    /// When its text last changed; null likewise.
    #[serde(with = "timestamp::option")]
    #[schema(value_type = Option<String>)]
    updated_at: Option<OffsetDateTime>,
    /// Whether its text has changed since the answer.
    changed: bool,
}

/// Opens the entries that an answer of the help desk was made of. Answers made of none have none; the notes
/// of developers and testers are not shown.
#[utoipa::path(
    get, path = "/api/chat/conversations/{conversation_id}/messages/{message_id}/sources", operation_id = "read_sources", tag = "support",
    params(("conversation_id" = Uuid, Path), ("message_id" = Uuid, Path)),
    responses(
        (status = 200, body = Sources),
        (status = 404, description = "conversation_not_found message_not_found"),
    )
)]
pub(super) async fn list(
    State(app): State<AppState>,
    User(user): User,
    Path((conversation_id, message_id)): Path<(Uuid, Uuid)>,
) -> Result<axum::Json<Sources>> {
    let mut tx = app.db.user(user.id).await?;
    conversations::find(&mut tx, conversation_id)
        .await?
        .ok_or_else(not_found)?;
    let message = messages::find(&mut tx, conversation_id, message_id).await?;
    let message = message.ok_or_else(|| Problem::of(Code::MessageNotFound))?;
    let noted: Vec<Source> = message
        .metadata
        .pointer("/support/sources")
        .and_then(|sources| serde_json::from_value(sources.clone()).ok())
        .unwrap_or_default();
    let ids: Vec<Uuid> = noted
        .iter()
        .take(MOST)
        .map(|source| source.document_id)
        .collect();
    let mut entries: HashMap<Uuid, KnowledgeDocument> = HashMap::new();
    if !ids.is_empty() {
        let found = documents::of(&mut tx, &ids).await?;
        entries.extend(found.into_iter().map(|document| (document.id, document)));
    }
    let sources = noted
        .into_iter()
        .take(MOST)
        .enumerate()
        .map(|(place, source)| {
            let entry = entries.get(&source.document_id);
            OpenSource {
                number: place + 1,
                document_id: source.document_id,
                menu: source.menu,
                issue: source.issue,
                score: source.score,
                solution: entry.map(|entry| entry.solution.clone()),
                updated_at: entry.map(|entry| entry.updated_at),
                changed: entry.is_some_and(|entry| entry.updated_at > message.created_at),
            }
        });
    Ok(axum::Json(Sources {
        sources: sources.collect(),
    }))
}
