//! The main job: a reply to a message.

use shared::domain::{ContextUse, FailureCode, SenderType};
use shared::store::StoreError;
use shared::store::generations::{Claim, History, HistoryMessage};
use shared::store::summaries::{self, Earlier, Summary};

use super::ask::{self, Asked, announce, ask};
use super::support::{self, Desk};
use super::{events, finish, give_up};
use crate::context::Context;
use crate::prompt::{self, PromptInput, Turn};
use crate::queue::RunningJob;
use crate::upstream::Call;

/// Makes the reply; `desk` is what the help desk knows, in its conversations.
pub(super) async fn run(
    context: &Context,
    claim: &Claim,
    history: History,
    job: &RunningJob<'_>,
    desk: Option<&Desk>,
) {
    let mut log = events::writer(context, claim);
    announce(&mut log, claim);
    if history.messages.is_empty() {
        return give_up(
            context,
            claim,
            FailureCode::Internal,
            "the message to answer is gone",
        )
        .await;
    }
    let (call, shown) = call(context, claim, history, desk).await;
    let asked = ask(context, claim, &call, &mut log, job, |_| true).await;
    let Some((book, asked)) = asked else { return };
    match (asked, desk) {
        (Asked::Answered(answer), _) => {
            let record = desk.map(|desk| desk.record(None));
            finish::store(context, claim, &book, &answer, &shown, &log, record).await
        }
        // Boxed, so that no other job is as large as this rare one.
        // Whatever the reason: who was told that a person takes over must find one.
        (
            Asked::Failed {
                detail,
                limit,
                code,
            },
            Some(desk),
        ) => {
            let reason = support::failure(code, limit);
            tracing::warn!(generation.id = %claim.id, %code, detail, "the help desk answers without a model");
            let answer = finish::template(desk.template());
            let record = Some(desk.record(Some(reason)));
            let stored = finish::store(context, claim, &book, &answer, &shown, &log, record);
            Box::pin(stored).await
        }
        (Asked::Failed { code, detail, .. }, None) => give_up(context, claim, code, &detail).await,
    }
}

/// What to ask, and how much of the conversation is shown with it.
async fn call(
    context: &Context,
    claim: &Claim,
    history: History,
    desk: Option<&Desk>,
) -> (Call, ContextUse) {
    let models = &context.config.upstream.models;
    let budget = context.config.history_tokens;
    let background = prompt::background(&history.context_data);
    let desk = desk.map(Desk::background);
    let earlier = earlier(context, claim, &history).await;
    let summary = earlier.summary.as_ref();
    let read = history.messages.len();
    let newest = history.messages.last();
    if let Some(newest) = newest.filter(|newest| Some(newest.id) == claim.user_message_id) {
        context.counts.note(claim, &newest.content);
    }
    let context_data = history.context_data;
    let turns = turns(history.messages, summary);
    let language = prompt::language(&context_data, &turns, context.config.platform.language);
    let input = PromptInput {
        context_type: claim.context_type,
        background: background.as_deref(),
        desk: desk.as_deref(),
        summary: summary.map(|summary| summary.content.as_str()),
        turns: &turns,
        budget,
        concise: claim.chain.first().is_some_and(|model| model.free),
        language,
    };
    let (used, shown) = prompt::used(&input);
    let count = |messages: usize| i64::try_from(messages).unwrap_or(i64::MAX);
    let shown = ContextUse {
        used: used.into(),
        budget: budget.into(),
        summarised: earlier.summarised + count(read - turns.len()),
        // What had to make room for the summary was neither shown nor told of by it.
        dropped: earlier.dropped + count(turns.len() - shown),
    };
    let messages = prompt::build(&input);
    let call = ask::call(claim, messages, models.max_tokens, models.temperature);
    (call, shown)
}

/// What stands before the history. Most conversations are shown as a whole, and are not asked about.
async fn earlier(context: &Context, claim: &Claim, history: &History) -> Earlier {
    let is_whole = usize::try_from(history.message_count).unwrap_or(0) <= history.messages.len();
    let (Some(oldest), Some(answering)) = (history.messages.first(), claim.user_message_id) else {
        return Earlier::default();
    };
    if is_whole {
        return Earlier::default();
    }
    let found = async {
        let mut tx = context.db.user(claim.user_id).await?;
        summaries::earlier(&mut tx, claim.conversation_id, oldest.id, answering).await
    };
    found.await.unwrap_or_else(|error: StoreError| {
        tracing::warn!(
            generation.id = %claim.id,
            error = &error as &dyn std::error::Error,
            "answered without what was said earlier"
        );
        Earlier::default()
    })
}

/// The turns that no summary tells of. A reply belongs to the message before it.
fn turns(messages: Vec<HistoryMessage>, summary: Option<&Summary>) -> Vec<Turn> {
    let messages = messages.into_iter();
    let Some(summary) = summary else {
        return messages.map(turn).collect();
    };
    let mut is_told = true;
    let newer = messages.skip_while(|message| {
        if message.sender_type == SenderType::User {
            is_told = message.id <= summary.up_to;
        }
        is_told
    });
    newer.map(turn).collect()
}

fn turn(message: HistoryMessage) -> Turn {
    Turn {
        sender: message.sender_type,
        content: message.content,
        attachments: message.attachments,
        tokens: message.token_count,
        superseded: false,
    }
}
