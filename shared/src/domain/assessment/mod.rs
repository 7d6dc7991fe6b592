//! The result of a career assessment, and what is said of it in words that need no model.
//!
//! Everything here is a pure function of the data: the same assessment gives the same summary, the
//! same suggestions and the same composed welcome.

mod data;
mod language;
mod read;
mod stage;
mod suggestions;
#[cfg(test)]
mod tests;
mod topics;
mod truth;
mod welcome;
mod words;

pub use data::{AssessmentData, Interest, Trait, ranked};
pub use language::{Language, LanguageSource, Spoken};
pub use read::{MAX_PERSONA_BYTES, Wrong};
pub use stage::{Stage, StageAction, StageNotice};
pub use suggestions::{MAX_SUGGESTIONS, MIN_SUGGESTIONS, suggestions};
pub use welcome::{composed_welcome, default_title, finished_welcome, updated_note};
