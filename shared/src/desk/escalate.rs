//! When a person should take over.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Intent, Judgement, Text};

/// Why a person should take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The person asked for one.
    CustomerRequest,
    /// The knowledge base did not help several times in a row.
    MissingKnowledge,
    /// The second complaint in a row.
    Complaint,
    /// The mood has sunk below the threshold.
    NegativeSentiment,
    /// Every model's provider declined the message.
    Policy,
    /// No model answered.
    ToolFailure,
    /// No model answered because the account has had what it may have.
    UsageLimit,
}

impl Reason {
    /// The stable name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CustomerRequest => "customer_request",
            Self::MissingKnowledge => "missing_knowledge",
            Self::Complaint => "complaint",
            Self::NegativeSentiment => "negative_sentiment",
            Self::Policy => "policy",
            Self::ToolFailure => "tool_failure",
            Self::UsageLimit => "usage_limit",
        }
    }
}

/// The settings of the rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// A mood below this is too bad, -1 to 1.
    pub sentiment_threshold: f64,
    /// Unanswered turns in a row after which it is enough.
    pub max_failed_attempts: u32,
}

/// What an earlier turn of the conversation came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// What it was about.
    pub intent: Intent,
    /// Whether the knowledge base had an answer.
    pub answered: bool,
}

/// Whether a person should take over, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Escalation {
    /// Whether one should.
    pub should: bool,
    /// Why.
    pub reason: Option<Reason>,
}

impl Escalation {
    /// For this reason.
    #[must_use]
    pub const fn because(reason: Reason) -> Self {
        Self {
            should: true,
            reason: Some(reason),
        }
    }
}

const PERSON: &[&str] = &[
    "petugas",
    "operator",
    "customer service",
    "cs",
    "helpdesk",
    "help desk",
    "manusia",
    "orang asli",
    "agen",
    "agent",
    "human",
    "real person",
    "a person",
    "someone",
    "staff",
    "staf",
    "representative",
    "tim teknis",
    "tim support",
];
const TALK: &[&str] = &[
    "bicara*",
    "ngobrol",
    "chat dengan",
    "hubungkan",
    "sambungkan",
    "disambungkan",
    "hubungi",
    "menghubungi",
    "dihubungi",
    "panggilkan",
    "minta",
    "mau",
    "ingin",
    "bisa dengan",
    "dengan",
    "sama",
    "speak",
    "talk",
    "connect",
    "transfer",
    "call",
    "contact",
    "reach",
    "get me",
    "want",
    "alihkan",
    "ke",
];
const OUTRIGHT: &[&str] = &[
    "bicara dengan petugas",
    "bicara dengan manusia",
    "bicara dengan orang",
    "ngomong sama orang",
    "talk to a human",
    "speak to a human",
    "talk to someone",
    "real person",
    "bukan bot",
    "bukan robot",
    "jangan bot",
    "not a bot",
    "orang asli",
    "human please",
];

/// Whether the message asks for a person.
#[must_use]
pub(super) fn wants_person(text: &Text) -> bool {
    text.count(OUTRIGHT) > 0
        || (text.count(PERSON) > 0 && text.count(TALK) > 0 && text.words.len() <= 25)
}

/// Applies the rules to a message, whether it was answered, and the turns before it, oldest first.
#[must_use]
pub fn escalate(
    judgement: &Judgement,
    answered: bool,
    before: &[Turn],
    rules: Rules,
) -> Escalation {
    if judgement.wants_person {
        return Escalation::because(Reason::CustomerRequest);
    }
    if judgement.sentiment < rules.sentiment_threshold {
        return Escalation::because(Reason::NegativeSentiment);
    }
    let complained = before
        .last()
        .is_some_and(|turn| turn.intent == Intent::Complaint);
    if judgement.intent == Intent::Complaint && complained {
        return Escalation::because(Reason::Complaint);
    }
    let unanswered = before
        .iter()
        .rev()
        .take_while(|turn| !turn.answered)
        .count()
        + 1;
    if !answered && unanswered >= usize::try_from(rules.max_failed_attempts).unwrap_or(usize::MAX) {
        return Escalation::because(Reason::MissingKnowledge);
    }
    Escalation::default()
}
