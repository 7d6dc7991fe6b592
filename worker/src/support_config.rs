//! What an operator sets about the help desk.

use shared::config::Vars;
use shared::desk::Rules;

/// The help desk's settings.
#[derive(Clone, Debug)]
pub struct SupportConfig {
    /// When a person should take over.
    pub rules: Rules,
    /// Entries that are looked up for a question.
    pub top_k: usize,
    /// Characters of entries that a prompt may hold.
    pub max_context: usize,
    /// The model that judges messages; words and patterns do where there is none.
    pub classifier: Option<String>,
}

impl SupportConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        Self {
            rules: Rules {
                sentiment_threshold: vars.within(
                    "SENTIMENT_THRESHOLD",
                    -0.6,
                    (-1.0, 1.0),
                    "a person should take over when the mood of a message is below this, -1 to 1",
                ),
                max_failed_attempts: vars.within(
                    "MAX_FAILED_ATTEMPTS",
                    3,
                    (1, 100),
                    "a person should take over after so many questions in a row that the knowledge base did not answer",
                ),
            },
            top_k: vars.within("SUPPORT_TOP_K", 5, (1, 20), "entries that are looked up for a question to the help desk"),
            max_context: vars.within(
                "MAX_CONTEXT_LENGTH",
                6000,
                (500, 100_000),
                "characters of entries that the help desk's prompt may hold",
            ),
            classifier: vars.optional(
                "SUPPORT_CLASSIFIER_MODEL",
                "model that judges what a message to the help desk is about and its mood, within 3 s; a paid one does so for \
                 everybody, whatever their tier and USE_FREE_MODELS_ONLY, while the budgets have room for it; none: words and patterns do",
            ),
        }
    }
}
