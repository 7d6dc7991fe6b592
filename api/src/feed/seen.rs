//! What a feed has delivered.

use std::collections::{HashMap, VecDeque};

use shared::domain::EventType;
use shared::id::EventId;
use shared::push::PushedEvent;
use uuid::Uuid;

/// Generations whose last event is remembered. Those that have ended are forgotten first, the oldest before the
/// others; after that, an event of theirs could only be repeated by a producer that breaks the order of its log.
const REMEMBERED: usize = 256;
/// The last event of each generation that was delivered.
#[derive(Debug, Default)]
pub(super) struct Seen {
    last: HashMap<Uuid, Last>,
    order: VecDeque<Uuid>,
    /// How many of them have not ended.
    going_on: usize,
}

#[derive(Debug)]
struct Last {
    /// None where the client has asked for all of it and nothing has been delivered yet.
    event: Option<EventId>,
    /// Since the last call of [`Seen::silent`].
    is_new: bool,
}

impl Last {
    fn goes_on(&self) -> bool {
        self.event
            .is_none_or(|event| event.seq != EventId::TERMINAL_SEQ)
    }
}

impl Seen {
    pub(super) fn last(&self, generation_id: Uuid) -> Option<EventId> {
        self.last.get(&generation_id)?.event
    }

    /// Whether the client has seen something of it, or has asked for it.
    pub(super) fn follows(&self, generation_id: Uuid) -> bool {
        self.last.contains_key(&generation_id)
    }

    pub(super) fn has_ended(&self, generation_id: Uuid) -> bool {
        self.last(generation_id)
            .is_some_and(|id| id.seq == EventId::TERMINAL_SEQ)
    }

    /// Whether the event was not delivered yet; remembers it.
    pub(super) fn admit(&mut self, event: &PushedEvent) -> bool {
        let Some(id) = event.generation_id else {
            return true;
        };
        if self.last(id).is_some_and(|last| event.id <= last) {
            return false;
        }
        self.remember(id, Some(event.id));
        true
    }

    /// Those that have not ended, as far as the client knows.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = Uuid> {
        let going_on = self.last.iter().filter(|(_, last)| last.goes_on());
        going_on.map(|(id, _)| *id)
    }

    /// Those that have not ended and of which nothing has come since the last call, oldest first.
    pub(super) fn silent(&mut self) -> VecDeque<Uuid> {
        let mut silent = VecDeque::new();
        for id in &self.order {
            let Some(last) = self.last.get_mut(id) else {
                continue;
            };
            if !std::mem::take(&mut last.is_new) && last.goes_on() {
                silent.push_back(*id);
            }
        }
        silent
    }

    /// Whether more is to come of what the client follows. Of ten thousand feeds most are idle, and
    /// none of those need wake up to look.
    pub(super) fn expects_more(&self) -> bool {
        self.going_on > 0
    }

    fn remember(&mut self, id: Uuid, event: Option<EventId>) {
        let last = Last {
            event,
            is_new: true,
        };
        self.going_on += usize::from(last.goes_on());
        let mut forgotten = self.last.insert(id, last);
        if forgotten.is_none() {
            self.order.push_back(id);
            if self.order.len() > REMEMBERED {
                let has_ended = |id: &Uuid| self.last.get(id).is_none_or(|last| !last.goes_on());
                let at = self.order.iter().position(has_ended).unwrap_or(0);
                let oldest = self.order.remove(at);
                forgotten = oldest.and_then(|oldest| self.last.remove(&oldest));
            }
        }
        self.going_on -= usize::from(forgotten.is_some_and(|last| last.goes_on()));
    }

    /// Whether events of the same attempt are missing before this one. Of the terminal event
    /// nobody knows its number, so it says nothing.
    pub(super) fn has_missed(&self, event: &PushedEvent) -> bool {
        let Some(last) = event.generation_id.and_then(|id| self.last(id)) else {
            return false;
        };
        let next = last.seq.saturating_add(1);
        event.kind != EventType::Queued
            && !event.kind.is_terminal()
            && event.id.attempt == last.attempt
            && event.id.seq > next
    }

    /// Goes back to a point the client named.
    pub(super) fn forget(&mut self, generation_id: Uuid, to: Option<EventId>) {
        self.remember(generation_id, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(attempt: u32, seq: u32, kind: EventType) -> PushedEvent {
        let generation_id = Uuid::from_u128(7);
        let id = EventId {
            generation_id,
            attempt,
            seq,
        };
        PushedEvent {
            id,
            kind,
            generation_id: Some(generation_id),
            conversation_id: Uuid::nil(),
            json: "{}".into(),
        }
    }

    #[test]
    fn an_event_is_delivered_once_and_a_jump_is_noticed() {
        let mut seen = Seen::default();
        assert!(seen.admit(&event(0, 1, EventType::Queued)));
        assert!(!seen.admit(&event(0, 1, EventType::Queued)));
        assert!(!seen.has_missed(&event(1, 1, EventType::InProgress)));
        assert!(seen.admit(&event(1, 1, EventType::InProgress)));
        assert!(!seen.has_missed(&event(1, 2, EventType::Delta)));
        assert!(seen.has_missed(&event(1, 3, EventType::Delta)));
        assert!(seen.admit(&event(1, EventId::TERMINAL_SEQ, EventType::Completed)));
        assert!(seen.has_ended(Uuid::from_u128(7)));
        assert!(!seen.admit(&event(1, 3, EventType::Delta)));
    }

    #[test]
    fn a_resumed_client_gets_again_what_it_asks_for() {
        let mut seen = Seen::default();
        assert!(seen.admit(&event(1, 5, EventType::Delta)));
        seen.forget(Uuid::from_u128(7), Some(event(1, 2, EventType::Delta).id));
        assert!(seen.admit(&event(1, 3, EventType::Delta)));
        seen.forget(Uuid::from_u128(7), None);
        assert!(seen.admit(&event(0, 1, EventType::Queued)));
    }

    #[test]
    fn what_was_asked_for_is_followed_before_anything_of_it_has_come() {
        let mut seen = Seen::default();
        let id = Uuid::from_u128(7);
        assert!(!seen.follows(id));
        seen.forget(id, None);
        assert!(seen.follows(id) && seen.last(id).is_none() && !seen.has_ended(id));
        assert!(!seen.has_missed(&event(1, 3, EventType::Delta)));
        assert!(seen.admit(&event(1, 3, EventType::Delta)));
    }

    #[test]
    fn what_goes_on_in_silence_is_looked_at_until_it_ends() {
        let mut seen = Seen::default();
        let id = Uuid::from_u128(7);
        assert!(seen.silent().is_empty());
        assert!(seen.admit(&event(1, 1, EventType::InProgress)));
        assert!(seen.silent().is_empty(), "something has just come");
        assert_eq!(seen.silent(), [id]);
        assert!(seen.admit(&event(1, 2, EventType::Delta)));
        assert!(seen.silent().is_empty());
        assert_eq!(seen.silent(), [id]);
        assert!(seen.admit(&event(1, EventId::TERMINAL_SEQ, EventType::Completed)));
        assert!(seen.silent().is_empty() && seen.silent().is_empty());
    }

    #[test]
    fn more_is_expected_until_everything_has_ended() {
        let mut seen = Seen::default();
        assert!(!seen.expects_more());
        assert!(seen.admit(&event(1, 1, EventType::InProgress)));
        seen.forget(Uuid::from_u128(8), None);
        assert!(seen.admit(&event(1, EventId::TERMINAL_SEQ, EventType::Completed)));
        assert!(seen.expects_more(), "of the one that was asked for");
        let other = PushedEvent {
            generation_id: Some(Uuid::from_u128(8)),
            ..event(1, EventId::TERMINAL_SEQ, EventType::Completed)
        };
        assert!(seen.admit(&other));
        assert!(!seen.expects_more());
        // What is forgotten is expected no more.
        for number in 100..2_000_u128 {
            seen.forget(Uuid::from_u128(number), None);
        }
        assert_eq!(seen.going_on, REMEMBERED);
    }

    #[test]
    fn what_has_ended_is_forgotten_before_what_goes_on() {
        let mut seen = Seen::default();
        let of = |number: u128, event: PushedEvent| PushedEvent {
            generation_id: Some(Uuid::from_u128(number)),
            ..event
        };
        assert!(seen.admit(&of(1, event(1, 1, EventType::InProgress))));
        for number in 2..1_000 {
            let end = event(1, EventId::TERMINAL_SEQ, EventType::Completed);
            assert!(seen.admit(&of(number, end)));
        }
        assert!(seen.follows(Uuid::from_u128(1)) && !seen.follows(Uuid::from_u128(2)));
        let unfinished: Vec<Uuid> = seen.unfinished().collect();
        assert_eq!(unfinished, [Uuid::from_u128(1)]);
    }

    #[test]
    fn memory_is_bounded_whatever_a_user_does() {
        let mut seen = Seen::default();
        for number in 0..2000_u128 {
            let generation_id = Uuid::from_u128(number);
            let id = EventId {
                generation_id,
                attempt: 0,
                seq: 1,
            };
            seen.admit(&PushedEvent {
                id,
                generation_id: Some(generation_id),
                ..event(0, 1, EventType::Queued)
            });
            seen.forget(Uuid::from_u128(number + 10_000), None);
        }
        assert_eq!(
            (seen.last.len(), seen.order.len()),
            (REMEMBERED, REMEMBERED)
        );
    }
}
