//! The external ledger: every request, what was answered to it, and nothing of what the product says
//! about itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// A conversation of one of the run's users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) id: Uuid,
    /// The `Authorization` header of its user.
    pub(crate) authorization: Arc<str>,
}

/// What an acknowledgement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub(crate) generation: Uuid,
    pub(crate) message: Uuid,
}

/// One wish for a reply that somebody sent, as often as it took: a message, or the wish for another
/// reply to one.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Place of its conversation.
    pub(crate) conversation: usize,
    /// `Idempotency-Key`, and `X-Request-Id` as well, so that calls and notifications name it.
    pub(crate) key: String,
    pub(crate) question: String,
    /// The number of the message to which another reply is wanted.
    pub(crate) again: Option<usize>,
    /// What was acknowledged. A repetition that names something else is added, and is a breach.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// Answers of 200 to a cancellation.
    pub(crate) cancelled: bool,
}

/// All requests of a run, by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
}

/// What is in the ledger.
#[derive(Debug, Default, Clone)]
pub(crate) struct Books {
    pub(crate) conversations: Vec<Conversation>,
    pub(crate) requests: Vec<Request>,
}

impl Books {
    /// The number in a question, as [`Ledger::ask`] wrote it.
    pub(crate) fn number(question: &str) -> Option<usize> {
        let (_, rest) = question.split_once('#')?;
        rest.split(|letter: char| !letter.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    }
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything.
    pub(crate) fn read(&self) -> Books {
        self.books().clone()
    }

    /// How many requests were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let books = self.books();
        let known = |request: &&Request| !request.acknowledged.is_empty();
        books.requests.iter().filter(known).count()
    }

    pub(crate) fn add_conversation(&self, conversation: Conversation) -> usize {
        let mut books = self.books();
        books.conversations.push(conversation);
        books.conversations.len() - 1
    }

    pub(crate) fn conversation(&self, place: usize) -> Conversation {
        self.books().conversations[place].clone()
    }

    /// Notes a message before it is sent for the first time, and returns its number.
    pub(crate) fn ask(&self, conversation: usize, marker: &str) -> usize {
        let mut books = self.books();
        let number = books.requests.len();
        let question = format!(
            "Message #{number} of conversation {conversation}: what should I do next? {marker}"
        );
        books.requests.push(Request {
            conversation,
            key: Uuid::new_v4().to_string(),
            question: question.trim_end().to_owned(),
            again: None,
            acknowledged: Vec::new(),
            cancelled: false,
        });
        number
    }

    /// Notes the wish for another reply to a message, or to the one that `number` itself was about,
    /// and returns the wish's number.
    pub(crate) fn ask_again(&self, number: usize) -> usize {
        let mut books = self.books();
        let Request {
            conversation,
            ref question,
            again,
            ..
        } = books.requests[number];
        let wish = Request {
            conversation,
            key: Uuid::new_v4().to_string(),
            question: question.clone(),
            again: Some(again.unwrap_or(number)),
            acknowledged: Vec::new(),
            cancelled: false,
        };
        books.requests.push(wish);
        books.requests.len() - 1
    }

    pub(crate) fn request(&self, number: usize) -> Request {
        self.books().requests[number].clone()
    }

    pub(crate) fn acknowledge(&self, number: usize, answer: Acknowledged) {
        let known = &mut self.books().requests[number].acknowledged;
        if !known.contains(&answer) {
            known.push(answer);
        }
    }

    pub(crate) fn cancelled(&self, number: usize) {
        self.books().requests[number].cancelled = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_that_names_something_else_is_kept() {
        let ledger = Ledger::default();
        let place = ledger.add_conversation(Conversation {
            id: Uuid::nil(),
            authorization: "x".into(),
        });
        let number = ledger.ask(place, "[[sim:hold=3,times=1]]");
        let answer = Acknowledged {
            generation: Uuid::nil(),
            message: Uuid::nil(),
        };
        ledger.acknowledge(number, answer);
        ledger.acknowledge(number, answer);
        assert_eq!(ledger.request(number).acknowledged, [answer]);
        let other = Acknowledged {
            generation: Uuid::max(),
            ..answer
        };
        ledger.acknowledge(number, other);
        assert_eq!(ledger.request(number).acknowledged, [answer, other]);
        assert_eq!(ledger.acknowledged(), 1);
    }

    #[test]
    fn another_reply_is_one_to_the_first_message() {
        let ledger = Ledger::default();
        let first = ledger.ask(3, "");
        let second = ledger.ask_again(first);
        let third = ledger.request(ledger.ask_again(second));
        assert_eq!(third.again, Some(first));
        assert_eq!(third.question, ledger.request(first).question);
        assert_ne!(third.key, ledger.request(second).key);
    }

    #[test]
    fn the_number_is_found_in_a_question() {
        let ledger = Ledger::default();
        for expected in 0..12 {
            let question = ledger.request(ledger.ask(3, "[[sim:429]]")).question;
            assert_eq!(Books::number(&question), Some(expected));
        }
        assert_eq!(Books::number("no number"), None);
    }
}
