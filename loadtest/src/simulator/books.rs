//! What the simulator remembers: every call, how it ended, what it cost, and the totals.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rust_decimal::Decimal;
use tokio::sync::watch;

use super::catalogue::{self, Model};
use super::records::{CallRecord, Outcome, Stats, Sums};
use super::script::Endpoint;
use crate::clock;

/// A call while it lives. The counters are atomic so that a stream counts tokens without a lock.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) facts: Facts,
    at_us: u64,
    status: AtomicU32,
    tokens: AtomicU32,
    first_token_us: AtomicU64,
    end: OnceLock<End>,
}

/// What a request said, and what was decided about it.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    pub(crate) session_id: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) key: String,
    pub(crate) marker: String,
    pub(crate) last_user_message: String,
    pub(crate) messages: usize,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) stream: bool,
    pub(crate) request_id: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    pub(crate) reasoning_tokens: u32,
    pub(crate) fixed_cost: Option<Decimal>,
}

#[derive(Debug)]
struct End {
    at_us: u64,
    outcome: Outcome,
    finish_reason: Option<String>,
    completion_tokens: u32,
    cost: Decimal,
}

/// The price of a call, in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) prompt: Decimal,
    pub(crate) completion: Decimal,
    pub(crate) total: Decimal,
}

impl Facts {
    /// The price of these prompt tokens and `completion` tokens. Cached tokens are part of the
    /// prompt and cost a quarter.
    pub(crate) fn price(&self, completion: u32) -> Price {
        let Model {
            prompt_price,
            completion_price,
            ..
        } = catalogue::find(&self.model);
        let cached = self.cached_tokens.min(self.prompt_tokens);
        let fresh = self.prompt_tokens - cached;
        let prompt = prompt_price * Decimal::from(fresh)
            + prompt_price * Decimal::from(cached) / Decimal::from(4);
        let completion = completion_price * Decimal::from(completion);
        let total = self.fixed_cost.unwrap_or(prompt + completion);
        Price {
            prompt: prompt.normalize(),
            completion: completion.normalize(),
            total: total.normalize(),
        }
    }
}

impl Call {
    pub(crate) fn set_status(&self, status: u16) {
        self.status.store(u32::from(status), Ordering::Relaxed);
    }

    pub(crate) fn set_tokens(&self, tokens: u32) {
        if self.tokens.swap(tokens, Ordering::Relaxed) == 0 {
            self.mark_first_token();
        }
    }

    pub(crate) fn mark_first_token(&self) {
        let now = clock::unix_micros();
        let _ = self
            .first_token_us
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    fn record(&self) -> CallRecord {
        let facts = &self.facts;
        let end = self.end.get();
        let first = self.first_token_us.load(Ordering::Relaxed);
        let tokens_sent = self.tokens.load(Ordering::Relaxed);
        CallRecord {
            seq: self.seq,
            id: self.id.clone(),
            endpoint: facts.endpoint,
            at_us: self.at_us,
            first_token_us: (first > 0).then_some(first),
            ended_us: end.map(|end| end.at_us),
            model: facts.model.clone(),
            session_id: facts.session_id.clone(),
            user: facts.user.clone(),
            key: facts.key.clone(),
            marker: facts.marker.clone(),
            last_user_message: facts.last_user_message.clone(),
            messages: facts.messages,
            max_tokens: facts.max_tokens,
            stream: facts.stream,
            request_id: facts.request_id.clone(),
            traceparent: facts.traceparent.clone(),
            status: u16::try_from(self.status.load(Ordering::Relaxed)).unwrap_or(0),
            outcome: end.map_or(Outcome::InProgress, |end| end.outcome),
            finish_reason: end.and_then(|end| end.finish_reason.clone()),
            tokens_sent,
            prompt_tokens: facts.prompt_tokens,
            completion_tokens: end.map_or(tokens_sent, |end| end.completion_tokens),
            cost: end.map(|end| end.cost.to_string()),
        }
    }
}

/// How many different users [`Stats::by_user`] keeps apart.
const USERS_KEPT: usize = 10_000;

/// The calls and the totals.
#[derive(Debug)]
pub(crate) struct Books {
    inner: Mutex<Inner>,
    in_flight: AtomicU64,
    changed: watch::Sender<u64>,
    remembered_calls: usize,
    remembered_bytes: usize,
    started_s: u64,
}

#[derive(Debug, Default)]
struct Inner {
    next_seq: u64,
    calls: VecDeque<Arc<Call>>,
    bytes: usize,
    free_starts: VecDeque<u64>,
    stats: Stats,
}

impl Books {
    pub(crate) fn new(remembered_calls: usize, remembered_bytes: usize) -> Self {
        Self {
            inner: Mutex::default(),
            in_flight: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            remembered_calls: remembered_calls.max(1),
            remembered_bytes,
            started_s: clock::unix_micros() / 1_000_000,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The books hold plain sums: a panic elsewhere cannot leave them half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down a call that has just been read.
    pub(crate) fn begin(&self, facts: Facts) -> Arc<Call> {
        let at_us = clock::unix_micros();
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        let mut inner = self.lock();
        inner.next_seq += 1;
        let seq = inner.next_seq;
        inner.stats.calls += 1;
        inner.stats.in_flight_max = inner.stats.in_flight_max.max(in_flight);
        if catalogue::is_free(&facts.model) {
            inner.free_starts.push_back(at_us);
            while inner
                .free_starts
                .front()
                .is_some_and(|first| first + 60_000_000 <= at_us)
            {
                inner.free_starts.pop_front();
            }
            let count = inner.free_starts.len() as u64;
            inner.stats.free_per_minute_max = inner.stats.free_per_minute_max.max(count);
        }
        let call = Arc::new(Call {
            seq,
            id: format!("gen-{}-{seq:020}", self.started_s),
            facts,
            at_us,
            status: AtomicU32::new(0),
            tokens: AtomicU32::new(0),
            first_token_us: AtomicU64::new(0),
            end: OnceLock::new(),
        });
        inner.bytes += call.facts.last_user_message.len();
        inner.calls.push_back(Arc::clone(&call));
        while inner.calls.len() > self.remembered_calls
            || (inner.bytes > self.remembered_bytes && inner.calls.len() > 1)
        {
            if let Some(oldest) = inner.calls.pop_front() {
                inner.bytes -= oldest.facts.last_user_message.len();
            }
        }
        drop(inner);
        self.touch();
        call
    }

    /// Writes down how a call ended; only the first word counts.
    pub(crate) fn end(&self, call: &Call, outcome: Outcome, finish_reason: Option<String>) {
        let sent = call.tokens.load(Ordering::Relaxed);
        let completed = outcome == Outcome::Completed;
        // Failures and calls without any output are not charged; a finished call is, also when
        // its answer was empty.
        let charged = completed || (sent > 0 && outcome != Outcome::Failed);
        let completion_tokens = if charged {
            sent + call.facts.reasoning_tokens
        } else {
            0
        };
        let cost = if charged {
            call.facts.price(completion_tokens).total
        } else {
            Decimal::ZERO
        };
        let end = End {
            at_us: clock::unix_micros(),
            outcome,
            finish_reason,
            completion_tokens,
            cost,
        };
        if call.end.set(end).is_err() {
            return;
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let prompt_tokens = if charged { call.facts.prompt_tokens } else { 0 };
        let mut inner = self.lock();
        let stats = &mut inner.stats;
        *stats.by_outcome.entry(outcome).or_default() += 1;
        let status = u16::try_from(call.status.load(Ordering::Relaxed)).unwrap_or(0);
        if status > 0 {
            *stats.by_status.entry(status).or_default() += 1;
        }
        stats.total.add(prompt_tokens, completion_tokens, cost);
        add_to(
            &mut stats.by_model,
            &call.facts.model,
            usize::MAX,
            (prompt_tokens, completion_tokens, cost),
        );
        add_to(
            &mut stats.by_key,
            &call.facts.key,
            usize::MAX,
            (prompt_tokens, completion_tokens, cost),
        );
        if let Some(user) = &call.facts.user {
            add_to(
                &mut stats.by_user,
                user,
                USERS_KEPT,
                (prompt_tokens, completion_tokens, cost),
            );
        }
        drop(inner);
        self.touch();
    }

    /// Tells waiters that a call has changed.
    pub(crate) fn touch(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// Whether somebody waits for a change, so that a stream need not tell of every token.
    pub(crate) fn is_watched(&self) -> bool {
        self.changed.receiver_count() > 0
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The number of calls not ended.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The remembered calls for which `wanted` holds, oldest first.
    pub(crate) fn records(&self, wanted: impl Fn(&CallRecord) -> bool) -> Vec<CallRecord> {
        let calls: Vec<Arc<Call>> = self.lock().calls.iter().cloned().collect();
        calls
            .iter()
            .map(|call| call.record())
            .filter(wanted)
            .collect()
    }

    /// The remembered call with this generation id.
    pub(crate) fn find(&self, id: &str) -> Option<CallRecord> {
        let seq: u64 = id.rsplit('-').next()?.parse().ok()?;
        let inner = self.lock();
        let first = inner.calls.front()?.seq;
        let index = usize::try_from(seq.checked_sub(first)?).ok()?;
        let call = Arc::clone(inner.calls.get(index).filter(|call| call.id == id)?);
        drop(inner);
        Some(call.record())
    }

    /// Forgets all calls and totals. Calls in flight are counted when they end.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        let next_seq = inner.next_seq;
        *inner = Inner {
            next_seq,
            ..Inner::default()
        };
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.lock().stats.clone();
        stats.in_flight = self.in_flight();
        stats
    }
}

fn add_to(
    map: &mut BTreeMap<String, Sums>,
    name: &str,
    most: usize,
    (prompt, completion, cost): (u32, u32, Decimal),
) {
    if let Some(sums) = map.get_mut(name) {
        sums.add(prompt, completion, cost);
    } else if map.len() < most {
        map.entry(name.to_owned())
            .or_default()
            .add(prompt, completion, cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(model: &str, message: &str) -> Facts {
        Facts {
            endpoint: Endpoint::Chat,
            model: model.to_owned(),
            session_id: None,
            user: Some("u".to_owned()),
            key: "k".to_owned(),
            marker: String::new(),
            last_user_message: message.to_owned(),
            messages: 1,
            max_tokens: None,
            stream: true,
            request_id: None,
            traceparent: None,
            prompt_tokens: 100,
            cached_tokens: 0,
            reasoning_tokens: 0,
            fixed_cost: None,
        }
    }

    #[test]
    fn charges_what_was_sent() {
        let books = Books::new(10, 1_000);
        let call = books.begin(facts("openai/gpt-4o-mini", "a"));
        call.set_tokens(7);
        books.end(&call, Outcome::Disconnected, None);
        books.end(&call, Outcome::Completed, Some("stop".to_owned()));
        let record = books.find(&call.id).unwrap();
        // 100 × 0.00000015 + 7 × 0.0000006
        assert_eq!(
            (record.cost.as_deref(), record.outcome),
            (Some("0.0000192"), Outcome::Disconnected)
        );
        let stats = books.stats();
        assert_eq!(
            (stats.total.calls, stats.total.cost.to_string().as_str()),
            (1, "0.0000192")
        );
        assert_eq!(stats.by_user["u"], stats.total);
    }

    #[test]
    fn charges_nothing_for_failures_and_silence() {
        let books = Books::new(10, 1_000);
        for outcome in [Outcome::Failed, Outcome::Disconnected, Outcome::Cut] {
            let call = books.begin(facts("openai/gpt-4o-mini", "a"));
            if outcome == Outcome::Failed {
                call.set_tokens(5);
            }
            books.end(&call, outcome, None);
        }
        assert_eq!(books.stats().total.cost, Decimal::ZERO);
    }

    #[test]
    fn cached_tokens_are_part_of_the_prompt() {
        let mut facts = facts("openai/gpt-4o", "a");
        facts.cached_tokens = 40;
        // 60 × 0.0000025 + 40 × 0.0000025 / 4
        assert_eq!(facts.price(0).total.to_string(), "0.000175");
    }

    #[test]
    fn remembers_within_its_bounds() {
        let books = Books::new(3, 1_000);
        let ids: Vec<String> = (0..5)
            .map(|_| books.begin(facts("m", "abc")).id.clone())
            .collect();
        assert!(books.find(&ids[0]).is_none() && books.find(&ids[4]).is_some());
        assert_eq!(books.records(|_| true).len(), 3);
        let small = Books::new(100, 10);
        for _ in 0..5 {
            small.begin(facts("m", "abcdef"));
        }
        assert_eq!(small.records(|_| true).len(), 1);
    }
}
