//! The knowledge base without its tables: reading files, what a question asks for, what is found.
//!
//! The unit is the row: menu and issue are what a question is matched against, solution and notes are
//! what is returned. A search has two legs, words and vectors, fused by rank; whether what it found is an
//! answer at all is decided afterwards, by [`gate`].

mod ask;
mod csv;
mod decode;
mod english;
pub mod gate;
mod plan;
mod search;
mod sheet;
mod stop_words;
mod text;
mod vocabulary;

pub use ask::{Asked, Question, Questions, answer, ask};
pub use plan::{Alternative, Plan, Term, telling_words};
pub use search::{Found, Searched, search};
pub use sheet::{FileError, Preview, Row, Sheet};
pub use text::{canonical_hash, clean, entry_key, fold, match_texts, search_text, words};
pub use vocabulary::{Vocabularies, Vocabulary, Word};
