//! The knowledge base's work: embedding texts, turning uploads into entries, answering what the API asks.

mod config;
mod embedder;
mod indexes;
mod ingest;
mod questions;
mod reindex;
mod remembered;

pub use config::KnowledgeConfig;
pub use embedder::{Asker, Embedder, Texts, run_embedder};
pub use indexes::keep_indexes;
pub use ingest::ingest;
pub use questions::answer_questions;
pub(crate) use questions::vector as question_vector;
