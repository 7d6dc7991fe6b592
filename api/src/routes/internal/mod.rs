//! `/internal`: what other services and operators may do, with a service key.

pub(super) mod dead_letters;
pub(super) mod dead_notifications;
pub(super) mod queues;
pub(super) mod stats;
pub(super) mod support;
pub(super) mod usage;
pub(super) mod workers;

use shared::store::audit::Actor;

use crate::extract::Correlation;

/// Who is asking, for the trail: a key names no person, and the request's id leads to the caller.
fn actor(correlation: &Correlation) -> Actor {
    Actor {
        name: "service".to_owned(),
        request_id: correlation.request_id().map(str::to_owned),
    }
}
