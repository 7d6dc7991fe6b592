//! Keeping the books of an attempt: every upstream call is a row of the ledger.

use serde_json::json;
use shared::domain::{EventType, Usage};
use shared::store::ledger::{self, CallEnded, CallStarted, RunningCall, Used};
use shared::store::{StoreResult, UserTx};
use shared::{clock::Clock, id};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::events::Note;
use super::meter;
use crate::context::Context;
use crate::upstream::{CallRecord, ErrorClass, Model, Progress, TokenUsage};
use shared::store::generations::Claim;

/// Hears of everything the upstream does for one attempt.
pub(super) struct Book<'a> {
    context: &'a Context,
    claim: &'a Claim,
    operation: &'static str,
    /// None once closed.
    notes: Option<mpsc::UnboundedSender<Note>>,
    began_at: OffsetDateTime,
    call: Option<OpenCall>,
    /// The call that gave the answer, to be booked in the finishing transaction.
    answered: Option<(Uuid, CallRecord)>,
    /// The text of the call so far.
    text: String,
}

struct OpenCall {
    id: Uuid,
    model: Model,
    key_label: String,
    upstream_id: Option<String>,
    started_at: OffsetDateTime,
}

impl<'a> Book<'a> {
    pub(super) fn new(
        context: &'a Context,
        claim: &'a Claim,
        operation: &'static str,
        notes: mpsc::UnboundedSender<Note>,
    ) -> Self {
        Self {
            context,
            claim,
            operation,
            notes: Some(notes),
            began_at: context.clock.now(),
            call: None,
            answered: None,
            text: String::new(),
        }
    }

    /// Ends the notes: nothing more will come of the upstream.
    pub(super) fn close(&mut self) {
        self.notes = None;
    }

    /// When the attempt began to ask the upstream.
    pub(super) fn began_at(&self) -> OffsetDateTime {
        self.began_at
    }

    fn note(&self, note: Note) {
        // A job that nobody follows has dropped the receiving end.
        let _ = self.notes.as_ref().map(|notes| notes.send(note));
    }

    /// The text of the newest call so far.
    pub(super) fn text_so_far(&self) -> &str {
        &self.text
    }

    /// The call that gave the answer, to be booked in the transaction that stores it.
    pub(super) fn answered(&self, wasted: bool) -> Option<CallEnded> {
        let (id, record) = self.answered.as_ref()?;
        Some(ended(self.claim, self.operation, *id, record, wasted))
    }

    /// The id of that call, for the row of its usage.
    pub(super) fn answered_id(&self) -> Option<Uuid> {
        self.answered.as_ref().map(|(id, _)| *id)
    }

    /// Books it.
    pub(super) async fn book_answer(&self, tx: &mut UserTx, wasted: bool) -> StoreResult<()> {
        match self.answered(wasted) {
            Some(call) => ledger::ended(tx, &call).await,
            None => Ok(()),
        }
    }

    /// Counts what the answer took, once it is known whether anybody got it.
    pub(super) fn count_answer(&self, usage: &Usage, wasted: bool) {
        if let Some((_, record)) = &self.answered {
            meter::spent(&record.model.name, self.operation, usage, wasted);
        }
    }

    /// Books what was spent for nothing: the answer came, but somebody else owns the row.
    pub(super) async fn book_wasted(&self, usage: &Usage) {
        self.count_answer(usage, true);
        let booked = async {
            let mut tx = self.context.db.user(self.claim.user_id).await?;
            self.book_answer(&mut tx, true).await?;
            self.book_wasted_answer(&mut tx, usage).await?;
            tx.commit().await
        };
        self.log_failure(booked.await);
    }

    /// Books the answer's usage as wasted.
    pub(super) async fn book_wasted_answer(
        &self,
        tx: &mut UserTx,
        usage: &Usage,
    ) -> StoreResult<()> {
        match self.answered_id() {
            Some(id) => ledger::used(tx, &self.wasted_usage(id, usage)).await,
            None => Ok(()),
        }
    }

    fn wasted_usage<'b>(&self, id: Uuid, usage: &'b Usage) -> Used<'b> {
        Used {
            id,
            conversation_id: self.claim.conversation_id,
            generation_id: self.claim.id,
            operation: self.operation,
            usage,
            wasted: true,
        }
    }

    /// Books the call that is being dropped: what it cost is unknown.
    pub(super) async fn book_dropped(&mut self, reason: &'static str) {
        let Some(call) = self.call.take() else { return };
        self.context.calls.ended(call.id);
        self.context.pacing.release(&call.model.name).await;
        // One that the upstream has not taken costs nothing.
        let taken = call
            .upstream_id
            .is_some()
            .then(|| unknown(&call, self.context.clock.now()));
        let id = call.id;
        let row = CallEnded {
            started: started(self.claim, self.operation, call),
            model_served: None,
            outcome: reason,
            prompt_tokens: None,
            completion_tokens: None,
            cost_credits: None,
            usage: None,
            wasted: true,
            first_token_at: None,
            finished_at: self.context.clock.now(),
        };
        let booked = async {
            let mut tx = self.context.db.user_async(self.claim.user_id).await?;
            ledger::ended(&mut tx, &row).await?;
            if let Some(usage) = &taken {
                ledger::used(&mut tx, &self.wasted_usage(id, usage)).await?;
            }
            tx.commit().await
        };
        self.log_failure(booked.await);
    }

    fn log_failure(&self, booked: StoreResult<()>) {
        if let Err(error) = booked {
            tracing::warn!(
                generation.id = %self.claim.id,
                error = &error as &dyn std::error::Error,
                "an upstream call is missing in the ledger"
            );
        }
    }
}

impl Progress for Book<'_> {
    async fn calling(&mut self, model: &Model, key_label: &str) {
        self.text.clear();
        let now = self.context.clock.now();
        self.call = Some(OpenCall {
            id: id::new(now),
            model: model.clone(),
            key_label: key_label.to_owned(),
            upstream_id: None,
            started_at: now,
        });
    }

    async fn accepted(&mut self, upstream_id: &str) {
        let Some(call) = &mut self.call else { return };
        call.upstream_id = Some(upstream_id.to_owned());
        self.context.calls.began(RunningCall {
            id: call.id,
            user_id: self.claim.user_id,
            generation_id: self.claim.id,
            attempt: self.claim.attempt,
            operation: self.operation,
            key_label: call.key_label.clone(),
            model_asked: call.model.name.clone(),
            upstream_id: upstream_id.to_owned(),
            started_at: call.started_at,
        });
    }

    async fn text(&mut self, piece: &str) {
        if self.text.is_empty()
            && let Some(call) = &self.call
        {
            self.context.pacing.answers(&call.model.name).await;
        }
        self.text.push_str(piece);
        self.note(Note::Text(piece.to_owned()));
    }

    async fn quiet(&mut self) {
        let message = "Still working on the answer; this one takes a little longer.";
        self.note(Note::Event(
            EventType::Interim,
            json!({ "message": message }),
        ));
    }

    async fn call_ended(&mut self, record: CallRecord) {
        let Some(call) = self.call.take() else { return };
        self.context.calls.ended(call.id);
        let status = record.error.map_or("completed", ErrorClass::as_str);
        metrics::counter!(
            shared::metrics::OPENROUTER_REQUESTS,
            "model" => record.model.name.clone(), "status" => status
        )
        .increment(1);
        metrics::counter!(
            shared::metrics::KEY_REQUESTS,
            "key" => record.key_label.clone(), "status" => status
        )
        .increment(1);
        meter::free(self.claim.priority, &record);
        if let Some(first) = record.first_token_at {
            let wait = (first - record.started_at).as_seconds_f64().max(0.0);
            metrics::histogram!(shared::metrics::TIME_TO_FIRST_TOKEN, "model" => record.model.name.clone()).record(wait);
        }
        if record.error.is_none() {
            self.answered = Some((call.id, record));
            return;
        }
        let usage = match &record.usage {
            Some(usage) => Some(spent(&record, usage)),
            None if record.wasted => Some(spent(&record, &TokenUsage::default())),
            None => None,
        };
        if let Some(usage) = &usage {
            meter::spent(&record.model.name, self.operation, usage, true);
        }
        let booked = async {
            let mut tx = self.context.db.user_async(self.claim.user_id).await?;
            ledger::ended(
                &mut tx,
                &ended(self.claim, self.operation, call.id, &record, record.wasted),
            )
            .await?;
            if let Some(usage) = &usage {
                ledger::used(&mut tx, &self.wasted_usage(call.id, usage)).await?;
            }
            tx.commit().await
        };
        let booked = booked.await;
        self.log_failure(booked);
    }

    async fn retrying(&mut self, model: &Model, reason: ErrorClass, next: &Model, delay: Duration) {
        self.text.clear();
        let data = json!({
            "model": model.name,
            "reason": reason.as_str(),
            "next_model": next.name,
            "delay_ms": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        });
        self.note(Note::Event(EventType::Retrying, data));
    }
}

fn started(claim: &Claim, operation: &'static str, call: OpenCall) -> CallStarted {
    CallStarted {
        id: call.id,
        generation_id: claim.id,
        attempt: claim.attempt,
        operation,
        key_label: call.key_label,
        model_asked: call.model.name,
        upstream_id: call.upstream_id,
        started_at: call.started_at,
    }
}

fn ended(
    claim: &Claim,
    operation: &'static str,
    id: Uuid,
    record: &CallRecord,
    wasted: bool,
) -> CallEnded {
    CallEnded {
        started: CallStarted {
            id,
            generation_id: claim.id,
            attempt: claim.attempt,
            operation,
            key_label: record.key_label.clone(),
            model_asked: record.model.name.clone(),
            upstream_id: record.upstream_id.clone(),
            started_at: record.started_at,
        },
        model_served: record.model_served.clone(),
        outcome: record.error.map_or("completed", ErrorClass::as_str),
        prompt_tokens: record
            .usage
            .as_ref()
            .map(|usage| tokens(usage.prompt_tokens)),
        completion_tokens: record
            .usage
            .as_ref()
            .map(|usage| tokens(usage.completion_tokens)),
        cost_credits: record.usage.as_ref().and_then(|usage| usage.cost),
        usage: record.usage.as_ref().and_then(|usage| usage.raw.clone()),
        wasted,
        first_token_at: record.first_token_at,
        finished_at: record.finished_at,
    }
}

/// What a call used, in the shape of the usage table.
pub(super) fn spent(record: &CallRecord, usage: &TokenUsage) -> Usage {
    let took = record.finished_at - record.started_at;
    Usage {
        model: record
            .model_served
            .clone()
            .unwrap_or_else(|| record.model.name.clone()),
        prompt_tokens: tokens(usage.prompt_tokens),
        completion_tokens: tokens(usage.completion_tokens),
        total_tokens: tokens(usage.total_tokens),
        cached_tokens: tokens(usage.cached_tokens),
        reasoning_tokens: tokens(usage.reasoning_tokens),
        cost_credits: usage.cost,
        is_free_model: record.model.free,
        processing_time_ms: millis(took),
    }
}

/// The usage of a call that is being dropped: what it took is not known, or not yet.
fn unknown(call: &OpenCall, now: OffsetDateTime) -> Usage {
    Usage {
        model: call.model.name.clone(),
        prompt_tokens: 0,
        completion_tokens: 0,
        total_tokens: 0,
        cached_tokens: 0,
        reasoning_tokens: 0,
        cost_credits: None,
        is_free_model: call.model.free,
        processing_time_ms: millis(now - call.started_at),
    }
}

fn millis(took: time::Duration) -> i32 {
    i32::try_from(took.whole_milliseconds().max(0)).unwrap_or(i32::MAX)
}

fn tokens(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Credits in millionths, for a counter.
pub(crate) fn micro_credits(cost: Option<rust_decimal::Decimal>) -> u64 {
    use rust_decimal::prelude::ToPrimitive as _;
    cost.and_then(|cost| cost.checked_mul(1_000_000.into())?.to_u64())
        .unwrap_or(0)
}

/// The clock's reading, so that callers need not name it.
pub(super) fn since(clock: &Clock, from: OffsetDateTime) -> i32 {
    millis(clock.now() - from)
}
