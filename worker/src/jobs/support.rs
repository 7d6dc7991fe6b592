//! An answer of the help desk: judged, looked up, written by a model with what was found, and handed to a
//! person when that is right. Where no model answers, the best entry is told as it is written.

use std::time::Duration;

use serde_json::{Value, json};
use shared::desk::{self, Escalation, Intent, Judgement, Reason, Turn};
use shared::domain::{FailureCode, SenderType, SupportState};
use shared::knowledge::{Found, Searched, search};
use shared::store::generations::{self, Claim, History};
use shared::store::learning::questions::{self, Asked};
use shared::store::{StoreResult, support};

use super::{generate, give_up, persist};
use crate::context::Context;
use crate::knowledge::question_vector;
use crate::prompt;
use crate::queue::RunningJob;

/// How long the question's vector is waited for; after that, words must do.
const PATIENCE: Duration = Duration::from_secs(4);
/// Where entries are looked for.
const COLLECTION: &str = "default";

/// What is known of the turn before a model is asked.
pub(super) struct Desk {
    judgement: Judgement,
    escalation: Escalation,
    searched: Searched,
    /// The entries that were given to the model.
    given: usize,
    /// The hand-off so far, for the prompt.
    note: Option<String>,
    max_context: usize,
}

pub(super) async fn run(context: &Context, claim: &Claim, history: History, job: &RunningJob<'_>) {
    let question = history
        .messages
        .iter()
        .rev()
        .find(|message| message.sender_type == SenderType::User);
    let Some(question) = question.map(|message| message.content.clone()) else {
        return give_up(
            context,
            claim,
            FailureCode::Internal,
            "the message to answer is gone",
        )
        .await;
    };
    let looked = match look(context, claim, &question).await {
        Ok(Some(desk)) => desk,
        // A person answers here: whatever was accepted meanwhile is theirs to read.
        Ok(None) => return leave_to_person(context, claim).await,
        Err(error) => {
            tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "the help desk's records were not read");
            let again = Duration::from_secs(1);
            return super::put_back(
                context,
                claim,
                again,
                true,
                "the help desk's records could not be read",
            )
            .await;
        }
    };
    generate::run(context, claim, history, job, Some(&looked)).await;
}

/// Judges the question and looks it up; none where a person answers.
async fn look(context: &Context, claim: &Claim, question: &str) -> StoreResult<Option<Desk>> {
    let mut tx = context.db.user(claim.user_id).await?;
    let Some(session) = support::session(&mut tx, claim.conversation_id).await? else {
        // It was deleted; the claim is about to be lost.
        return Ok(None);
    };
    drop(tx);
    if session.state == SupportState::Human {
        return Ok(None);
    }
    let judgement = super::judge::judge(context, claim, question).await;
    let searched = find(context, claim, question).await;
    let turns: Vec<Turn> = session.turns.iter().filter_map(turn).collect();
    let answered = searched.answerable || !needs_knowledge(judgement.intent);
    let settings = &context.config.support;
    let escalation = desk::escalate(&judgement, answered, &turns, settings.rules);
    let mut desk = Desk {
        judgement,
        escalation,
        searched,
        given: 0,
        note: session
            .support
            .get("note")
            .and_then(Value::as_str)
            .map(str::to_owned),
        max_context: settings.max_context,
    };
    desk.given = desk.fitting();
    if let Err(error) = note(context, claim, &desk, question).await {
        tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "the question is missing in the help desk's reports");
    }
    Ok(Some(desk))
}

/// Notes the question for those who keep the knowledge base. Each attempt notes the same.
async fn note(context: &Context, claim: &Claim, desk: &Desk, question: &str) -> StoreResult<()> {
    let Some(message_id) = claim.user_message_id else {
        return Ok(());
    };
    let documents: Vec<_> = desk
        .entries()
        .iter()
        .map(|found| found.document.id)
        .collect();
    let asked = Asked {
        message_id,
        conversation_id: claim.conversation_id,
        generation_id: claim.id,
        question,
        intent: desk.judgement.intent.as_str(),
        answered: desk.answered(),
        documents: &documents,
    };
    let mut tx = context.db.user_async(claim.user_id).await?;
    questions::asked(&mut tx, &asked).await?;
    tx.commit().await
}

/// Why a person should take over where no model answered.
pub(super) fn failure(code: FailureCode, limit: bool) -> Reason {
    match code {
        FailureCode::ContentRefused => Reason::Policy,
        _ if limit => Reason::UsageLimit,
        _ => Reason::ToolFailure,
    }
}

/// Thanks, complaints and wishes are answered without an entry.
fn needs_knowledge(intent: Intent) -> bool {
    !matches!(intent, Intent::Complaint | Intent::FeatureRequest)
}

/// What an earlier answer's record says.
fn turn(record: &Value) -> Option<Turn> {
    Some(Turn {
        intent: serde_json::from_value(record.get("intent")?.clone()).ok()?,
        answered: record.get("answered")?.as_bool()?,
    })
}

/// What the knowledge base has; nothing where there is none, or it cannot be asked.
async fn find(context: &Context, claim: &Claim, question: &str) -> Searched {
    let vector = question_vector(context, claim.user_id, claim.id, question, PATIENCE).await;
    let began = std::time::Instant::now();
    let found = async {
        let mut tx = context.db.user(claim.user_id).await?;
        let vector = vector
            .as_ref()
            .map(|(profile, vector)| (&**profile, vector.as_slice()));
        search(
            &mut tx,
            &context.vocabularies,
            COLLECTION,
            question,
            vector,
            context.config.support.top_k,
        )
        .await
    };
    match found.await {
        Ok(searched) => {
            let degraded = if searched.degraded { "true" } else { "false" };
            metrics::histogram!(shared::metrics::KNOWLEDGE_SEARCH_DURATION, "degraded" => degraded)
                .record(began.elapsed().as_secs_f64());
            let took = began.elapsed();
            context
                .figures
                .note(shared::figures::Figure::Search, took, searched.degraded);
            searched
        }
        Err(error) => {
            tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "answered without the knowledge base");
            Searched {
                degraded: true,
                ..Searched::default()
            }
        }
    }
}

/// Ends the generation without any text.
async fn leave_to_person(context: &Context, claim: &Claim) {
    let cancelled = persist::until_stored(claim, || async {
        let mut tx = context.db.user(claim.user_id).await?;
        let cancelled = generations::cancel(&mut tx, claim.id, None).await?;
        tx.commit().await?;
        Ok(cancelled)
    });
    cancelled.await;
    super::count("left_to_person");
    context.wake.wake();
}

impl Desk {
    /// How many of the entries fit into the prompt, best first; none where the best is no answer.
    fn fitting(&self) -> usize {
        if !self.searched.answerable {
            return 0;
        }
        let mut room = self.max_context;
        let fits = |found: &&Found| {
            let length = prompt::entry(1, &found.document).chars().count();
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        };
        self.searched.results.iter().take_while(fits).count()
    }

    /// Whether the knowledge base has an answer, or none is needed.
    fn answered(&self) -> bool {
        self.searched.answerable || !needs_knowledge(self.judgement.intent)
    }

    fn entries(&self) -> &[Found] {
        &self.searched.results[..self.given.min(self.searched.results.len())]
    }

    /// What the model is told besides the conversation.
    pub(super) fn background(&self) -> String {
        let documents: Vec<_> = self.entries().iter().map(|found| &found.document).collect();
        prompt::desk(&documents, self.note.as_deref(), self.escalation.should)
    }

    /// What is said when no model answers.
    pub(super) fn template(&self) -> String {
        let solution = self
            .entries()
            .first()
            .map(|found| &found.document.solution)
            .filter(|text| !text.is_empty());
        desk::template(
            self.judgement.intent,
            self.judgement.language,
            solution.map(String::as_str),
        )
    }

    /// What is stored with the answer, and told to the client; `failed` says why no model gave one. The
    /// statement that stores it notes the hand-off that it tells of.
    pub(super) fn record(&self, failed: Option<Reason>) -> Value {
        let (judgement, entries) = (&self.judgement, self.entries());
        let escalation = match failed {
            Some(reason) if !self.escalation.should => Escalation::because(reason),
            _ => self.escalation,
        };
        let outcome = match (failed, escalation.should, self.searched.answerable) {
            (Some(_), ..) => "template",
            (_, true, _) => "escalated",
            (_, _, true) => "answered",
            _ => "unanswered",
        };
        metrics::counter!(shared::metrics::SUPPORT_TURNS, "intent" => judgement.intent.as_str(), "outcome" => outcome).increment(1);
        let sources: Vec<Value> = entries
            .iter()
            .map(|found| {
                let document = &found.document;
                json!({ "document_id": document.id, "menu": document.menu, "issue": document.issue, "score": found.score })
            })
            .collect();
        json!({
            "intent": judgement.intent,
            "confidence": judgement.confidence,
            "sentiment": judgement.sentiment,
            "language": judgement.language,
            "suggestions": desk::suggestions(judgement.intent, judgement.language),
            "context_used": !entries.is_empty(),
            "answered": self.answered(),
            "degraded": self.searched.degraded,
            "signals": self.searched.signals,
            "template": failed.is_some(),
            "should_escalate": escalation.should,
            "escalation_reason": escalation.reason,
            "sources": sources,
        })
    }
}
