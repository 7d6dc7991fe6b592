//! The knowledge base of the help desk: entries, uploads and what a search finds.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

super::named_enum! {
    /// What an ingestion works on.
    pub enum IngestionKind {
        /// The rows of an uploaded file.
        Upload = "upload",
        /// Every entry, for another embedding model.
        Reindex = "reindex",
    }
}

super::named_enum! {
    /// Where an ingestion is in its life.
    pub enum IngestionStatus {
        /// Its file is still coming.
        Uploading = "uploading",
        /// Waits for a worker.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Every row is an entry, and every entry is embedded.
        Completed = "completed",
        /// Done, but for rows or texts that were refused.
        CompletedWithErrors = "completed_with_errors",
        /// It was given up.
        Failed = "failed",
        /// An administrator stopped it; what was done stays.
        Cancelled = "cancelled",
    }
}

impl IngestionStatus {
    /// No transition leaves a terminal status.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::CompletedWithErrors | Self::Failed | Self::Cancelled
        )
    }
}

/// A row of a file that became no entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SkippedRow {
    /// The line of the file it begins on, counted from 1.
    pub line: i32,
    /// Why.
    pub reason: String,
}

/// An upload on its way into the knowledge base, or a pass over all of it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Ingestion {
    /// UUIDv7.
    pub id: Uuid,
    /// What it works on.
    pub kind: IngestionKind,
    /// Where it is.
    pub status: IngestionStatus,
    /// The collection its entries belong to.
    pub collection: String,
    /// The file's name, as the client gave it.
    pub file_name: Option<String>,
    /// `utf-8` or `windows-1252`.
    pub encoding: Option<String>,
    /// The character between two fields.
    pub delimiter: Option<String>,
    /// Rows of the file, the header and blank lines left out; a row of delimiters alone is one.
    pub rows_read: i32,
    /// How many rows became no entry.
    pub rows_skipped_count: i32,
    /// The first thousand of them.
    pub rows_skipped: Vec<SkippedRow>,
    /// Entries that were not there before.
    pub documents_new: i32,
    /// Entries that were there with other text.
    pub documents_changed: i32,
    /// Entries that were there just so; they cost nothing.
    pub documents_unchanged: i32,
    /// Texts of its entries.
    pub chunks_total: i32,
    /// Texts that were embedded for it.
    pub chunks_embedded: i32,
    /// Texts that the provider refused; they are found by their words alone.
    pub chunks_failed: i32,
    /// Tokens that the provider charged.
    pub tokens: i64,
    /// In the provider's credits; null while unknown.
    #[serde(with = "super::credits")]
    #[schema(value_type = Option<f64>, format = "decimal")]
    pub cost: Option<Decimal>,
    /// What keeps it from going on, or why it was given up.
    pub problem: Option<String>,
    /// Seconds until it is done at the pace so far; null where that cannot be said.
    pub eta: Option<i64>,
    /// Counts what has changed of all this; numbers the events that tell of it.
    #[serde(skip)]
    pub version: u32,
    /// When it was changed last.
    #[serde(skip)]
    pub updated_at: OffsetDateTime,
    /// When it was asked for.
    #[serde(with = "super::timestamp")]
    pub created_at: OffsetDateTime,
    /// When a worker first took it.
    #[serde(with = "super::timestamp::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "super::timestamp::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// An entry of the knowledge base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KnowledgeDocument {
    /// UUIDv7.
    pub id: Uuid,
    /// The collection it belongs to.
    pub collection: String,
    /// Where in the application it happens.
    pub menu: String,
    /// What people report.
    pub issue: String,
    /// What to do about it.
    pub solution: String,
    /// What developers noted.
    pub note_dev: String,
    /// What testers noted.
    pub note_qa: String,
    /// Counts its texts, from 1.
    pub version: i32,
    /// When it was first stored.
    #[serde(with = "super::timestamp")]
    pub created_at: OffsetDateTime,
    /// When its text last changed.
    #[serde(with = "super::timestamp")]
    pub updated_at: OffsetDateTime,
}

/// The fields of an entry as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryText {
    /// Where in the application it happens.
    pub menu: String,
    /// What people report.
    pub issue: String,
    /// What to do about it.
    pub solution: String,
    /// What developers noted.
    pub note_dev: String,
    /// What testers noted.
    pub note_qa: String,
}

/// An embedding model whose vectors are kept.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct EmbeddingProfile {
    /// UUIDv7.
    pub id: Uuid,
    /// Who serves it.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Numbers in a vector.
    pub dimension: i32,
    /// Put before a question.
    pub query_prefix: String,
    /// Put before an entry's text.
    pub document_prefix: String,
    /// What a place in the list by words counts.
    pub word_weight: f64,
    /// What a place in the list by vectors counts.
    pub vector_weight: f64,
    /// From this similarity on an entry alone is an answer.
    pub threshold: f64,
}

super::named_enum! {
    /// Whether a profile is searched.
    pub enum ProfileState {
        /// Its vectors are being made.
        Building = "building",
        /// It is searched.
        Active = "active",
        /// It was searched, or was not completed.
        Retired = "retired",
    }
}

/// An embedding model and what there is of its vectors.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct KnowledgeProfile {
    /// UUIDv7.
    pub id: Uuid,
    /// Who serves it.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Numbers in a vector.
    pub dimension: i32,
    /// Put before a question.
    pub query_prefix: String,
    /// Put before an entry's text.
    pub document_prefix: String,
    /// Whether it is searched.
    pub state: ProfileState,
    /// From this similarity on an entry alone is an answer.
    pub threshold: f64,
    /// What a place in the list by words counts.
    pub word_weight: f64,
    /// What a place in the list by vectors counts.
    pub vector_weight: f64,
    /// Texts that it has vectors of.
    pub vectors: i64,
    /// Texts that the model refused while the profile was built.
    pub refused: i64,
    /// Whether a collection of it is large enough to be searched by an index.
    pub indexed: bool,
    /// When it was asked for.
    #[serde(with = "super::timestamp")]
    pub created_at: OffsetDateTime,
    /// When it was last made the one that is searched.
    #[serde(with = "super::timestamp::option")]
    pub activated_at: Option<OffsetDateTime>,
    /// When it was let go.
    #[serde(with = "super::timestamp::option")]
    pub retired_at: Option<OffsetDateTime>,
}

/// What people say for what the entries say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Synonym {
    /// A word or two, in lower case.
    pub word: String,
    /// What entries may say instead.
    pub means: Vec<String>,
}

/// The place of an entry in one of the lists that were fused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Leg {
    /// Its place, from 1.
    pub rank: u32,
    /// What it was ranked by: the weight of the words it has, or its cosine similarity.
    pub score: f64,
}
