//! What happens after an error: the second half of upstream.md's table, and the little machine
//! that walks a chain by it.

use std::time::Duration;

use shared::domain::FailureCode;

use super::backoff::{MAX_IN_CLAIM, MAX_PUT_BACK, UNTOLD_WAIT, at_least, full_jitter};
use super::error::CallError;
use super::{ErrorClass, Model};

/// Whether the same model is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameModel {
    /// No.
    Never,
    /// Once, with backoff.
    Backoff,
    /// Once, with backoff, if the error says that it may help.
    IfRetryable,
    /// Once, when the upstream said it may; the generation may wait for that outside the claim.
    WhenTold,
    /// Once, with the history cut harder.
    Shorter,
    /// At once, with each key that is left.
    OtherKey,
}

/// Which later model of the chain is asked after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextModel {
    /// None: it would fail alike.
    Never,
    /// The next one.
    Any,
    /// The next free one.
    Free,
    /// The next paid one.
    Paid,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether the same model is asked again.
    pub same: SameModel,
    /// Which model after that.
    pub next: NextModel,
    /// It passes: where nothing of that helped, all of it is tried again a little later.
    pub passes: bool,
    /// What the person is told when nothing of that helped.
    pub give_up: FailureCode,
}

/// The table: what happens after an error of a class.
#[must_use]
pub const fn policy(class: ErrorClass) -> Policy {
    use FailureCode::{
        ContentRefused, ContextTooLong, UpstreamExhausted, UpstreamRejected, UpstreamUnauthorised,
    };
    const fn row(same: SameModel, next: NextModel, give_up: FailureCode) -> Policy {
        Policy {
            same,
            next,
            passes: false,
            give_up,
        }
    }
    const fn passing(same: SameModel) -> Policy {
        Policy {
            passes: true,
            ..row(same, NextModel::Any, UpstreamExhausted)
        }
    }
    match class {
        ErrorClass::InvalidRequest => row(SameModel::Never, NextModel::Never, UpstreamRejected),
        ErrorClass::ContentPolicy => row(SameModel::Never, NextModel::Never, ContentRefused),
        ErrorClass::ContextLength => row(SameModel::Shorter, NextModel::Any, ContextTooLong),
        // A model that a key is left for: one of another provider, or a free one where none can pay.
        ErrorClass::KeyRefused | ErrorClass::PaymentRequired => {
            row(SameModel::OtherKey, NextModel::Any, UpstreamUnauthorised)
        }
        ErrorClass::InFlightBudget => row(SameModel::WhenTold, NextModel::Never, UpstreamExhausted),
        ErrorClass::PlatformLimit => row(SameModel::WhenTold, NextModel::Paid, UpstreamExhausted),
        ErrorClass::Capacity => row(SameModel::WhenTold, NextModel::Any, UpstreamExhausted),
        ErrorClass::Unavailable => passing(SameModel::IfRetryable),
        ErrorClass::UnknownModel | ErrorClass::NoEndpoint => {
            row(SameModel::Never, NextModel::Any, UpstreamExhausted)
        }
        ErrorClass::Timeout => passing(SameModel::Never),
        ErrorClass::ServerError
        | ErrorClass::EmptyAnswer
        | ErrorClass::Connection
        | ErrorClass::Malformed => passing(SameModel::Backoff),
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Call the model at this place of the chain after a delay.
    Call {
        at: usize,
        delay: Duration,
        shorter: bool,
    },
    /// Free the worker and come back when the upstream said.
    PutBack(Duration),
    /// Free the worker and begin again with the chain, some time later.
    Again,
    /// Nothing helps.
    GiveUp(FailureCode),
}

/// Where a run is in its chain.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    chain: &'a [Model],
    at: usize,
    /// Calls of the current model that counted against its tries.
    tries: usize,
    /// The shortest wait that a model of this run asked for.
    told: Option<Duration>,
    /// Some model of this run failed in a way that passes.
    passing: bool,
}

impl<'a> Plan<'a> {
    /// Begins at the head of a chain.
    pub(super) fn new(chain: &'a [Model]) -> Self {
        Self {
            chain,
            at: 0,
            tries: 0,
            told: None,
            passing: false,
        }
    }

    /// The model to call now; `None` only for an empty chain.
    pub(super) fn model(&self) -> Option<&'a Model> {
        self.chain.get(self.at)
    }

    /// Decides by the table. `has_key` says whether a key is left for a model, `can_shorten`
    /// whether the prompt that failed has any history left to cut.
    pub(super) fn after(
        &mut self,
        error: &CallError,
        has_key: impl Fn(&Model) -> bool,
        can_shorten: bool,
    ) -> Step {
        let policy = policy(error.class);
        if policy.same == SameModel::OtherKey {
            if self.model().is_some_and(&has_key) {
                return Step::Call {
                    at: self.at,
                    delay: Duration::ZERO,
                    shorter: false,
                };
            }
        } else {
            self.tries += 1;
        }
        // What the error says about trying again is about this model, and about now.
        self.passing |= policy.passes;
        if let Some(step) = self.same_model(policy.same, error, can_shorten) {
            return step;
        }
        if let Some(at) = self.next_model(policy.next, has_key) {
            self.at = at;
            self.tries = 0;
            return Step::Call {
                at,
                delay: Duration::ZERO,
                shorter: false,
            };
        }
        let waits = policy.same == SameModel::WhenTold
            || (policy.give_up == FailureCode::UpstreamExhausted && self.told.is_some());
        let wait = self.told.unwrap_or(UNTOLD_WAIT);
        if waits && wait <= MAX_PUT_BACK {
            Step::PutBack(at_least(wait))
        } else if self.passing && policy.give_up == FailureCode::UpstreamExhausted {
            Step::Again
        } else {
            Step::GiveUp(policy.give_up)
        }
    }

    /// Whether the chain goes on with a model that has another limit.
    pub(super) fn has_other(&self, has_key: impl Fn(&Model) -> bool) -> bool {
        self.next_model(self.other(), has_key).is_some()
    }

    /// Leaves a model whose limit does not allow it a call for so long, for one with another limit.
    /// False where there is none.
    pub(super) fn leave(&mut self, wait: Duration, has_key: impl Fn(&Model) -> bool) -> bool {
        let next = self.next_model(self.other(), has_key);
        if let Some(at) = next {
            self.told = Some(self.told.map_or(wait, |earlier| earlier.min(wait)));
            self.at = at;
            self.tries = 0;
        }
        next.is_some()
    }

    /// Leaves a model that does not work these days. It will one day, so nothing is given up for it.
    /// False where it is the last.
    pub(super) fn skip(&mut self, has_key: impl Fn(&Model) -> bool) -> bool {
        let next = self.next_model(NextModel::Any, has_key);
        if let Some(at) = next {
            self.passing = true;
            self.at = at;
            self.tries = 0;
        }
        next.is_some()
    }

    fn other(&self) -> NextModel {
        match self.model() {
            Some(model) if model.free => NextModel::Paid,
            Some(_) => NextModel::Free,
            None => NextModel::Never,
        }
    }

    /// Another try of the current model, if it has one left and its wait fits into the claim.
    fn same_model(
        &mut self,
        same: SameModel,
        error: &CallError,
        can_shorten: bool,
    ) -> Option<Step> {
        let hopeless = same == SameModel::Never || error.retryable == Some(false);
        let told = error.hints.wait().filter(|_| !hopeless);
        if let Some(told) = told {
            self.told = Some(self.told.map_or(told, |earlier| earlier.min(told)));
        }
        let delay = match (same, told) {
            (SameModel::Never | SameModel::OtherKey, _) => return None,
            (SameModel::IfRetryable, _) if error.retryable != Some(true) => return None,
            (SameModel::Shorter, _) if !can_shorten => return None,
            (SameModel::Shorter, _) => Duration::ZERO,
            (_, Some(told)) if told > MAX_IN_CLAIM => return None,
            (_, Some(told)) => at_least(told),
            (_, None) => full_jitter(self.tries),
        };
        let again = Step::Call {
            at: self.at,
            delay,
            shorter: same == SameModel::Shorter,
        };
        (self.tries < 2).then_some(again)
    }

    fn next_model(&self, next: NextModel, has_key: impl Fn(&Model) -> bool) -> Option<usize> {
        let later = self.chain.iter().enumerate().skip(self.at + 1);
        let fits = |model: &Model| match next {
            NextModel::Never => false,
            NextModel::Any => true,
            NextModel::Free => model.free,
            NextModel::Paid => !model.free,
        };
        later
            .filter(|(_, model)| fits(model) && has_key(model))
            .map(|(at, _)| at)
            .next()
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
