//! Builds what a model is asked, from what is stored. Pure: the same input gives the same prompt.
//!
//! **Invariants**, each a property test: the system prompt comes first and the newest turn last;
//! the turns keep their order; superseded replies are never among them; their tokens stay within
//! the budget, which only the newest turn alone may exceed.

mod assessment;
mod desk;
mod history;
mod indonesian;
mod judgement;
mod summary;
mod system;
mod title;
mod welcome;

use shared::domain::assessment::Language;
use shared::domain::{Attachment, ContextType, SenderType, estimate_tokens};

use crate::upstream::{ChatMessage, ChatRole};

pub use assessment::{background, language};
pub use desk::{desk, entry};
pub use judgement::{JUDGEMENT_MAX_TOKENS, build_judgement};
pub use summary::{SUMMARY_MAX_TOKENS, build_summary, clean_summary};
pub use title::{MAX_TITLE_CHARS, TITLE_MAX_TOKENS, build_title, clean_title};
pub use welcome::{WelcomeInput, build_welcome};

/// What an image counts against the budget, in tokens; providers charge between 85 and 1,600.
pub const IMAGE_TOKENS: u32 = 800;

/// The most tokens the background may take. It stands outside the history's budget.
pub const MAX_BACKGROUND_TOKENS: u32 = 2_000;

/// One stored message of the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who wrote it.
    pub sender: SenderType,
    /// The text.
    pub content: String,
    /// What is attached.
    pub attachments: Vec<Attachment>,
    /// Tokens of the text, as stored with the message.
    pub tokens: u32,
    /// Another reply replaced it.
    pub superseded: bool,
}

impl Turn {
    /// What the turn counts against the budget, in tokens.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.attachments
            .iter()
            .fold(self.tokens, |cost, attachment| {
                cost.saturating_add(if is_image(attachment) {
                    IMAGE_TOKENS
                } else {
                    estimate_tokens(&attachment.url)
                })
            })
    }
}

/// Everything a prompt depends on.
#[derive(Clone, Copy, Debug)]
pub struct PromptInput<'a> {
    /// What the conversation is about.
    pub context_type: ContextType,
    /// Facts about the conversation for the model to use, for example the context the client
    /// stored with it. Cut at [`MAX_BACKGROUND_TOKENS`].
    pub background: Option<&'a str>,
    /// What was said before the turns, in short. It counts against the budget.
    pub summary: Option<&'a str>,
    /// What the help desk found. As long as it is.
    pub desk: Option<&'a str>,
    /// The stored messages, oldest first; the last one is what is to be answered.
    pub turns: &'a [Turn],
    /// The most tokens of history, `MAX_CONVERSATION_HISTORY_TOKENS`.
    pub budget: u32,
    /// Asks for a short answer: free models are slow and cut at few tokens.
    pub concise: bool,
    /// The language of the system prompt, where there is one in it.
    pub language: Language,
}

/// The messages to send.
#[must_use]
pub fn build(input: &PromptInput<'_>) -> Vec<ChatMessage> {
    let system = system::prompt(
        input.context_type,
        input.background,
        input.desk,
        input.summary,
        input.concise,
        input.language,
    );
    let turns = shown(input);
    let mut messages = vec![ChatMessage::text(ChatRole::System, system)];
    messages.extend(turns.into_iter().map(history::message));
    messages
}

/// The turns that the model is shown.
fn shown<'a>(input: &PromptInput<'a>) -> Vec<&'a Turn> {
    let summary = input.summary.map_or(0, estimate_tokens);
    history::within(input.turns, input.budget.saturating_sub(summary))
}

/// How many tokens of history the model is shown, the summary included, and how many turns.
#[must_use]
pub fn used(input: &PromptInput<'_>) -> (u32, usize) {
    let turns = shown(input);
    let summary = input.summary.map_or(0, estimate_tokens);
    let tokens = turns
        .iter()
        .map(|turn| turn.cost())
        .fold(summary, u32::saturating_add);
    (tokens, turns.len())
}

fn is_image(attachment: &Attachment) -> bool {
    attachment
        .media_type
        .get(..6)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("image/"))
}

/// The start of a text that fits into so many tokens, cut between words where possible.
fn within_tokens(text: &str, budget: u32) -> &str {
    if estimate_tokens(text) <= budget {
        return text;
    }
    // The estimate never falls as a text grows, so the longest start that fits is found by halving.
    let (mut fits, mut exceeds) = (0, text.len());
    while exceeds - fits > 1 {
        let middle = fits + (exceeds - fits) / 2;
        let end = text.floor_char_boundary(middle);
        if estimate_tokens(&text[..end]) <= budget {
            fits = middle
        } else {
            exceeds = middle
        }
    }
    let cut = &text[..text.floor_char_boundary(fits)];
    match cut.rfind(char::is_whitespace) {
        Some(space) if space > cut.len() / 2 => &cut[..space],
        _ => cut,
    }
}

#[cfg(test)]
mod tests;
