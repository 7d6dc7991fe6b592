//! The rolling summary of a conversation whose prompts are getting full. It is made in the background, after
//! a reply, so that no reply waits for it; one that is not made now is wished for again with the next reply.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::{Priority, estimate_tokens};
use shared::id;
use shared::models::Model;
use shared::store::generations::Claim;
use shared::store::summaries::{self, Said, Summary};
use shared::store::{StoreResult, ledger};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::afford::{hold, let_go};
use super::book::Book;
use super::{ask, finish};
use crate::context::Context;
use crate::pacing::{Asker, Paced};
use crate::prompt;
use crate::upstream::{self, Answer, Call, Outcome};

/// Wishes that wait; more are dropped, and come again.
const WAITING: usize = 32;
/// Messages read for one version.
const MESSAGES: i64 = 200;
/// Tokens of the conversation that one version takes in: a cheap model has a small window.
const MOST_TOKENS: u32 = 12_000;
/// How long a summary may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A summary says what was said; it invents nothing.
const TEMPERATURE: f32 = 0.2;

/// The way to wish for summaries.
#[derive(Debug)]
pub struct Summaries(mpsc::Sender<Claim>);

/// The wishes.
#[derive(Debug)]
pub struct WishedSummaries(mpsc::Receiver<Claim>);

impl Summaries {
    /// Both ends.
    #[must_use]
    pub fn new() -> (Self, WishedSummaries) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), WishedSummaries(receiver))
    }

    /// Wishes for the next summary of the conversation that this was a reply in.
    pub(super) fn wish(&self, claim: &Claim) {
        // Too many wait, or the worker ends: the next reply wishes again.
        let _ = self.0.try_send(claim.clone());
    }
}

/// Makes summaries for ever, one after the other.
pub async fn summarise(context: Arc<Context>, mut wishes: WishedSummaries) {
    while let Some(claim) = wishes.0.recv().await {
        if let Err(error) = one(&context, &claim).await {
            tracing::warn!(
                conversation.id = %claim.conversation_id,
                error = &error as &dyn std::error::Error,
                "a conversation was not summarised"
            );
        }
    }
}

async fn one(context: &Context, claim: &Claim) -> StoreResult<()> {
    let mut tx = context.db.user(claim.user_id).await?;
    let (before, said) = summaries::since(&mut tx, claim.conversation_id, MESSAGES).await?;
    drop(tx);
    // The newer half of what a prompt has room for stays as it was said.
    let room = context.config.history_tokens;
    // Where there is more than was read, all of it is older than that.
    let old = match said.len() as i64 == MESSAGES {
        true => Some(&*said),
        false => older_than(&said, room / 2),
    };
    let Some(old) = old else { return Ok(()) };
    let old = first_of(old, room.min(MOST_TOKENS));
    let Some(up_to) = old.last().map(|said| said.turn) else {
        return Ok(());
    };
    let said = old
        .iter()
        .map(|said| (said.sender_type, said.content.as_str()));
    let notes = before.as_ref().map(|summary| summary.content.as_str());
    let call = call(claim, prompt::build_summary(notes, said));
    let chain = chain(context, claim);
    // A dropped call is booked before it is let go.
    let hold = hold(context, claim, chain, room.min(MOST_TOKENS), PATIENCE * 2);
    let (chain, held) = hold.await?;
    if chain.is_empty() {
        tracing::debug!(conversation.id = %claim.conversation_id, "no budget has room for a summary");
        return Ok(());
    }
    let made = make(context, claim, &call, &chain, before.as_ref(), up_to).await;
    let_go(context, claim, held).await;
    made
}

/// Asks for the version after `before` that tells of everything up to `up_to`, and stores it.
async fn make(
    context: &Context,
    claim: &Claim,
    call: &Call,
    chain: &[Model],
    before: Option<&Summary>,
    up_to: Uuid,
) -> StoreResult<()> {
    let (sender, _) = mpsc::unbounded_channel();
    let mut book = Book::new(context, claim, "summary", sender);
    let referee = Paced {
        pacing: &context.pacing,
        asker: Asker {
            id: Uuid::new_v4(),
            priority: Priority::Background,
        },
    };
    let running = upstream::run(&context.upstream, chain, call, &referee, &mut book);
    let answer = match tokio::time::timeout(PATIENCE, running).await {
        Ok(Outcome::Completed(answer)) => answer,
        Ok(_) => {
            tracing::debug!(conversation.id = %claim.conversation_id, "no model made a summary");
            return Ok(());
        }
        Err(_) => {
            book.book_dropped("deadline").await;
            return Ok(());
        }
    };
    let summary = prompt::clean_summary(&answer.text).map(|content| Summary {
        version: before.map_or(1, |summary| summary.version + 1),
        up_to,
        token_count: i32::try_from(estimate_tokens(&content)).unwrap_or(i32::MAX),
        content,
    });
    store(context, claim, &book, &answer, summary.as_ref()).await
}

/// What is older than the newest so many tokens, whole turns only, oldest first; none where there is
/// nothing worth a call.
fn older_than(said: &[Said], keep: u32) -> Option<&[Said]> {
    let mut kept = 0_u32;
    let mut from = said.len();
    while let Some(older) = from.checked_sub(1)
        && kept < keep
    {
        kept = kept.saturating_add(u32::try_from(said[older].token_count).unwrap_or(0));
        from = older;
    }
    // A turn is told of as a whole or not at all.
    let turn = said.get(from)?.turn;
    let old = said
        .split_at_checked(said.iter().position(|said| said.turn == turn)?)?
        .0;
    (!old.is_empty()).then_some(old)
}

/// The first turns of so many tokens, or the first turn; the others are for the next version.
fn first_of(said: &[Said], most: u32) -> &[Said] {
    let mut tokens = 0_u32;
    let mut end = said.len();
    for (at, message) in said.iter().enumerate() {
        tokens = tokens.saturating_add(u32::try_from(message.token_count).unwrap_or(0));
        let begins = at > 0 && said[at - 1].turn != message.turn;
        if begins && tokens > most {
            end = at;
            break;
        }
    }
    &said[..end]
}

fn call(claim: &Claim, messages: Vec<upstream::ChatMessage>) -> Call {
    Call {
        // It is nobody's attempt: one round, and its own time.
        round: 1,
        is_last_round: true,
        time_left: PATIENCE,
        ..ask::call(claim, messages, prompt::SUMMARY_MAX_TOKENS, TEMPERATURE)
    }
}

/// The model for summaries, where its person may use it, then those of the reply.
fn chain(context: &Context, claim: &Claim) -> Vec<Model> {
    let models = &context.config.upstream.models;
    let may_pay = claim.chain.iter().any(|model| !model.free);
    let cheap = context.config.summary_model.as_deref();
    let cheap = cheap.map(|name| models.model(name));
    let cheap = cheap.filter(|model| model.free || may_pay);
    let is_other = |model: &&Model| cheap.as_ref().is_none_or(|cheap| cheap.name != model.name);
    let others: Vec<Model> = claim.chain.iter().filter(is_other).cloned().collect();
    cheap.into_iter().chain(others).collect()
}

async fn store(
    context: &Context,
    claim: &Claim,
    book: &Book<'_>,
    answer: &Answer,
    summary: Option<&Summary>,
) -> StoreResult<()> {
    let usage = finish::usage(context, book, answer);
    let mut tx = context.db.user(claim.user_id).await?;
    let stored = match summary {
        Some(summary) => {
            summaries::add(&mut tx, claim.conversation_id, summary, &usage.model).await?
        }
        None => false,
    };
    book.book_answer(&mut tx, !stored).await?;
    let used = ledger::Used {
        id: book
            .answered_id()
            .unwrap_or_else(|| id::new(context.clock.now())),
        conversation_id: claim.conversation_id,
        generation_id: claim.id,
        operation: "summary",
        usage: &usage,
        wasted: !stored,
    };
    ledger::used(&mut tx, &used).await?;
    tx.commit().await?;
    book.count_answer(&usage, !stored);
    tracing::debug!(
        conversation.id = %claim.conversation_id,
        version = summary.map(|summary| summary.version),
        stored,
        "conversation summarised"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::domain::SenderType;

    use super::*;

    fn said(turn: u128, tokens: i32) -> Said {
        Said {
            id: Uuid::from_u128(turn),
            turn: Uuid::from_u128(turn),
            sender_type: SenderType::User,
            content: String::new(),
            token_count: tokens,
        }
    }

    #[test]
    fn the_newer_part_stays_and_no_turn_is_split() {
        let all = [
            said(1, 10),
            said(1, 10),
            said(2, 10),
            said(2, 10),
            said(3, 10),
        ];
        let old = |keep| older_than(&all, keep).map_or(0, <[Said]>::len);
        assert_eq!(old(10), 4);
        // The reply of the second turn is within, its question is not: the turn stays.
        assert_eq!(old(15), 2);
        assert_eq!(old(30), 2);
        assert_eq!(old(35), 0);
        assert_eq!(older_than(&[], 10), None);
    }

    #[test]
    fn a_version_tells_of_no_more_than_fits() {
        let all = [
            said(1, 10),
            said(1, 10),
            said(2, 10),
            said(2, 10),
            said(3, 10),
        ];
        assert_eq!(first_of(&all, 5).len(), 2);
        assert_eq!(first_of(&all, 25).len(), 2);
        assert_eq!(first_of(&all, 30).len(), 4);
        assert_eq!(first_of(&all, 100).len(), 5);
        assert!(first_of(&[], 100).is_empty());
    }
}
