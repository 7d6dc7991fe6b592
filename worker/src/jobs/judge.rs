//! A message to the help desk judged by a model, where an operator names one. Whatever it does not say in time
//! is judged by words and patterns, as it is without one.

use std::time::Duration;

use shared::desk::{self, Judge, Judgement, Patterns};
use shared::domain::estimate_tokens;
use shared::id;
use shared::store::generations::Claim;
use shared::store::{StoreResult, ledger};
use tokio::sync::mpsc;

use super::afford::{hold, let_go};
use super::book::Book;
use super::{finish, paced};
use crate::context::Context;
use crate::prompt;
use crate::upstream::{self, Answer, Call, Outcome};

/// How long a model may take; the answer waits for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Judges the message of a claim.
pub(super) async fn judge(context: &Context, claim: &Claim, message: &str) -> Judgement {
    match &context.config.support.classifier {
        None => Patterns.judge(message).await,
        Some(name) => {
            ByModel {
                context,
                claim,
                name,
            }
            .judge(message)
            .await
        }
    }
}

/// A model for the one message of a claim.
struct ByModel<'a> {
    context: &'a Context,
    claim: &'a Claim,
    name: &'a str,
}

impl Judge for ByModel<'_> {
    async fn judge(&self, message: &str) -> Judgement {
        let offline = Patterns.judge(message).await;
        let said = self.ask(message).await;
        said.and_then(|text| desk::said(&text, offline))
            .unwrap_or(offline)
    }
}

impl ByModel<'_> {
    /// What the model says; nothing where it does not in time.
    async fn ask(&self, message: &str) -> Option<String> {
        let (context, claim) = (self.context, self.claim);
        let call = Call {
            messages: prompt::build_judgement(message),
            max_tokens: prompt::JUDGEMENT_MAX_TOKENS,
            temperature: 0.0,
            user: shared::crypto::user_alias(claim.user_id),
            session_id: claim.conversation_id,
            request_id: claim.request_id.clone(),
            traceparent: claim.traceparent.clone(),
            round: 2,
            is_last_round: true,
            time_left: PATIENCE,
        };
        let (sender, _) = mpsc::unbounded_channel();
        let mut book = Book::new(context, claim, "classification", sender);
        let referee = paced(context, claim);
        let chain = vec![context.config.upstream.models.model(self.name)];
        let hold = hold(
            context,
            claim,
            chain,
            estimate_tokens(message),
            PATIENCE * 4,
        )
        .await;
        let (chain, held) = match hold {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "budgets not asked");
                return None;
            }
        };
        if chain.is_empty() {
            return None;
        }
        let running = upstream::run(&context.upstream, &chain, &call, &referee, &mut book);
        let said = match tokio::time::timeout(PATIENCE, running).await {
            Ok(Outcome::Completed(answer)) => {
                if let Err(error) = self.store(&book, &answer).await {
                    tracing::warn!(generation.id = %claim.id, error = &error as &dyn std::error::Error, "a judgement is missing in the ledger");
                }
                Some(answer.text)
            }
            Ok(_) => None,
            Err(_) => {
                book.book_dropped("deadline").await;
                None
            }
        };
        let_go(context, claim, held).await;
        said
    }

    async fn store(&self, book: &Book<'_>, answer: &Answer) -> StoreResult<()> {
        let (context, claim) = (self.context, self.claim);
        let usage = finish::usage(context, book, answer);
        let mut tx = context.db.user(claim.user_id).await?;
        book.book_answer(&mut tx, false).await?;
        let used = ledger::Used {
            id: book
                .answered_id()
                .unwrap_or_else(|| id::new(context.clock.now())),
            conversation_id: claim.conversation_id,
            generation_id: claim.id,
            operation: "classification",
            usage: &usage,
            wasted: false,
        };
        ledger::used(&mut tx, &used).await?;
        tx.commit().await?;
        book.count_answer(&usage, false);
        Ok(())
    }
}
