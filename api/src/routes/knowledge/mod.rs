//! `/api/chat/knowledge`: the help desk's knowledge base, for administrators.

pub(super) mod documents;
pub(super) mod gaps;
pub(super) mod ingestions;
mod once;
pub(super) mod progress;
pub(super) mod proposals;
pub(super) mod reindex;
pub(super) mod search;
pub(super) mod synonyms;
mod upload;

use shared::store::UserTx;
use shared::store::knowledge as store;

use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Code, Problem, Result};

/// Where files are sent to.
pub(crate) const UPLOADS: &str = "/api/chat/knowledge/ingestions";

/// The collection that is meant where none is named.
const DEFAULT_COLLECTION: &str = "default";

/// A transaction of an administrator, where there is a knowledge base.
///
/// # Errors
/// `knowledge_unavailable` without pgvector.
async fn begin(app: &AppState, admin: &Identity) -> Result<UserTx> {
    let mut tx = app.db.user(admin.id).await?;
    if !store::is_available(&mut tx).await? {
        return Err(Problem::of(Code::KnowledgeUnavailable));
    }
    Ok(tx)
}

/// The collection that is meant.
///
/// # Errors
/// When none can be called so.
fn collection(name: Option<&str>) -> Result<&str> {
    let name = name.unwrap_or(DEFAULT_COLLECTION);
    if store::ingestions::is_collection_name(name) {
        return Ok(name);
    }
    Err(Problem::field(
        "collection",
        "must be 1 to 63 lower-case letters, digits, hyphens and underscores",
    ))
}
