//! The knowledge base's work: embedding texts, turning uploads into entries, answering what the API asks.

mod embedder;
mod ingest;
mod questions;

pub use embedder::{Asker, Embedder, Texts, run_embedder};
pub use ingest::ingest;
pub use questions::answer_questions;
pub(crate) use questions::vector as question_vector;
