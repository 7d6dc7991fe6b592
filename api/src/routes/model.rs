//! From a request to the work to queue.

use shared::domain::{Priority, Tier};
use shared::models::Model;
use shared::store::generations::NewGeneration;

use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Code, FieldError, Problem, Result};
use crate::extract::Correlation;

/// The models for a person's generation, best first.
///
/// # Errors
/// `model_unknown` when they ask for one they may not use.
pub(super) fn chain(
    app: &AppState,
    user: &Identity,
    requested: Option<&str>,
) -> Result<Vec<Model>> {
    if let Some(name) = requested
        && !app.models.is_allowed(name, user.tier)
    {
        let error = FieldError {
            field: "model".to_owned(),
            message: "is not a model you may choose".to_owned(),
        };
        return Err(Problem::coded_fields(Code::ModelUnknown, vec![error]));
    }
    Ok(app.models.chain_for(user.tier, requested))
}

/// The work as the store takes it.
pub(super) fn work<'a>(
    app: &AppState,
    user: &Identity,
    chain: &'a [Model],
    stream: bool,
    correlation: &'a Correlation,
) -> NewGeneration<'a> {
    NewGeneration {
        priority: priority(user.tier),
        chain,
        stream,
        deadline: app.gate.config.limits.generation_deadline,
        max_attempts: app.gate.config.limits.max_attempts,
        request_id: correlation.request_id(),
        traceparent: correlation.traceparent(),
    }
}

/// The queue of a tier.
pub(super) fn priority(tier: Tier) -> Priority {
    match tier {
        Tier::Premium => Priority::Premium,
        Tier::Free => Priority::Standard,
    }
}
