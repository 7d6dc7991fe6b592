//! What a call asks of the rest of the fleet.

use std::future::Future;
use std::time::Duration;

use super::{ErrorClass, Model};

/// Whether a call may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Go,
    /// After a wait, in a place that is kept.
    Wait {
        /// Until it is its turn.
        wait: Duration,
        /// How many have their turn before.
        ahead: u64,
    },
    /// Not for so long: it failed again and again, and any other model is the better choice.
    Resting(Duration),
    /// Only after so long that a model of the other kind is the better choice.
    TooLong(Duration),
}

/// Keeps the fleet within the limits of its account, and from models that do not work. None of it can
/// fail.
pub trait Referee: Sync {
    /// Asks for one call of a model. `has_other` says that the chain has a model with another limit.
    fn admit(&self, model: &Model, has_other: bool) -> impl Future<Output = Admission> + Send;

    /// A call gave an answer.
    fn worked(&self, model: &Model) -> impl Future<Output = ()> + Send;

    /// A call failed; the upstream may have said how long to wait.
    fn failed(
        &self,
        model: &Model,
        class: ErrorClass,
        wait: Option<Duration>,
    ) -> impl Future<Output = ()> + Send;
}

/// Lets everything through.
#[derive(Clone, Copy, Debug)]
pub struct Unlimited;

impl Referee for Unlimited {
    async fn admit(&self, _: &Model, _: bool) -> Admission {
        Admission::Go
    }

    async fn worked(&self, _: &Model) {}

    async fn failed(&self, _: &Model, _: ErrorClass, _: Option<Duration>) {}
}
