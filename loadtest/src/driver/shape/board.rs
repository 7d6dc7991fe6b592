//! What is known of each generation of a run: its message, its texts, its end.
//!
//! Events may come before the 202 of their message, twice, or, after a socket was cut, out of order.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Notify;

use super::plan::Who;
use crate::driver::tracker::Ending;

/// The part of an event that is looked at.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) generation_id: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    #[serde(default)]
    text: String,
    #[serde(default)]
    assistant_message: Option<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: String,
}

/// A message that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) who: Who,
    /// Which socket hears of it.
    pub(crate) user: usize,
    /// When it was meant to leave.
    pub(crate) due: Instant,
    /// When the 202 had come.
    pub(crate) accepted: Instant,
}

/// What is known of a generation.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) sent: Option<Sent>,
    pub(crate) first_text: Option<Instant>,
    /// The longest wait from one text to the next.
    pub(crate) longest_gap: Duration,
    pub(crate) end: Option<(Ending, Instant)>,
    /// Whether the texts told are not the reply that was stored; only where texts are compared.
    pub(crate) is_wrong: bool,
    /// Whether its end was told only after somebody had asked for it.
    pub(crate) was_asked_for: bool,
    last_text: Option<Instant>,
    /// When anything was heard of it, or asked.
    last_sign: Option<Instant>,
    last_event: String,
    text: String,
}

/// All generations of a run.
#[derive(Debug, Default)]
pub(crate) struct Board {
    known: Mutex<HashMap<String, Known>>,
    changed: Notify,
    compares_text: bool,
}

impl Board {
    pub(crate) fn new(compares_text: bool) -> Self {
        Self {
            compares_text,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a 202. Returns the end if it came before.
    pub(crate) fn sent(&self, generation: &str, sent: Sent) -> Option<(Ending, Instant)> {
        let mut known = self.lock();
        let known = known.entry(generation.to_owned()).or_default();
        known.last_sign.get_or_insert(sent.accepted);
        known.sent = Some(sent);
        known.end
    }

    /// Notes an event. Returns its message when it ended it, and for how long it took.
    pub(crate) fn heard(&self, event: &Event, at: Instant) -> Option<(Ending, Duration)> {
        let generation = event.generation_id.as_ref()?;
        let mut all = self.lock();
        let known = all.entry(generation.clone()).or_default();
        // Ids of one generation are ordered as text; what is not newer was heard before.
        if known.end.is_some() || (!event.id.is_empty() && event.id <= known.last_event) {
            return None;
        }
        known.last_event.clone_from(&event.id);
        known.last_sign = Some(at);
        match event.kind.as_str() {
            "generation.delta" => known.hear_text(&event.data.text, at, self.compares_text),
            "generation.retrying" => known.text.clear(),
            _ => {}
        }
        let ending = Ending::of(&event.kind)?;
        if ending == Ending::Completed {
            // A reply without a text of its own was told with its end.
            known.first_text.get_or_insert(at);
            let stored = event.data.assistant_message.as_ref();
            known.is_wrong =
                self.compares_text && stored.is_none_or(|stored| stored.content != known.text);
        }
        known.text = String::new();
        known.end = Some((ending, at));
        let due = known.sent.as_ref().map(|sent| sent.due);
        drop(all);
        self.changed.notify_waiters();
        due.map(|due| (ending, at - due))
    }

    /// What one socket still waits for, and the last event it heard of each.
    pub(crate) fn under_way_of(&self, user: usize) -> Vec<(String, String)> {
        let known = self.lock();
        let mine = known.iter().filter(|(_, known)| {
            known.end.is_none() && known.sent.as_ref().is_some_and(|sent| sent.user == user)
        });
        mine.map(|(id, known)| (id.clone(), known.last_event.clone()))
            .collect()
    }

    /// What one socket has heard nothing of for so long, as far as it may ask for it at once. It counts as
    /// asked for.
    pub(crate) fn silent_of(
        &self,
        user: usize,
        silence: Duration,
        most: usize,
    ) -> Vec<(String, String)> {
        let mut known = self.lock();
        let now = Instant::now();
        let silent = known.iter_mut().filter(|(_, known)| {
            let since = known.last_sign.map(|at| now.saturating_duration_since(at));
            known.end.is_none()
                && known.sent.as_ref().is_some_and(|sent| sent.user == user)
                && since.is_some_and(|since| since > silence)
        });
        silent
            .take(most)
            .map(|(id, known)| {
                known.was_asked_for = true;
                known.last_sign = Some(now);
                (id.clone(), known.last_event.clone())
            })
            .collect()
    }

    /// Whether a generation has ended.
    pub(crate) fn has_ended(&self, generation: &str) -> bool {
        self.lock()
            .get(generation)
            .is_some_and(|known| known.end.is_some())
    }

    /// Accepted messages whose end has not come.
    pub(crate) fn under_way(&self) -> usize {
        let known = self.lock();
        let waiting = known.values();
        waiting
            .filter(|known| known.sent.is_some() && known.end.is_none())
            .count()
    }

    /// Their generations.
    pub(crate) fn missing(&self) -> Vec<String> {
        let known = self.lock();
        let waiting = known
            .iter()
            .filter(|(_, known)| known.sent.is_some() && known.end.is_none());
        waiting.map(|(id, _)| id.clone()).collect()
    }

    /// Waits until every accepted message has ended.
    pub(crate) async fn wait_for_all(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Interest first, then the look: an end between the two is not missed.
            changed.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Everything that is known of the run's own messages.
    pub(crate) fn take(&self) -> Vec<(Sent, Known)> {
        let all = std::mem::take(&mut *self.lock());
        all.into_values()
            .filter_map(|mut known| Some((known.sent.take()?, known)))
            .collect()
    }
}

impl Known {
    fn hear_text(&mut self, text: &str, at: Instant, keep: bool) {
        self.first_text.get_or_insert(at);
        if let Some(last) = self.last_text {
            self.longest_gap = self.longest_gap.max(at.saturating_duration_since(last));
        }
        self.last_text = Some(at);
        if keep {
            self.text.push_str(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, id: &str, data: &serde_json::Value) -> Event {
        serde_json::from_value(
            json!({"type": kind, "id": id, "generation_id": "g", "conversation_id": "c", "data": data}),
        )
        .unwrap()
    }

    fn sent(due: Instant) -> Sent {
        Sent {
            who: Who::People,
            user: 3,
            due,
            accepted: due,
        }
    }

    #[test]
    fn texts_are_compared_with_the_reply_that_was_stored() {
        for (second, stored, wrong) in [("lo", "hello", false), ("lo", "hello!", true)] {
            let board = Board::new(true);
            let now = Instant::now();
            assert!(board.sent("g", sent(now)).is_none());
            for (kind, id, data) in [
                ("generation.delta", "g.1.1", json!({"text": "void"})),
                ("generation.retrying", "g.2.0", json!({"model": "m"})),
                ("generation.delta", "g.2.1", json!({"text": "hel"})),
                ("generation.delta", "g.2.2", json!({"text": second})),
                // Told again after a resume.
                ("generation.delta", "g.2.2", json!({"text": second})),
            ] {
                assert!(board.heard(&event(kind, id, &data), now).is_none());
            }
            assert_eq!(
                board.under_way_of(3),
                [("g".to_owned(), "g.2.2".to_owned())]
            );
            let data = json!({"assistant_message": {"content": stored}});
            let end = event("generation.completed", "g.2.9", &data);
            assert_eq!(
                board.heard(&end, now),
                Some((Ending::Completed, Duration::ZERO))
            );
            assert!(board.heard(&end, now).is_none(), "an end counts once");
            assert!(board.take()[0].1.is_wrong == wrong);
        }
    }

    #[test]
    fn what_is_silent_is_asked_for_once_in_a_while() {
        let board = Board::new(false);
        let now = Instant::now();
        board.sent("g", sent(now));
        std::thread::sleep(Duration::from_millis(5));
        let silence = Duration::from_millis(1);
        assert!(board.silent_of(4, silence, 9).is_empty(), "somebody else's");
        assert!(board.silent_of(3, Duration::from_mins(1), 9).is_empty());
        assert_eq!(
            board.silent_of(3, silence, 9),
            [("g".to_owned(), String::new())]
        );
        assert!(board.silent_of(3, Duration::from_mins(1), 9).is_empty());
        let end = event("generation.completed", "g.1.9", &json!({}));
        assert!(board.heard(&end, now).is_some());
        assert!(board.silent_of(3, Duration::ZERO, 9).is_empty());
        assert!(board.take()[0].1.was_asked_for);
    }

    #[test]
    fn an_end_may_come_before_its_202() {
        let board = Board::new(false);
        let now = Instant::now();
        let end = event("generation.failed", "g.1.9", &json!({"error": {}}));
        assert!(board.heard(&end, now).is_none());
        assert_eq!(board.under_way(), 0);
        assert_eq!(board.sent("g", sent(now)).unwrap().0, Ending::Failed);
        assert_eq!((board.under_way(), board.take().len()), (0, 1));
    }
}
